"""Files to RecordBatches: split into ranges, spread over the workers, read and decoded."""

from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

import apache_beam as beam
import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.transforms.core.batches import slices
from sluice.transforms.core.beam_files import match_files
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import FAILURES, FailedOutput, Failure
from sluice.transforms.core.prefetch import prefetch
from sluice.transforms.decode.formats import is_file_error, read_range, split_file
from sluice.transforms.decode.ranges import FileRange
from sluice.transforms.decode.spec import Decoded, InputSpec, count_decoded, file_failure

# The rows of a batch: enough for vectorised work, few enough that several batches are in work at once.
MAX_BATCH_ROWS = 4096

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
    """Counts: rows_read, rows_failed (files whose beginning cannot be read)."""

    def __init__(self, spec: InputSpec) -> None:
        self._spec = spec

    def process(self, pattern: str) -> Iterator[FileRange | FailedOutput | _Tallied]:
        files = match_files(pattern)
        if not files:  # at launch there were some: to go on would replace good output with none
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

    def process(self, part: FileRange) -> Iterator[pa.RecordBatch | FailedOutput | _Tallied]:
        return emit_decoded(read_range(part, self._spec))


def emit_decoded(parts: Iterator[tuple[Decoded, int]]) -> Iterator[pa.RecordBatch | FailedOutput | _Tallied]:
    """Yields the outputs of a reader's DoFn and counts them, while the next parts are read ahead.

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


def _tag(failures: list[Failure]) -> Iterator[FailedOutput]:
    return (beam.pvalue.TaggedOutput(FAILURES, failure) for failure in failures)
