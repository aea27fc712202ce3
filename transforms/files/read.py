"""Files to RecordBatches: split into ranges, spread over the workers, read and decoded."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

import apache_beam as beam
import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.transforms.core.batches import slices
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import FAILURES, FailedOutput, Failure
from sluice.transforms.core.formats import FILES
from sluice.transforms.core.prefetch import prefetch_all
from sluice.transforms.decode.formats import read_range, split_found
from sluice.transforms.decode.ranges import RANGE_BYTES, FileRange
from sluice.transforms.decode.spec import Decoded, InputSpec, count_decoded, first_rows
from sluice.transforms.decode.whole_files import file_rows
from sluice.transforms.files.find_files import match_all

# The rows of a batch: enough for vectorised work, few enough that several batches are in work at once.
MAX_BATCH_ROWS = 4096


class _Grouping(NamedTuple):
    """How small files go to workers together.

    Attributes:
      ranges: the most of a group.
      size: the most bytes of a group.
      groups: fewer files than so many go one by one: they are spread over all workers then.
    """

    ranges: int
    size: int
    groups: int

    def ranges_of(self, files: int) -> int:
        """Returns the most ranges of a group, where there are so many files."""
        return min(self.ranges, -(-files // self.groups))


_SMALL_FILES = _Grouping(32, 4 << 20, 64)
# Of files that are rows, those of a group are read side by side.
_ROWS = _Grouping(64, 64 << 20, 16)
# A worker has so many files of a group open at once.
_OPENED_AHEAD = 8

TALLY = "tally"
_Tallied: TypeAlias = beam.pvalue.TaggedOutput[Literal["tally"], int]


class Read(NamedTuple):
    """The outputs of a reader: rows, failures, and the number of rows read (ints, to be summed)."""

    rows: beam.PCollection
    failures: beam.PCollection
    tally: beam.PCollection


class ReadPatterns(Composite):
    """Reads files into RecordBatches of the columns in `spec`, with the origin and payload of each row beside them.

    Args:
      patterns: globs, or one of them.
      spec: the contents of the files. `pipelines.plan.batch_job` derives it from a model and a sample of the input.
      limit: read so many rows, the first in the order of the files' names, by one worker; 0: all.
      range_bytes: what one worker reads of a file at a time, where files can be cut.
    """

    def __init__(
        self, patterns: str | Sequence[str], spec: InputSpec, limit: int = 0, range_bytes: int = RANGE_BYTES
    ) -> None:
        super().__init__()
        self._patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
        self._spec, self._limit, self._range_bytes = spec, limit, range_bytes

    def expand(self, pbegin: beam.pvalue.PBegin) -> Read:
        split = _Split(self._spec, self._limit, self._range_bytes)
        groups = pbegin | "Pattern" >> beam.Create([self._patterns]) | "Split" >> beam.ParDo(split)
        spread = groups | "Spread" >> beam.Reshuffle()
        decode = _Decode(self._spec, self._limit)
        read = spread | "Decode" >> beam.ParDo(decode).with_outputs(FAILURES, TALLY, main="rows")
        return Read(read.rows, read[FAILURES], read[TALLY])


# What one worker reads at a time: a range, or some small files.
FileGroup: TypeAlias = tuple[FileRange, ...]


@beam.typehints.with_output_types(FileGroup)
class _Split(beam.DoFn):
    """Cuts files by their sizes alone. Whoever reads a range opens its file, so that all workers open files."""

    def __init__(self, spec: InputSpec, limit: int = 0, range_bytes: int = RANGE_BYTES) -> None:
        self._spec, self._limit, self._range_bytes = spec, limit, range_bytes

    def process(self, patterns: tuple[str, ...]) -> Iterator[FileGroup]:
        files = match_all(patterns)
        if not files:  # at launch there were some: to go on would replace good output with none
            named = ", ".join(patterns)
            raise UsageError(f"no file matches {named} where the job runs; workers elsewhere do not see local files")
        whole = self._spec.format == FILES
        files = files[: self._limit] if whole and self._limit else files
        parts = (part for file in files for part in split_found(file, self._spec, self._range_bytes))
        if self._limit:
            yield tuple(parts)
            return
        grouping = _ROWS if whole else _SMALL_FILES
        yield from in_file_groups(parts, grouping.ranges_of(len(files)), grouping.size)


def in_file_groups(
    parts: Iterable[FileRange], max_ranges: int, max_bytes: int = _SMALL_FILES.size
) -> Iterator[FileGroup]:
    """Yields the ranges in order; small ones next to each other share a group, `max_ranges` at most."""
    group: list[FileRange] = []
    for part in parts:
        if group and (len(group) == max_ranges or _bytes([*group, part]) > max_bytes):
            yield tuple(group)
            group = []
        group.append(part)
    if group:
        yield tuple(group)


def _bytes(group: Iterable[FileRange]) -> int:
    return sum(part.stored_bytes for part in group)


class _Decode(beam.DoFn):
    """Counts: rows_read, bytes_read, rows_failed."""

    def __init__(self, spec: InputSpec, limit: int = 0) -> None:
        self._spec, self._limit = spec, limit

    def process(self, group: FileGroup) -> Iterator[pa.RecordBatch | FailedOutput | _Tallied]:
        if self._spec.format == FILES:  # in one batch: they are read side by side where they are bound
            rows = file_rows([part.path for part in group], self._spec)
            return emit_decoded(iter([(rows, _bytes(group))]))
        sources = (read_range(part, self._spec) for part in group)
        if self._limit:
            return emit_decoded(_limited(itertools.chain.from_iterable(sources), self._limit))
        return emit_decoded(*sources)


def _limited(source: Iterator[tuple[Decoded, int]], limit: int) -> Iterator[tuple[Decoded, int]]:
    """Yields what a source yields, up to `limit` rows, good and bad."""
    for decoded, size in source:
        some = decoded if decoded.rows <= limit else first_rows(decoded, limit)
        limit -= some.rows
        yield some, size
        if not limit:
            return


def emit_decoded(*sources: Iterator[tuple[Decoded, int]]) -> Iterator[pa.RecordBatch | FailedOutput | _Tallied]:
    """Yields the outputs of a reader's DoFn and counts them, while the next parts are read ahead.

    Args:
      sources: of (rows, bytes read). The next ones are opened ahead, since that may take longer than to read them.
    """
    rows = 0
    for decoded, size in prefetch_all(sources, _OPENED_AHEAD, depth=1):
        rows += decoded.rows
        count_decoded(decoded, size)
        for batch in decoded.batches:
            yield from slices(batch, MAX_BATCH_ROWS)
        yield from _tag(decoded.failures)
        decoded = Decoded()
    yield beam.pvalue.TaggedOutput(TALLY, rows)


def _tag(failures: list[Failure]) -> Iterator[FailedOutput]:
    """Yields the failures, and forgets each: those of a block may be many times its bytes."""
    failures.reverse()
    while failures:
        yield beam.pvalue.TaggedOutput(FAILURES, failures.pop())
