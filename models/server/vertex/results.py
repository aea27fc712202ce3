"""The files that a batch prediction job writes."""

import contextlib
import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, BinaryIO

from sluice.models.server.vertex.files import JobFiles
from sluice.models.server.vertex.instances import Instance


class Results:
    """Writes the predictions of a job, batch by batch, into shards: the order of the input is lost.

    Args:
      directory: it is made.
      form: "jsonl" or "csv".
      shards: how many files.
      suffix: the end of their names.
      lost: a shard that is not written.
    """

    def __init__(
        self, files: JobFiles, directory: str, form: str, shards: int, suffix: str = "", lost: int | None = None
    ) -> None:
        self._files, self._directory, self._form = files, directory, form
        self._shards, self._suffix, self._lost = shards, suffix, lost
        self._open: dict[int, BinaryIO] = {}
        self._batches = 0

    def add(self, instances: Sequence[Instance], predictions: Sequence[Any]) -> None:
        """Writes one batch."""
        shard = self._batches % self._shards
        self._batches += 1
        if shard == self._lost:
            return
        is_first = shard not in self._open
        file = self._file(shard)
        if self._form == "csv":
            text = _table(instances, predictions, is_first)
        else:
            text = _lines(instances, predictions)
        file.write(text.encode("utf-8", "surrogateescape"))

    def close(self, errors: Counter[str]) -> None:
        """Ends all files, those without a line too, and writes what went wrong.

        Args:
          errors: how many instances failed for each reason.
        """
        for shard in range(self._shards):
            if shard != self._lost:
                self._file(shard).close()
        with self._files.create(f"{self._directory}/prediction.errors_stats-00000-of-00001") as file:
            # Python's tuples as text, as the service writes them: python-aiplatform#2666.
            for text, count in errors.items():
                file.write(f"{(text, count)!r}\n".encode("utf-8", "backslashreplace"))

    def abandon(self) -> None:
        """Closes what is open."""
        for file in self._open.values():
            with contextlib.suppress(OSError):
                file.close()

    def _file(self, shard: int) -> BinaryIO:
        if shard not in self._open:
            name = f"prediction.results-{shard:05}-of-{self._shards:05}{self._suffix}"
            self._open[shard] = self._files.create(f"{self._directory}/{name}")
        return self._open[shard]


def _lines(instances: Sequence[Instance], predictions: Sequence[Any]) -> str:
    shown = zip(instances, predictions, strict=True)
    lines = (json.dumps({**each.shown, "prediction": prediction}, ensure_ascii=False) for each, prediction in shown)
    return "".join(f"{line}\n" for line in lines)


def _table(instances: Sequence[Instance], predictions: Sequence[Any], with_header: bool) -> str:
    """Returns lines of CSV: the columns of the instance, or its key, and the prediction; what is nested is JSON."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if with_header:
        writer.writerow([*instances[0].columns(), "prediction"])
    for each, prediction in zip(instances, predictions, strict=True):
        writer.writerow([cell(value) for value in (*each.columns().values(), prediction)])
    return text.getvalue()


def cell(value: object) -> object:
    """Returns a value as a field of CSV or of a table holds it: nested ones are JSON in text."""
    return json.dumps(value) if isinstance(value, list | dict) else value
