"""The answers of a managed job joined to their rows, shard by shard from files."""

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from sluice.models.batching.mini_batch import RowFailure
from sluice.models.batching.tickets import Prediction
from sluice.models.endpoints.instances import decode_answers, read_answer
from sluice.models.signature import Signature
from sluice.models.tensors.binding import Group
from sluice.models.wording import text_of
from sluice.transforms.core import metrics
from sluice.transforms.core.batches import slices
from sluice.transforms.core.beam_files import open_binary
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import FAILURES, FailedOutput, Failure, count_failures
from sluice.transforms.files.read import MAX_BATCH_ROWS
from sluice.transforms.managed.answer_lines import lines_of
from sluice.transforms.managed.find_answers import read_prepared
from sluice.transforms.managed.joined import Joined
from sluice.transforms.managed.kept_failures import read_failures
from sluice.transforms.managed.place import Answers, Place, gone, read_stretches
from sluice.transforms.managed.row_files import read_batches
from sluice.transforms.predict.batches import score

# The error_type of a row that the service does not answer, alone either.
UNANSWERED = "Unanswered"
# The answers to a shard are held in memory up to this size, and beyond it in a file of the worker.
_MAX_HELD_BYTES = 64 << 20
# The answers that are parsed and joined at once.
_MAX_JOINED_BYTES = 8 << 20


@dataclasses.dataclass(frozen=True)
class Decoding:
    """What makes outputs of answers. Picklable.

    Attributes:
      uri, version: the model's.
      prefix: for the names of the outputs.
      unanswered: the reason of a row without an answer.
    """

    uri: str
    version: int | None
    signature: Signature
    prefix: str
    unanswered: str


class JoinAnswers(Composite):
    """Reads the rows of a `Place`, each with its answer, in the shape that `Predict` gives them.

    Args:
      jobs: the IDs of the jobs of the service whose answers have been found; (): there are no rows but failures.
    """

    def __init__(self, place: Place, decoding: Decoding, jobs: tuple[str, ...]) -> None:
        super().__init__()
        self._place, self._decoding, self._jobs = place, decoding, jobs

    def expand(self, pbegin: beam.pvalue.PBegin) -> Joined:
        begin = pbegin | "Prepared" >> beam.Create([self._place])
        tasks = begin | "Shards" >> beam.ParDo(_Tasks(self._jobs)) | "Spread" >> beam.Reshuffle()
        join = beam.ParDo(_Join(self._place, self._decoding))
        joined = tasks | "Join" >> join.with_outputs(FAILURES, main="rows")
        files = begin | "Failures" >> beam.FlatMap(_failure_files) | "SpreadFailures" >> beam.Reshuffle()
        earlier = files | "ReadFailures" >> beam.ParDo(_ReadFailures())
        return Joined(joined.rows, joined[FAILURES], earlier, begin | "Rows" >> beam.Map(_rows_in))


@dataclasses.dataclass(frozen=True)
class _Task:
    """A shard, and the paths of the records where its answers stand."""

    shard: str
    rows: int
    found: tuple[str, ...]


class _Tasks(beam.DoFn):
    """Counts: rows_read, of rows that are not joined."""

    def __init__(self, jobs: tuple[str, ...]) -> None:
        self._jobs = jobs

    def process(self, place: Place) -> Iterator[_Task]:
        prepared = read_prepared(place)
        if not self._jobs:
            metrics.count(metrics.ROWS_READ, prepared.rows)
            return
        names = [_answers_of(place, job).found for job in self._jobs]
        for shard in prepared.shards:
            yield _Task(shard.id, shard.rows, tuple(place.found(name, shard.id) for name in names))


def _answers_of(place: Place, job: str) -> Answers:
    answers = Answers.read(place, job)
    if answers is None:
        raise gone(place.answers(job))
    return answers


def _failure_files(place: Place) -> Sequence[str]:
    return read_prepared(place).failures


def _rows_in(place: Place) -> int:
    return read_prepared(place).rows_in


@beam.typehints.with_output_types(Failure)
class _ReadFailures(beam.DoFn):
    """Counts: rows_read, rows_failed."""

    def process(self, path: str) -> Iterator[Failure]:
        with open_binary(path) as file:
            for failure in read_failures(file):
                metrics.count(metrics.ROWS_READ)
                count_failures([failure])
                yield failure


class _Join(beam.DoFn):
    """Counts: rows_read; rows_predicted, in all and by version; rows_failed."""

    def __init__(self, place: Place, decoding: Decoding) -> None:
        self._place, self._decoding = place, decoding

    def process(self, task: _Task) -> Iterator[pa.RecordBatch | FailedOutput]:
        first = 0
        with open_binary(self._place.rows(task.shard)) as file, _ShardAnswers(task) as answers:
            for batch in read_batches(file):
                for part in slices(batch, answers.most_rows(first, batch.num_rows)):
                    yield from self._join(part, answers.predictions(first, first + part.num_rows))
                    first += part.num_rows

    def _join(self, batch: pa.RecordBatch, predictions: Sequence[Any]) -> Iterator[pa.RecordBatch | FailedOutput]:
        scored, failures = join_batch(batch, predictions, self._decoding)
        metrics.count(metrics.ROWS_READ, batch.num_rows)
        count_failures(failures)
        if scored is not None:
            metrics.count(metrics.ROWS_PREDICTED, scored.num_rows)
            if self._decoding.version is not None:
                metrics.count_version(self._decoding.version, scored.num_rows)
            yield scored
        yield from (beam.pvalue.TaggedOutput(FAILURES, failure) for failure in failures)


class _ShardAnswers:
    """The answers to one shard by row, in memory or, where they are large, in a file of the worker."""

    def __init__(self, task: _Task) -> None:
        self._starts = np.zeros(task.rows, np.int64)
        self._sizes = np.zeros(task.rows, np.int64)  # 0: there is no answer
        self._file = tempfile.SpooledTemporaryFile(_MAX_HELD_BYTES)  # noqa: SIM115  it is closed in __exit__
        position = 0
        stretches = (stretch for path in task.found for stretch in read_stretches(path))
        for line in (line for stretch in stretches for line in lines_of(stretch)):
            if line.shard == task.shard and line.row < task.rows:
                self._file.write(line.text)
                self._starts[line.row], self._sizes[line.row] = position, len(line.text)
                position += len(line.text)

    def __enter__(self) -> "_ShardAnswers":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def most_rows(self, start: int, rows: int) -> int:
        """Returns how many of the next rows are joined at once."""
        size = int(self._sizes[start : start + rows].sum())
        return min(MAX_BATCH_ROWS, max(1, rows * _MAX_JOINED_BYTES // max(size, _MAX_JOINED_BYTES)))

    def predictions(self, start: int, stop: int) -> list[Any]:
        """Returns the predictions of rows [start, stop); None: there is none."""
        return [self._prediction(row) if self._sizes[row] else None for row in range(start, stop)]

    def _prediction(self, row: int) -> Any:
        self._file.seek(self._starts[row])
        answer = read_answer(self._file.read(self._sizes[row]))
        assert answer is not None, "it was one when it was written"
        return answer.prediction


def join_batch(
    batch: pa.RecordBatch, predictions: Sequence[Any], decoding: Decoding
) -> tuple[pa.RecordBatch | None, list[Failure]]:
    """Returns the rows that have outputs, with them, and the failures of the others, both in order.

    Args:
      predictions: for each row, as the service wrote it; None: there is none.
    """
    there = np.flatnonzero([prediction is not None for prediction in predictions])
    unanswered = RowFailure(UNANSWERED, decoding.unanswered)
    failed = {row: unanswered for row, prediction in enumerate(predictions) if prediction is None}
    parts: list[tuple[Group, Prediction]] = []
    for part in decode_answers([predictions[row] for row in there.tolist()], decoding.signature, decoding.version):
        rows = there[part.start : part.stop]
        if part.result is not None:
            versions = ((len(rows), decoding.version),)
            prediction = Prediction(None, dict(part.result.arrays), versions, {}, (), 0.0)
            parts.append((Group(rows, {}, len(rows)), prediction))
        elif part.error is not None:
            reason = RowFailure(type(part.error).__name__, text_of(part.error))
            failed |= dict.fromkeys(rows.tolist(), reason)
    nothing = Prediction(np.empty(0, np.int64), {}, (), failed, (), 0.0)
    parts.append((Group(None, {}, batch.num_rows), nothing))
    return score(batch, {}, parts, decoding.signature, decoding.uri, decoding.prefix, decoding.version)
