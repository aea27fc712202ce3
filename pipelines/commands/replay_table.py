"""Failures read from a BigQuery table."""

from collections.abc import Iterator, Sequence

from sluice.models.errors import SluiceError
from sluice.pipelines.options.table import BigQueryFlags
from sluice.transforms.bigquery.read_failures import find_failures, read_failures
from sluice.transforms.pubsub.replay.stored_failure import StoredFailure, parse_failure


class FailureTable:
    """The rows that a table of failures has now, which stay there.

    See `transforms.pubsub.replay.stored_failure.FailureSource`.

    Args:
      reached: how BigQuery is.
      table: PROJECT.DATASET.TABLE.
      label: the flag by which it was given, with a space behind it, for errors.

    Attributes:
      strangers: how many rows were not failures, and were left.

    Raises:
      UsageError: the table cannot be read, or is of something else.
    """

    def __init__(
        self, reached: BigQueryFlags, table: str, row_restriction: str = "", label: str = "--failures_table "
    ) -> None:
        endpoints = reached.bigquery_endpoint or None, reached.bigquery_storage_endpoint or None
        self._found = find_failures(table, row_restriction, *endpoints, label=label)
        self.strangers = 0

    def chunks(self) -> Iterator[list[StoredFailure]]:
        for texts in read_failures(self._found):
            yield list(self._parsed(texts))

    def settle(self, failures: Sequence[StoredFailure]) -> None:
        pass

    def close(self) -> None:
        pass

    def _parsed(self, texts: Sequence[bytes]) -> Iterator[StoredFailure]:
        for text in texts:
            try:
                yield parse_failure(text)
            except SluiceError:
                self.strangers += 1
