"""The last step of output without a failure rate to check: it publishes files, or rows, once all are written."""

from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from sluice.models.errors import SluiceError
from sluice.transforms.core.commit import clean_up
from sluice.transforms.core.committer import Committer
from sluice.transforms.core.composite import Composite
from sluice.transforms.files.open_file import columns_text, different_columns


class Publish(Composite):
    """Publishes finished parts; returns the final names of files.

    The input is a tuple: the parts, and the RecordBatches that were written to them, if these must all have the same
    columns.

    Args:
      place: the name of the place, for errors.
    """

    def __init__(self, committer: Committer, place: str) -> None:
        super().__init__()
        self._fn = _Publish(committer, place)

    def expand(self, written: tuple[beam.PCollection, ...]) -> beam.PCollection:
        parts, *batches = written
        begin = parts.pipeline | "Once" >> beam.Create([0])
        columns = [each | "Columns" >> beam.Map(columns_text) | beam.Distinct() for each in batches]
        return begin | "Rename" >> beam.ParDo(self._fn, *map(beam.pvalue.AsList, (parts, *columns)))


@beam.typehints.with_output_types(str)
class _Publish(beam.DoFn):
    def __init__(self, committer: Committer, place: str) -> None:
        self._committer, self._place = committer, place

    def process(self, _: int, parts: list[Any], columns: list[str] | None = None) -> Iterator[str]:
        try:
            self._check_same(columns or [])
            self._committer.claim(parts)
        except SluiceError:
            clean_up([self._committer])
            raise
        names = self._committer.commit(parts)
        clean_up([self._committer])
        yield from names

    def _check_same(self, columns: list[str]) -> None:
        if len(columns) > 1:
            one, other, *_ = sorted(columns)
            raise SluiceError(f"{self._place}: {different_columns(one, other)}")
