"""The last step of files without a failure rate to check: it renames them once all are written."""

from collections.abc import Iterator

import apache_beam as beam

from sluice.models.errors import SluiceError
from sluice.transforms.core.commit import clean_up
from sluice.transforms.core.composite import Composite
from sluice.transforms.files.commit import FilesCommitter
from sluice.transforms.files.open_file import columns_text, different_columns
from sluice.transforms.files.write import Shard


class Publish(Composite):
    """Renames finished files to their final names; returns these.

    The input is a tuple: the `Shard`s, and the RecordBatches that were written to them, if these must all have the same
    columns.
    """

    def __init__(self, committer: FilesCommitter) -> None:
        super().__init__()
        self._fn = _Publish(committer)

    def expand(self, written: tuple[beam.PCollection, ...]) -> beam.PCollection:
        shards, *batches = written
        begin = shards.pipeline | "Once" >> beam.Create([0])
        columns = [each | "Columns" >> beam.Map(columns_text) | beam.Distinct() for each in batches]
        return begin | "Rename" >> beam.ParDo(self._fn, *map(beam.pvalue.AsList, (shards, *columns)))


@beam.typehints.with_output_types(str)
class _Publish(beam.DoFn):
    def __init__(self, committer: FilesCommitter) -> None:
        self._committer = committer

    def process(self, _: int, shards: list[Shard], columns: list[str] | None = None) -> Iterator[str]:
        try:
            self._check_same(columns or [])
            self._committer.claim(shards)
        except SluiceError:
            clean_up([self._committer])
            raise
        names = self._committer.commit(shards)
        clean_up([self._committer])
        yield from names

    def _check_same(self, columns: list[str]) -> None:
        if len(columns) > 1:
            one, other, *_ = sorted(columns)
            raise SluiceError(f"{self._committer.target.prefix}: {different_columns(one, other)}")
