"""Files to RecordBatches: split, spread over the workers, read and decoded."""

from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

import apache_beam as beam
import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.transforms.core.batches import slices
from sluice.transforms.core.beam_files import match_files
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import Failure
from sluice.transforms.core.prefetch import prefetch
from sluice.transforms.decode.spec import Decoded, InputSpec, count_decoded, file_failure
from sluice.transforms.files.ranges import FileRange, is_file_error, read_range, split_file

# A batch holds at most this many rows: enough for vectorised work, small enough that several are in work at once.
MAX_BATCH_ROWS = 4096

FAILURES, TALLY = "failures", "tally"

_Failed: TypeAlias = beam.pvalue.TaggedOutput[Literal["failures"], Failure]
_Tallied: TypeAlias = beam.pvalue.TaggedOutput[Literal["tally"], int]


class Read(NamedTuple):
    """What a reader gives: rows, failures, and how many rows there were (ints to be summed)."""

    rows: beam.PCollection
    failures: beam.PCollection
    tally: beam.PCollection


class ReadFiles(Composite):
    """Reads files into RecordBatches of the columns in `spec`, with their origin and payload beside them.

    Args:
      pattern: a glob.
      spec: what the files hold; `pipelines.plan.batch` derives it from a model and a sample of the input.
    """

    def __init__(self, pattern: str, spec: InputSpec) -> None:
        super().__init__()
        self._pattern = pattern
        self._spec = spec

    def expand(self, pbegin: beam.pvalue.PBegin) -> Read:
        split = (
            pbegin
            | "Pattern" >> beam.Create([self._pattern])
            | "Split" >> beam.ParDo(_Split(self._spec)).with_outputs(FAILURES, TALLY, main="ranges")
        )
        parts = split.ranges | "Spread" >> beam.Reshuffle()
        read = parts | "Decode" >> beam.ParDo(_Decode(self._spec)).with_outputs(FAILURES, TALLY, main="rows")
        failures = (split[FAILURES], read[FAILURES]) | "Failures" >> beam.Flatten()
        tally = (split[TALLY], read[TALLY]) | "Tally" >> beam.Flatten()
        return Read(read.rows, failures, tally)


class _Split(beam.DoFn):
    """Counts: rows_read, rows_failed (files whose head cannot be read)."""

    def __init__(self, spec: InputSpec) -> None:
        self._spec = spec

    def process(self, pattern: str) -> Iterator[FileRange | _Failed | _Tallied]:
        files = match_files(pattern)
        if not files:  # there were some when the job was launched: to go on would replace good output by none
            raise UsageError(f"no file matches {pattern} where the job runs; workers elsewhere do not see local files")
        for file in files:
            try:
                yield from split_file(file.path, file.size_in_bytes, self._spec)
            except Exception as error:
                if not is_file_error(error):
                    raise
                failed = Decoded(failures=[file_failure(error, file.path)])
                count_decoded(failed, 0)
                yield from _tag(failed.failures)
                yield beam.pvalue.TaggedOutput(TALLY, failed.rows)


class _Decode(beam.DoFn):
    """Counts: rows_read, bytes_read, rows_failed."""

    def __init__(self, spec: InputSpec) -> None:
        self._spec = spec

    def process(self, part: FileRange) -> Iterator[pa.RecordBatch | _Failed | _Tallied]:
        return emit_decoded(read_range(part, self._spec))


def emit_decoded(parts: Iterator[tuple[Decoded, int]]) -> Iterator[pa.RecordBatch | _Failed | _Tallied]:
    """Yields what a reader's DoFn gives, and counts it, while the next parts are made ahead.

    Args:
      parts: (rows, bytes read).
    """
    rows = 0
    for decoded, size in prefetch(parts):
        rows += decoded.rows
        count_decoded(decoded, size)
        for batch in decoded.batches:
            yield from slices(batch, MAX_BATCH_ROWS)
        yield from _tag(decoded.failures)
    yield beam.pvalue.TaggedOutput(TALLY, rows)


def _tag(failures: list[Failure]) -> Iterator[_Failed]:
    return (beam.pvalue.TaggedOutput(FAILURES, failure) for failure in failures)
