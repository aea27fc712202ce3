"""Scores RecordBatches with a model, as a DoFn."""

import collections
import concurrent.futures
import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import apache_beam as beam
import pyarrow as pa
from apache_beam.transforms.window import BoundedWindow
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from sluice.models.batching.scheduler import Scheduler
from sluice.models.batching.tickets import Prediction, Ticket
from sluice.models.cache import ModelRecipe, shared_scheduler
from sluice.models.errors import ModelLost, NonePassed, TooManyFailures
from sluice.models.files import ModelFiles
from sluice.models.saved_model.followed import is_followed, take_changes
from sluice.models.signature import Signature
from sluice.models.tensors.binding import Group
from sluice.transforms.core import metrics
from sluice.transforms.core.batches import failure_of, origin_of, without_fed
from sluice.transforms.core.failures import FAILURES, FailedOutput, Failure, count_failures, named
from sluice.transforms.core.file_contents import FileInputs, Loaded, load_files
from sluice.transforms.core.outputs import VERSION_COLUMN, row_in_batch, score_rows, taken_names
from sluice.transforms.core.rows import name_taken
from sluice.transforms.core.worker import replace_worker

# The DoFn yields these, each in a WindowedValue.
_Output: TypeAlias = pa.RecordBatch | FailedOutput

# A bundle submits this many full batches beyond those that may be in flight, before it waits for its oldest rows: the
# model always finds a full batch waiting while the bundle reads and writes.
_BATCHES_AHEAD = 3
# A waiting bundle reports at this interval how long the model has been unavailable.
_REPORT_SECS = 1.0


@dataclasses.dataclass
class Work:
    """A batch that has been submitted to the scheduler."""

    batch: pa.RecordBatch
    errors: dict[int, str]
    tickets: list[tuple[Group, Ticket]]
    windows: tuple[BoundedWindow, ...]
    timestamp: Timestamp

    @property
    def done(self) -> bool:
        return all(ticket.future.done() for _, ticket in self.tickets)

    @property
    def nbytes(self) -> int:
        """The bytes that are kept until the answer is there."""
        return self.batch.nbytes

    def wait(self, secs: float) -> bool:
        """Waits for up to `secs`; returns whether the work is done."""
        return not concurrent.futures.wait([ticket.future for _, ticket in self.tickets], secs).not_done


class PredictBatches(beam.DoFn):
    """Counts: rows_predicted, rows_failed, rpc_retries, model_swaps, model_versions_rejected,
    cumulativeThrottlingSeconds; rows_predicted/VERSION of a model whose version may change; batch_size,
    predict_latency_msec, queue_msec, model_load_msec. Sets, every few seconds: calls_in_flight, calls_in_flight_limit,
    pending_bytes, model_version."""

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
        self._work: collections.deque[Work] = collections.deque()
        self._rows = self._bytes = 0  # in work
        self._throttled_secs = 0.0  # not yet reported: less than a second
        self._throttled_before = 0.0
        self._gauged = -math.inf

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
        self._check_names(batch)
        for rows, failures in load_files(batch, self._contents) if self._contents else (Loaded(batch, []),):
            count_failures(failures)
            for failure in failures:
                met = named(failure, self._scheduler.model.uri, self._scheduler.version)
                yield beam.pvalue.TaggedOutput(FAILURES, WindowedValue(met, timestamp, (window,)))
            if rows is not None:
                errors, tickets = self._submit(rows)
                yield from self._add(Work(without_fed(rows), errors, tickets, (window,), timestamp))
        self._report_throttling()
        self._report_present()

    def _check_names(self, batch: pa.RecordBatch) -> None:
        """Checks that no column would be there twice: one name of two columns finds neither.

        Raises:
          UsageError: one would, as in a batch that another Predict has scored.
        """
        if taken := taken_names(batch.schema.names, self._scheduler.model.signature, self._prefix):
            raise name_taken(taken)

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

    def _submit(self, batch: pa.RecordBatch) -> tuple[dict[int, str], list[tuple[Group, Ticket]]]:
        """Submits the rows of a batch; returns those that do not fit, with the reason, and the others' requests."""
        bound = self._scheduler.model.bind(batch)
        return bound.errors, [  # the scheduler has the tensors, and no one else needs them
            (dataclasses.replace(group, feeds={}), self._scheduler.submit(group.feeds, self._report_throttling))
            for group in bound.groups
        ]

    def _add(self, work: Work) -> Iterator[_Output]:
        """Adds a batch to those in work; yields what has finished, and waits for it if too much is in work."""
        self._work.append(work)
        self._rows, self._bytes = self._rows + work.batch.num_rows, self._bytes + work.nbytes
        while self._work and (self._work[0].done or self._rows > self._max_rows or self._bytes > self._max_bytes):
            yield from self._emit()
        self._report_throttling()

    def _emit(self) -> Iterator[_Output]:
        """Waits for the oldest batch; yields its rows and failures."""
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
        self._rows, self._bytes = self._rows - work.batch.num_rows, self._bytes - work.nbytes
        yield from self._outputs(work, predictions)

    def _outputs(self, work: Work, predictions: list[tuple[Group, Prediction]]) -> Iterator[_Output]:
        """Yields the rows and failures of a batch with its window and timestamp."""
        model = self._scheduler.model
        scored, failures = score(
            work.batch, work.errors, predictions, model.signature, model.uri, self._prefix, self._scheduler.version
        )
        self._record(scored, failures, predictions)
        if scored is not None:
            yield WindowedValue(scored, work.timestamp, work.windows)
        for failure in failures:
            yield beam.pvalue.TaggedOutput(FAILURES, WindowedValue(failure, work.timestamp, work.windows))

    def _record(
        self,
        scored: pa.RecordBatch | None,
        failures: list[Failure],
        predictions: list[tuple[Group, Prediction]],
    ) -> None:
        """Counts the rows of a batch, and the calls for them."""
        if scored is not None:
            metrics.count(metrics.ROWS_PREDICTED, scored.num_rows)
            if self._scheduler.model.remote or is_followed(self._scheduler.model):
                _record_versions(scored, predictions)
        count_failures(failures)
        for _, prediction in predictions:
            metrics.record(metrics.QUEUE_MSEC, prediction.queue_msec)
            for call in prediction.calls:
                metrics.record(metrics.BATCH_SIZE, call.rows)
                metrics.record(metrics.PREDICT_LATENCY_MSEC, call.latency_msec)
                metrics.count(metrics.RPC_RETRIES, call.repeats)

    def _check_proven(self, batch: pa.RecordBatch, predictions: Sequence[tuple[Group, Prediction]]) -> None:
        """Checks that failures are those of rows.

        Raises:
          NonePassed: no row has passed, so they may be the model's.
          TooManyFailures: so many that waiting is of no use.
        """
        failed = [
            (row_in_batch(group, row), failure.message)
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

    def _report_present(self) -> None:
        """Sets the gauges, now and then."""
        if time.monotonic() - self._gauged < metrics.GAUGE_SECS:
            return
        self._gauged = time.monotonic()
        scheduler = self._scheduler
        metrics.gauge(metrics.CALLS_IN_FLIGHT, scheduler.in_flight)
        metrics.gauge(metrics.CALLS_IN_FLIGHT_LIMIT, scheduler.in_flight_limit)
        metrics.gauge(metrics.PENDING_BYTES, scheduler.pending_bytes)
        if scheduler.version is not None:
            metrics.gauge(metrics.MODEL_VERSION, scheduler.version)

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
    version: int | None = None,
) -> tuple[pa.RecordBatch | None, list[Failure]]:
    """Returns the predicted rows of a batch with the outputs appended, and the failures, both in order.

    Args:
      errors, version: see transforms.core.outputs.score_rows.
    """
    scored, failed = score_rows(batch, errors, predictions, signature, uri, prefix, version)
    return scored, [
        failure_of(batch, each.row, each.stage, each.error_type, each.error_message, uri, each.version)
        for each in failed
    ]


def _record_versions(scored: pa.RecordBatch, predictions: Sequence[tuple[Group, Prediction]]) -> None:
    """Counts rows by the version that answered: a server may send some calls to another one."""
    counts: collections.Counter[int | None] = collections.Counter()
    for _, prediction in predictions:
        for rows, version in prediction.versions:
            counts[version] += rows
    if counts.total() != scored.num_rows:  # some rows were refused for what was answered
        counts = collections.Counter(scored.column(VERSION_COLUMN).to_pylist())
    for version, rows in counts.items():
        if version is not None:
            metrics.count_version(version, rows)
