"""The sinks of a streaming job: a topic, a table, files, each for predictions and for failures."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from sluice.pipelines.options.streaming import StreamingOptions
from sluice.pipelines.options.table import STORAGE_WRITE_API
from sluice.pipelines.plan.output_paths import payload_directory
from sluice.transforms.bigquery.asked import BY_FLAGS
from sluice.transforms.bigquery.clients import check_endpoints
from sluice.transforms.bigquery.table import TableOptions, parse_table_id, table_fields
from sluice.transforms.bigquery.table_layout import parse_layout
from sluice.transforms.files.write_stream import check_stream_target
from sluice.transforms.pubsub.resources import check_topic


@dataclasses.dataclass(frozen=True)
class FilesSink:
    """Files called PREFIX-TIME-IDSUFFIX."""

    prefix: str
    suffix: str


@dataclasses.dataclass(frozen=True)
class TableSink:
    """A BigQuery table for predictions.

    Attributes:
      table_id: PROJECT.DATASET.TABLE.
      method: see StreamingOptions.write_method.
      schema: of the rows, without `_predicted_at`.
      fields: of the table, in the form of BigQuery's JSON schemas; before `make_tables`, those of a new table.
      options: how `make_tables` may make or change it.
      endpoint: see transforms.bigquery.clients.open_client.
      storage_endpoint: see transforms.bigquery.clients.write_client.
    """

    table_id: str
    method: str
    schema: pa.Schema
    fields: Sequence[Mapping[str, Any]]
    options: TableOptions
    endpoint: str | None
    storage_endpoint: str | None


@dataclasses.dataclass(frozen=True)
class FailureSinks:
    """Where failures go; "" and None: no such sink.

    Attributes:
      payload_dir: for payloads that are too large for the topic or the table.
    """

    topic: str
    table: str
    table_endpoint: str | None
    files: FilesSink | None
    payload_mode: str
    payload_dir: str


def table_sink(options: StreamingOptions, schema: pa.Schema) -> TableSink:
    """Returns the table of --output_table for rows of this schema.

    Raises:
      UsageError: the flags of the table do not hold.
    """
    parse_table_id(options.output_table)
    if options.write_method == STORAGE_WRITE_API:
        check_endpoints(options.bigquery_endpoint or None, options.bigquery_storage_endpoint or None, BY_FLAGS)
    return TableSink(
        table_id=options.output_table,
        method=options.write_method,
        schema=schema,
        fields=table_fields(schema, BY_FLAGS),
        options=TableOptions(
            parse_layout(options.partition_by, options.cluster_by), options.allow_schema_update, asked=BY_FLAGS
        ),
        endpoint=options.bigquery_endpoint or None,
        storage_endpoint=options.bigquery_storage_endpoint or None,
    )


def failure_sinks(options: StreamingOptions, temp_location: str) -> FailureSinks:
    """Returns the sinks that the options name for failures."""
    return FailureSinks(
        topic=options.failures_topic,
        table=options.failures_table,
        table_endpoint=options.bigquery_endpoint or None,
        files=_failure_files(options.failures),
        payload_mode=options.failure_payload,
        payload_dir=payload_directory(options, (options.failures, options.output), temp_location),
    )


def _failure_files(path: str) -> FilesSink | None:
    if not path:
        return None
    for suffix in (".jsonl.gz", ".jsonl", ".json"):
        if path.endswith(suffix):
            return FilesSink(path.removesuffix(suffix), suffix)
    return FilesSink(f"{path}failures" if path.endswith("/") else path, ".jsonl")


def check_sinks(topics: Sequence[str], files: Sequence[FilesSink | None]) -> None:
    """Checks that topics and files can be written to. Skips those that are not given.

    Raises:
      UsageError: one cannot.
    """
    for topic in filter(None, topics):
        check_topic(topic)
    for sink in filter(None, files):
        check_stream_target(sink.prefix, sink.suffix)
