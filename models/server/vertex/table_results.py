"""The tables that a batch prediction job writes."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sluice.models.server.vertex.files import JobTables
from sluice.models.server.vertex.instances import Instance


class TableResults:
    """Writes the predictions of a job into a table, and what went wrong into another, when it ends.

    Args:
      predictions, errors: bq://PROJECT.DATASET.TABLE.
    """

    def __init__(self, tables: JobTables, predictions: str, errors: str) -> None:
        self._tables, self._predictions, self._errors = tables, predictions, errors
        self._rows: list[dict[str, Any]] = []

    def add(self, instances: Sequence[Instance], predictions: Sequence[Any]) -> None:
        """Takes one batch."""
        for each, prediction in zip(instances, predictions, strict=True):
            # Without a schema of its predictions, a model's are JSON in text.
            self._rows.append({**each.columns(), "prediction": json.dumps(prediction, ensure_ascii=False)})

    def close(self, errors: Counter[str]) -> None:
        """Writes the tables; one without a row is not made.

        Args:
          errors: how many instances failed for each reason.
        """
        if self._rows:
            self._tables.write(self._predictions, self._rows)
        if errors:
            failed = [
                {"error": json.dumps({"code": 3, "message": text}), "count": count} for text, count in errors.items()
            ]
            self._tables.write(self._errors, failed)

    def abandon(self) -> None:
        """Forgets the rows."""
        self._rows.clear()
