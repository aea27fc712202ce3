"""The graph of a streaming job: source, predict, sinks. It only wires."""

import apache_beam as beam

from sluice.pipelines.options.table import STREAMING_INSERTS
from sluice.pipelines.plan.streaming import FailureSinks, StreamingPlan, StreamTable
from sluice.transforms.bigquery.table_columns import append_schema
from sluice.transforms.bigquery.write import WriteStreamTable
from sluice.transforms.bigquery.write_failures import WriteFailureTable
from sluice.transforms.bigquery.write_inserts import WriteTable
from sluice.transforms.core.failures import Failure
from sluice.transforms.files.write_stream import WriteFailureFiles, WriteStreamFiles
from sluice.transforms.predict import Predict
from sluice.transforms.pubsub.decode_messages import DecodeMessages
from sluice.transforms.pubsub.read import ReadMessages
from sluice.transforms.pubsub.write import WriteFailureMessages, WriteMessages


def build_streaming(pipeline: beam.Pipeline, plan: StreamingPlan) -> None:
    """Wires messages to sinks. There is no Flatten: on a local runner, all behind the source has to be one stage."""
    read = ReadMessages(plan.native, plan.subscription, plan.topic, plan.id_label, plan.timestamp_attribute)
    decode = DecodeMessages(plan.stream.messages, plan.max_delivery_attempts)
    decoded = pipeline | "Read" >> read | "Decode" >> decode
    scored = decoded.rows | "Predict" >> Predict(plan.recipe, plan.output_prefix)
    failed = {"Decode": decoded.failures, "Predict": scored.failures}
    for label, sink in _sinks(plan).items():
        failed[label] = scored.rows | f"Write{label}" >> sink
    for label, failures in failed.items():
        failures | f"Write{label}Failures" >> WriteStreamFailures(plan.failures)


def _sinks(plan: StreamingPlan) -> dict[str, beam.PTransform]:
    """Returns what writes predictions, by label; each gives the failures of rows that it cannot write."""
    sinks: dict[str, beam.PTransform] = {}
    if plan.stream.topic is not None:
        sinks["Topic"] = WriteMessages(plan.output_topic, plan.stream.topic)
    if plan.output_table is not None:
        sinks["Table"] = _table_sink(plan.output_table)
    if plan.stream.files is not None and plan.output_files is not None:
        sinks["Files"] = WriteStreamFiles(plan.output_files.prefix, plan.output_files.suffix, plan.stream.files)
    return sinks


def _table_sink(table: StreamTable) -> beam.PTransform:
    if table.method == STREAMING_INSERTS:
        return WriteTable(table.table_id, table.schema, endpoint=table.endpoint)
    return WriteStreamTable(table.table_id, append_schema(table.schema, table.fields), endpoint=table.storage_endpoint)


class WriteStreamFailures(beam.PTransform):
    """Writes failures to each place that there is for them."""

    def __init__(self, places: FailureSinks) -> None:
        super().__init__()
        self._places = places

    def expand(self, failures: beam.PCollection[Failure]) -> beam.pvalue.PDone:
        for label, sink in self._writers().items():
            failures | label >> sink
        return beam.pvalue.PDone(failures.pipeline)

    def _writers(self) -> dict[str, beam.PTransform]:
        places, writers = self._places, dict[str, beam.PTransform]()
        if places.topic:
            writers["Topic"] = WriteFailureMessages(places.topic, places.payload_mode)
        if places.table:
            writers["Table"] = WriteFailureTable(places.table, places.payload_mode, endpoint=places.table_endpoint)
        if places.files:
            prefix, suffix = places.files.prefix, places.files.suffix
            writers["Files"] = WriteFailureFiles(prefix, places.payload_mode, suffix)
        return writers
