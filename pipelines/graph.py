"""The graphs of both jobs: source, predict, sinks. They only wire. Their labels are an interface: golden tests hold
them, because jobs are watched, and streaming jobs updated, by label."""

from typing import Any

import apache_beam as beam

from sluice.pipelines.options.table import STREAMING_INSERTS
from sluice.pipelines.plan.batch_job import BatchPlan
from sluice.pipelines.plan.streaming_job import StreamingPlan
from sluice.pipelines.plan.streaming_sinks import FailureSinks, TableSink
from sluice.transforms.bigquery.table_columns import append_schema
from sluice.transforms.bigquery.write import WriteStreamTable
from sluice.transforms.bigquery.write_failures import WriteFailureTable
from sluice.transforms.bigquery.write_inserts import WriteTable
from sluice.transforms.core.commit import Commit
from sluice.transforms.core.commit_gate import CommitGate
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import Failure, named
from sluice.transforms.core.observe import ObserveInputs, ObserveOutputs, Watched
from sluice.transforms.files.write_stream import WriteFailureFiles, WriteStreamFiles
from sluice.transforms.managed.joined import Joined
from sluice.transforms.predict.transform import Predict
from sluice.transforms.pubsub.decode_messages import DecodeMessages
from sluice.transforms.pubsub.read import ReadMessages
from sluice.transforms.pubsub.write import WriteFailureMessages, WriteMessages


def build_batch(pipeline: beam.Pipeline, plan: BatchPlan, gate: CommitGate | None = None) -> beam.PCollection:
    """Wires a batch job; returns its `Committed`.

    Args:
      gate: once closed, the job does not commit its output.
    """
    read = pipeline | "Read" >> plan.input.reader
    rows = with_inputs_seen(read.rows, plan.watched)
    scored = rows | "Predict" >> Predict(plan.recipe, plan.output_prefix, contents=plan.contents)
    unread = read.failures | "NameModel" >> beam.Map(named, plan.recipe.spec.uri, plan.version)
    return _publish(plan, Joined(scored.rows, scored.failures, unread, read.tally), gate)


def build_join(pipeline: beam.Pipeline, plan: BatchPlan, gate: CommitGate | None = None) -> beam.PCollection:
    """Wires the last part of a managed job, whose input has been scored elsewhere; see `build_batch`."""
    return _publish(plan, pipeline | "Join" >> plan.input.reader, gate)


def _publish(plan: BatchPlan, scored: Joined, gate: CommitGate | None) -> beam.PCollection:
    rows = with_outputs_seen(scored.rows, plan.watched)
    written, refused = rows | plan.output.label >> plan.output.writer
    failures = (scored.earlier, scored.failures, refused)
    failures_written = [
        failures | sink.label >> WriteBatchFailures(sink.writer, sink.earlier) for sink in plan.failures
    ]
    commit = Commit(plan.output.committer, [sink.committer for sink in plan.failures], plan.failure_policy, gate)
    return (written, *failures_written, scored.tally) | "Commit" >> commit


def with_inputs_seen(rows: beam.PCollection, watched: Watched | None) -> beam.PCollection:
    """Returns the rows, which pass by what looks at them for a report, if there is one."""
    return rows if watched is None else rows | "ObserveInputs" >> ObserveInputs(watched)


def with_outputs_seen(rows: beam.PCollection, watched: Watched | None) -> beam.PCollection:
    """Returns the scored rows likewise."""
    return rows if watched is None else rows | "ObserveOutputs" >> ObserveOutputs(watched)


class WriteBatchFailures(Composite):
    """Writes the failures of reading, of predicting and of writing each by itself; returns what they were written to.

    A Flatten before the writer would hold all failures in memory on a local runner; behind it there are few elements.

    Args:
      earlier: what they were written to, of reading, by an earlier job; None: they are written now.
    """

    def __init__(self, writer: beam.PTransform, earlier: tuple[Any, ...] | None = None) -> None:
        super().__init__()
        self._writer, self._earlier = writer, earlier

    def expand(self, failures: tuple[beam.PCollection[Failure], ...]) -> beam.PCollection:
        unread, *others = failures
        stages = zip(("Predict", "Write"), others, strict=True)
        return [
            self._read(unread),
            *(each | stage >> self._writer for stage, each in stages),
        ] | "Parts" >> beam.Flatten()

    def _read(self, failures: beam.PCollection[Failure]) -> beam.PCollection:
        if self._earlier is None:
            return failures | "Read" >> self._writer
        return failures.pipeline | "Read" >> beam.Create(self._earlier)


def build_streaming(pipeline: beam.Pipeline, plan: StreamingPlan) -> None:
    """Wires a streaming job. It has no Flatten: on a local runner, everything after the source has to be one stage."""
    read = ReadMessages(
        plan.native, plan.subscription, plan.topic, plan.id_label, plan.timestamp_attribute, plan.worker
    )
    decode = DecodeMessages(plan.messages.decode, plan.max_delivery_attempts, plan.recipe, plan.version)
    decoded = pipeline | "Read" >> read | "Decode" >> decode
    rows = with_inputs_seen(decoded.rows, plan.watched)
    predict = Predict(plan.recipe, plan.output_prefix, is_endless=True, contents=plan.contents)
    scored = rows | "Predict" >> predict
    predicted = with_outputs_seen(scored.rows, plan.watched)
    failed = {"Decode": decoded.failures, "Predict": scored.failures}
    for label, writer in _writers(plan).items():
        failed[label] = predicted | f"Write{label}" >> writer
    for label, failures in failed.items():
        failures | f"Write{label}Failures" >> WriteStreamFailures(plan.failures, plan.file_interval_secs)


def _writers(plan: StreamingPlan) -> dict[str, beam.PTransform]:
    """Returns the writers of predictions, by label; each returns the failures of rows that it cannot write."""
    writers: dict[str, beam.PTransform] = {}
    if plan.messages.topic is not None:
        writers["Topic"] = WriteMessages(plan.output_topic, plan.messages.topic)
    if plan.output_table is not None:
        writers["Table"] = _table_writer(plan.output_table)
    if plan.messages.files is not None and plan.output_files is not None:
        prefix, suffix = plan.output_files.prefix, plan.output_files.suffix
        interval_secs = plan.file_interval_secs
        writers["Files"] = WriteStreamFiles(prefix, suffix, plan.messages.files, interval_secs=interval_secs)
    return writers


def _table_writer(table: TableSink) -> beam.PTransform:
    if table.method == STREAMING_INSERTS:
        return WriteTable(table.table_id, table.schema, endpoint=table.endpoint)
    return WriteStreamTable(table.table_id, append_schema(table.schema, table.fields), endpoint=table.storage_endpoint)


class WriteStreamFailures(beam.PTransform):
    """Writes failures to every sink for them."""

    def __init__(self, sinks: FailureSinks, file_interval_secs: float = 0.0) -> None:
        super().__init__()
        self._sinks, self._file_interval_secs = sinks, file_interval_secs

    def expand(self, failures: beam.PCollection[Failure]) -> beam.pvalue.PDone:
        for label, writer in self._writers().items():
            failures | label >> writer
        return beam.pvalue.PDone(failures.pipeline)

    def _writers(self) -> dict[str, beam.PTransform]:
        sinks, writers = self._sinks, dict[str, beam.PTransform]()
        if sinks.topic:
            writers["Topic"] = WriteFailureMessages(sinks.topic, sinks.payload_mode, payload_dir=sinks.payload_dir)
        if sinks.table:
            writers["Table"] = WriteFailureTable(
                sinks.table, sinks.payload_mode, endpoint=sinks.table_endpoint, payload_dir=sinks.payload_dir
            )
        if sinks.files:
            files, interval_secs = sinks.files, self._file_interval_secs
            writers["Files"] = WriteFailureFiles(
                files.prefix, sinks.payload_mode, files.suffix, interval_secs=interval_secs
            )
        return writers
