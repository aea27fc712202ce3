"""`Predict`: adds the outputs of a model to RecordBatches as columns."""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.transforms.window import BoundedWindow
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from sluice.models.batching.mini_batch import RowFailure
from sluice.models.batching.scheduler import Scheduler
from sluice.models.batching.tickets import Prediction, Ticket
from sluice.models.cache import ModelRecipe, shared_scheduler
from sluice.models.errors import ModelLost, NonePassed, TooManyFailures
from sluice.models.files import ModelFiles
from sluice.models.saved_model.followed import take_changes
from sluice.models.signature import Signature
from sluice.models.tensors.binding import Group
from sluice.transforms.core import metrics
from sluice.transforms.core.batches import failure_of, origin_of, without_fed
from sluice.transforms.core.beam_files import BeamFiles
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import BIND, FAILURES, PREDICT, FailedOutput, Failure, Result, count_failures
from sluice.transforms.core.file_contents import FileInputs, Loaded, load_files
from sluice.transforms.core.outputs import VERSION_COLUMN, append_outputs
from sluice.transforms.core.worker import replace_worker

# The DoFn yields these, each in a WindowedValue.
_Output: TypeAlias = pa.RecordBatch | FailedOutput

# A bundle submits this many full batches beyond those that may be in flight, before it waits for its oldest rows: the
# model always finds a full batch waiting while the bundle reads and writes.
_BATCHES_AHEAD = 3
# A waiting bundle reports at this interval how long the model has been unavailable.
_REPORT_SECS = 1.0


class Predict(Composite):
    """Scores RecordBatches with a model.

    Accepts batches with a column for each input of the model's signature. Returns the same rows with the outputs as
    columns, and `_model` and `_version` after them. Rows that do not fit, or that the model refuses, are returned as
    `Failure`s. Every row is in one of the two outputs, once.

    Args:
      recipe: the model, and the mini-batching of its calls.
      output_prefix: a prefix for the names of the outputs.
      files: read the files of the model; Beam's FileSystems by default.
      is_endless: of a stream, which no failure rate ends. Rows that fail before any row has passed then fail the
        bundle, because the model may be at fault; after 1,000 different ones, or 60 s with 10, by TooManyFailures.
      contents: inputs that get what is in files, whose paths are in columns; None: there are none.
    """

    def __init__(
        self,
        recipe: ModelRecipe,
        output_prefix: str = "",
        files: ModelFiles | None = None,
        is_endless: bool = False,
        contents: FileInputs | None = None,
    ) -> None:
        super().__init__()
        self._fn = _Predict(recipe, output_prefix, files or BeamFiles(), is_endless, contents)

    def expand(self, batches: beam.PCollection[pa.RecordBatch]) -> Result:
        outputs = batches | "Call" >> beam.ParDo(self._fn).with_outputs(FAILURES, main="rows")
        return Result(outputs.rows, outputs[FAILURES])


@dataclasses.dataclass
class _Work:
    """A batch that has been submitted to the scheduler."""

    batch: pa.RecordBatch
    errors: dict[int, str]
    tickets: list[tuple[Group, Ticket]]
    windows: tuple[BoundedWindow, ...]
    timestamp: Timestamp

    @property
    def done(self) -> bool:
        return all(ticket.future.done() for _, ticket in self.tickets)

    def wait(self, secs: float) -> bool:
        """Waits for up to `secs`; returns whether the work is done."""
        return not concurrent.futures.wait([ticket.future for _, ticket in self.tickets], secs).not_done


class _Predict(beam.DoFn):
    """Counts: rows_predicted, rows_failed, rpc_retries, model_swaps, model_versions_rejected,
    cumulativeThrottlingSeconds; rows_predicted/VERSION of a served model; batch_size, predict_latency_msec, queue_msec,
    model_load_msec."""

    def __init__(
        self,
        recipe: ModelRecipe,
        output_prefix: str,
        files: ModelFiles,
        is_endless: bool,
        contents: FileInputs | None = None,
    ) -> None:
        self._recipe = recipe
        self._contents = contents
        self._is_endless = is_endless
        self._prefix = output_prefix
        self._files = files
        self._work: collections.deque[_Work] = collections.deque()
        self._rows = self._bytes = 0  # in work
        self._throttled_secs = 0.0  # not yet reported: less than a second
        self._throttled_before = 0.0

    def setup(self) -> None:
        self._scheduler: Scheduler = shared_scheduler(self._recipe, self._files)
        options = self._scheduler.options
        self._max_rows = (options.max_in_flight + _BATCHES_AHEAD) * options.max_batch_size
        self._max_bytes = options.max_pending_bytes

    def start_bundle(self) -> None:
        self._cancel()
        self._throttled_before = self._scheduler.throttled_secs
        if self._scheduler.load_msec:
            metrics.record(metrics.MODEL_LOAD_MSEC, self._scheduler.load_msec)
            self._scheduler.load_msec = 0.0
        self._report_changes()

    def process(
        self,
        batch: pa.RecordBatch,
        window: BoundedWindow = beam.DoFn.WindowParam,
        timestamp: Timestamp = beam.DoFn.TimestampParam,
    ) -> Iterator[_Output]:
        for rows, failures in load_files(batch, self._contents) if self._contents else (Loaded(batch, []),):
            count_failures(failures)
            for failure in failures:
                yield beam.pvalue.TaggedOutput(FAILURES, WindowedValue(failure, timestamp, (window,)))
            if rows is not None:
                self._submit(rows, window, timestamp)
            while self._work and (self._work[0].done or self._rows > self._max_rows or self._bytes > self._max_bytes):
                yield from self._emit()
        self._report_throttling()

    def _submit(self, batch: pa.RecordBatch, window: BoundedWindow, timestamp: Timestamp) -> None:
        bound = self._scheduler.model.bind(batch)
        tickets = [  # the scheduler has the tensors, and no one else needs them
            (dataclasses.replace(group, feeds={}), self._scheduler.submit(group.feeds, self._report_throttling))
            for group in bound.groups
        ]
        batch = without_fed(batch)
        self._work.append(_Work(batch, bound.errors, tickets, (window,), timestamp))
        self._rows, self._bytes = self._rows + batch.num_rows, self._bytes + batch.nbytes

    def finish_bundle(self) -> Iterator[_Output]:
        while self._work:
            yield from self._emit()
        self._report_throttling()
        self._report_changes()

    def teardown(self) -> None:
        self._cancel()

    def _cancel(self) -> None:
        """Cancels the calls of a failed bundle."""
        if self._work:
            self._scheduler.cancel([ticket for work in self._work for _, ticket in work.tickets])
            self._work.clear()
        self._rows = self._bytes = 0

    def _emit(self) -> Iterator[_Output]:
        """Waits for the oldest batch; yields its rows and failures with its window and timestamp."""
        work = self._work[0]
        while not work.wait(_REPORT_SECS):
            self._report_throttling()
        try:
            predictions = [(group, ticket.future.result()) for group, ticket in work.tickets]
        except ModelLost as error:
            replace_worker(error, private=self._recipe.model.private)
            raise
        if self._is_endless:
            self._check_proven(work.batch, predictions)
        self._work.popleft()
        self._rows, self._bytes = self._rows - work.batch.num_rows, self._bytes - work.batch.nbytes
        model = self._scheduler.model
        scored, failures = score(work.batch, work.errors, predictions, model.signature, model.uri, self._prefix)
        _record(scored, failures, predictions)
        if scored is not None and model.remote:
            _record_versions(scored)
        if scored is not None:
            yield WindowedValue(scored, work.timestamp, work.windows)
        for failure in failures:
            yield beam.pvalue.TaggedOutput(FAILURES, WindowedValue(failure, work.timestamp, work.windows))

    def _check_proven(self, batch: pa.RecordBatch, predictions: Sequence[tuple[Group, Prediction]]) -> None:
        """Checks that failures are those of rows.

        Raises:
          NonePassed: no row has passed, so they may be the model's.
          TooManyFailures: so many that waiting is of no use.
        """
        failed = [
            (_index(group, row), failure.message)
            for group, prediction in predictions
            for row, failure in prediction.failures.items()
            if not failure.proven
        ]
        if not failed:
            return
        uri, (_, reason) = self._scheduler.model.uri, failed[0]
        self._scheduler.proof.note_failed([origin_of(batch, row) or object() for row, _ in failed], reason)
        if verdict := self._scheduler.proof.verdict():
            raise TooManyFailures(f"model {uri} has never answered: {verdict}")
        raise NonePassed(f"model {uri} has not answered yet, and fails on rows: {reason}")

    def _report_changes(self) -> None:
        """Counts the versions that a followed model has loaded or rejected. The first bundle to ask counts them."""
        changes = take_changes(self._scheduler.model)
        metrics.count(metrics.MODEL_SWAPS, len(changes.load_msecs))
        metrics.count(metrics.MODEL_REJECTED, changes.rejected)
        for load_msec in changes.load_msecs:
            metrics.record(metrics.MODEL_LOAD_MSEC, load_msec)

    def _report_throttling(self) -> None:
        """Counts the whole seconds that calls waited for the model during this bundle."""
        now = self._scheduler.throttled_secs
        self._throttled_secs += now - self._throttled_before
        self._throttled_before = now
        whole = int(self._throttled_secs)
        self._throttled_secs -= whole
        metrics.count(metrics.THROTTLED_SECS, whole)


def score(
    batch: pa.RecordBatch,
    errors: dict[int, str],
    predictions: list[tuple[Group, Prediction]],
    signature: Signature,
    uri: str,
    prefix: str,
) -> tuple[pa.RecordBatch | None, list[Failure]]:
    """Returns the predicted rows of a batch with the outputs appended, and the failures, both in order.

    Args:
      errors: the rows that were not bound, with the reason.
    """
    failed = {row: _failure(BIND, RowFailure("InvalidRow", text), batch, row, uri) for row, text in errors.items()}
    for group, prediction in predictions:
        for row, failure in prediction.failures.items():
            index = _index(group, row)
            failed[index] = _failure(PREDICT, failure, batch, index, uri)
    scored, refused = append_outputs(batch, predictions, signature, uri, prefix)
    for row, text in refused.items():
        failed[row] = _failure(PREDICT, RowFailure("BadOutput", text), batch, row, uri)
    return scored, [failed[row] for row in sorted(failed)]


def _index(group: Group, row: int) -> int:
    """Returns the row of the batch that a row of a group is."""
    return row if group.rows is None else int(group.rows[row])


def _failure(stage: str, failure: RowFailure, batch: pa.RecordBatch, row: int, uri: str) -> Failure:
    return failure_of(batch, row, stage, failure.type, failure.message, model=uri)


def _record(
    scored: pa.RecordBatch | None, failures: list[Failure], predictions: list[tuple[Group, Prediction]]
) -> None:
    if scored is not None:
        metrics.count(metrics.ROWS_PREDICTED, scored.num_rows)
    count_failures(failures)
    for _, prediction in predictions:
        metrics.record(metrics.QUEUE_MSEC, prediction.queue_msec)
        for call in prediction.calls:
            metrics.record(metrics.BATCH_SIZE, call.rows)
            metrics.record(metrics.PREDICT_LATENCY_MSEC, call.latency_msec)
            metrics.count(metrics.RPC_RETRIES, call.repeats)


def _record_versions(scored: pa.RecordBatch) -> None:
    """Counts rows by the version that answered: a server may send some calls to another one."""
    for each in pc.value_counts(scored.column(VERSION_COLUMN)).to_pylist():
        if each["values"] is not None:
            metrics.count_version(each["values"], each["counts"])
