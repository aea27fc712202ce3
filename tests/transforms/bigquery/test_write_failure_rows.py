"""Failures of a batch job on their way to a table: how many are sent together."""

from typing import Any

import pyarrow as pa

from sluice.transforms.bigquery import write_failure_rows
from sluice.transforms.bigquery.append_rows import Refused
from sluice.transforms.bigquery.table_target import TableTarget
from sluice.transforms.bigquery.write_failure_rows import SCHEMA, WriteFailureRows
from sluice.transforms.core.failures import Failure


class Stream:
    """Takes every row.

    Attributes:
      batches: how many came together.
    """

    def __init__(self) -> None:
        self.batches: list[int] = []

    def append(self, batch: pa.RecordBatch, source: Any) -> list[Refused]:
        self.batches.append(batch.num_rows)
        return []


def sent(*failures: Failure) -> list[int]:
    """Returns how many are sent together before the bundle ends."""
    stream = Stream()
    fn = WriteFailureRows(TableTarget.appended("p.d.t", SCHEMA, "j"))._fn
    fn._open = lambda: stream
    fn.start_bundle()
    for failure in failures:
        assert list(fn.process(failure)) == []
    return stream.batches


def test_failures_gather_by_number_and_by_bytes() -> None:
    small = Failure("predict", "InvalidRow", "m", "o", b"p")
    assert sent(*[small] * 1_100) == [500, 500]
    third = write_failure_rows._BATCH_BYTES // 3 + 1
    payloads = Failure("predict", "InvalidRow", "m", "o", b"p" * third)
    assert sent(*[payloads] * 7) == [3, 3]
    texts = Failure("predict", "InvalidRow", "m" * third, "o", b"")
    assert sent(small, *[texts] * 4) == [4]
