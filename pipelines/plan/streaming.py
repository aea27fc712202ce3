"""Checks subscription, model and sinks of a streaming job against each other, and decides all that it needs to know."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from sluice.models.cache import ModelRecipe
from sluice.models.errors import UsageError
from sluice.pipelines.options.streaming import StreamingOptions
from sluice.pipelines.options.table import STORAGE_WRITE_API
from sluice.pipelines.plan.model import find_signature, launch_errors, make_recipe, parse_defaults, read_input_schema
from sluice.pipelines.plan.output import parse_output
from sluice.pipelines.plan.stream import StreamPlan, StreamWanted, plan_stream
from sluice.transforms.bigquery.table import TableOptions, ensure_table, parse_table_id, table_fields
from sluice.transforms.bigquery.table_layout import parse_layout
from sluice.transforms.bigquery.write_failures import ensure_failure_table
from sluice.transforms.core.beam_files import open_binary
from sluice.transforms.files.write_stream import check_stream_target


@dataclasses.dataclass(frozen=True)
class FilePlace:
    """Where files go: PREFIX-TIME-IDSUFFIX."""

    prefix: str
    suffix: str


@dataclasses.dataclass(frozen=True)
class StreamTable:
    """A BigQuery table for predictions.

    Attributes:
      table_id: PROJECT.DATASET.TABLE.
      method: see StreamingOptions.write_method.
      schema: of the rows, without `_predicted_at`.
      fields: of the table, in the form of BigQuery's JSON schemas; until `make_tables`, of one that is made for them.
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
    """Where failures go; "" and None: not there."""

    topic: str
    table: str
    table_endpoint: str | None
    files: FilePlace | None
    payload_mode: str


@dataclasses.dataclass(frozen=True)
class StreamingPlan:
    """A streaming job, decided.

    Attributes:
      native: the runner is not this process: Beam's own Pub/Sub source is used.
      version: of the model, as it was found.
      stream: how messages are decoded, and what each sink holds.
    """

    native: bool
    subscription: str
    topic: str
    id_label: str
    timestamp_attribute: str
    max_delivery_attempts: int
    recipe: ModelRecipe
    version: int | None
    output_prefix: str
    stream: StreamPlan
    output_topic: str
    output_table: StreamTable | None
    output_files: FilePlace | None
    failures: FailureSinks


def plan_streaming(options: StreamingOptions, native: bool) -> StreamingPlan:
    """Returns the job that the options ask for. Sinks are looked at; nothing is made or read.

    Raises:
      UsageError: something does not fit, or cannot be reached.
    """
    with launch_errors():
        return _plan(options, native)


def _plan(options: StreamingOptions, native: bool) -> StreamingPlan:
    endpoint = options.endpoint_options()
    found, signature, exclude = find_signature(options, (), endpoint)
    defaults = parse_defaults(signature, options.column_defaults)
    destination = parse_output(options.output, options.output_format) if options.output else None
    wanted = StreamWanted(
        format=options.input_format,
        avro_schema=_read_text("avro_schema", options.avro_schema),
        schema=read_input_schema(options.input_schema),
        carry=options.columns,
        exclude=exclude,
        defaults=options.column_defaults,
        output_prefix=options.output_prefix,
        model_columns=options.add_model_columns,
        topic=bool(options.output_topic),
        table=bool(options.output_table),
        files_format=destination.format if destination else "",
        flatten=options.flatten,
    )
    stream = plan_stream(signature, wanted)
    poll_secs = options.model_poll_secs if found.on_disk and found.version is not None else 0.0
    spec = dataclasses.replace(found.spec, version=None) if poll_secs else found.spec  # unpinned where it is followed
    recipe = make_recipe(options, spec, signature, defaults, endpoint, poll_secs)
    plan = StreamingPlan(
        native=native,
        subscription=options.input_subscription,
        topic=options.input_topic,
        id_label=options.id_label,
        timestamp_attribute=options.timestamp_attribute,
        max_delivery_attempts=options.max_delivery_attempts,
        recipe=recipe,
        version=found.version,
        output_prefix=options.output_prefix,
        stream=stream,
        output_topic=options.output_topic,
        output_table=_stream_table(options, stream.table),
        output_files=FilePlace(destination.prefix, destination.suffix) if destination else None,
        failures=FailureSinks(
            topic=options.failures_topic,
            table=options.failures_table,
            table_endpoint=options.bigquery_endpoint or None,
            files=_failure_files(options.failures),
            payload_mode=options.failure_payload,
        ),
    )
    _check_sinks(plan)
    return plan


def _read_text(name: str, path: str) -> str:
    if not path:
        return ""
    try:
        with open_binary(path) as file:
            return str(file.read().decode())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--{name} {path} cannot be read: {error}") from error


def _stream_table(options: StreamingOptions, schema: pa.Schema | None) -> StreamTable | None:
    if schema is None:
        return None
    parse_table_id(options.output_table)
    if options.write_method == STORAGE_WRITE_API:
        from sluice.transforms.bigquery.clients import check_endpoints

        check_endpoints(options.bigquery_endpoint or None, options.bigquery_storage_endpoint or None)
    return StreamTable(
        table_id=options.output_table,
        method=options.write_method,
        schema=schema,
        fields=table_fields(schema),
        options=TableOptions(parse_layout(options.partition_by, options.cluster_by), options.allow_schema_update),
        endpoint=options.bigquery_endpoint or None,
        storage_endpoint=options.bigquery_storage_endpoint or None,
    )


def _failure_files(path: str) -> FilePlace | None:
    if not path:
        return None
    for suffix in (".jsonl.gz", ".jsonl", ".json"):
        if path.endswith(suffix):
            return FilePlace(path.removesuffix(suffix), suffix)
    return FilePlace(f"{path}failures" if path.endswith("/") else path, ".jsonl")


def _check_sinks(plan: StreamingPlan) -> None:
    if plan.output_topic or plan.failures.topic:
        from sluice.transforms.pubsub.resources import check_topic

        for topic in filter(None, (plan.output_topic, plan.failures.topic)):
            check_topic(topic)
    for place in filter(None, (plan.output_files, plan.failures.files)):
        check_stream_target(place.prefix, place.suffix)


@launch_errors()
def make_tables(plan: StreamingPlan) -> StreamingPlan:
    """Makes the tables that the job writes to, unless they exist; returns the plan with the fields that they have.

    Raises:
      UsageError: a table cannot be made, or is of another schema.
    """
    table = plan.output_table
    if table:
        fields = ensure_table(table.table_id, table.schema, table.endpoint, options=table.options)
        plan = dataclasses.replace(plan, output_table=dataclasses.replace(table, fields=fields))
    if plan.failures.table:
        ensure_failure_table(plan.failures.table, plan.failures.table_endpoint)
    return plan
