"""Files to RecordBatches: split into ranges, spread over the workers, read and decoded."""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, TypeAlias

import apache_beam as beam
import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.transforms.core.batches import slices
from sluice.transforms.core.beam_files import match_files
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import FAILURES, FailedOutput, Failure
from sluice.transforms.core.prefetch import prefetch_all
from sluice.transforms.decode.formats import read_range, split_found
from sluice.transforms.decode.ranges import FileRange
from sluice.transforms.decode.spec import Decoded, InputSpec, count_decoded

# The rows of a batch: enough for vectorised work, few enough that several batches are in work at once.
MAX_BATCH_ROWS = 4096

# So many small files go to a worker together, with so many bytes at most. It has so many of them open at once.
_GROUP_RANGES, _GROUP_BYTES = 32, 4 << 20
# Fewer files than so many go to workers one by one: they are spread over all workers then.
_GROUPS = 64
_OPENED_AHEAD = 8

TALLY = "tally"
_Tallied: TypeAlias = beam.pvalue.TaggedOutput[Literal["tally"], int]


class Read(NamedTuple):
    """The outputs of a reader: rows, failures, and the number of rows read (ints, to be summed)."""

    rows: beam.PCollection
    failures: beam.PCollection
    tally: beam.PCollection


class ReadFiles(Composite):
    """Reads files into RecordBatches of the columns in `spec`, with the origin and payload of each row beside them.

    Args:
      pattern: a glob.
      spec: the contents of the files. `pipelines.plan.batch_job` derives it from a model and a sample of the input.
    """

    def __init__(self, pattern: str, spec: InputSpec) -> None:
        super().__init__()
        self._pattern = pattern
        self._spec = spec

    def expand(self, pbegin: beam.pvalue.PBegin) -> Read:
        groups = pbegin | "Pattern" >> beam.Create([self._pattern]) | "Split" >> beam.ParDo(_Split(self._spec))
        spread = groups | "Spread" >> beam.Reshuffle()
        read = spread | "Decode" >> beam.ParDo(_Decode(self._spec)).with_outputs(FAILURES, TALLY, main="rows")
        return Read(read.rows, read[FAILURES], read[TALLY])


# What one worker reads at a time: a range, or some small files.
FileGroup: TypeAlias = tuple[FileRange, ...]


@beam.typehints.with_output_types(FileGroup)
class _Split(beam.DoFn):
    """Cuts files by their sizes alone. Whoever reads a range opens its file, so that all workers open files."""

    def __init__(self, spec: InputSpec) -> None:
        self._spec = spec

    def process(self, pattern: str) -> Iterator[FileGroup]:
        files = match_files(pattern)
        if not files:  # at launch there were some: to go on would replace good output with none
            raise UsageError(f"no file matches {pattern} where the job runs; workers elsewhere do not see local files")
        parts = (part for file in files for part in split_found(file, self._spec))
        yield from in_file_groups(parts, min(_GROUP_RANGES, -(-len(files) // _GROUPS)))


def in_file_groups(parts: Iterable[FileRange], max_ranges: int) -> Iterator[FileGroup]:
    """Yields the ranges in order; small ones next to each other share a group, `max_ranges` at most."""
    group: list[FileRange] = []
    for part in parts:
        if group and (len(group) == max_ranges or _bytes([*group, part]) > _GROUP_BYTES):
            yield tuple(group)
            group = []
        group.append(part)
    if group:
        yield tuple(group)


def _bytes(group: Iterable[FileRange]) -> int:
    return sum(part.stored_bytes for part in group)


class _Decode(beam.DoFn):
    """Counts: rows_read, bytes_read, rows_failed."""

    def __init__(self, spec: InputSpec) -> None:
        self._spec = spec

    def process(self, group: FileGroup) -> Iterator[pa.RecordBatch | FailedOutput | _Tallied]:
        return emit_decoded(*(read_range(part, self._spec) for part in group))


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
