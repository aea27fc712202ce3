"""Plans a streaming job: checks subscription, model and sinks against each other before it starts."""

import dataclasses

from sluice.models.cache import ModelRecipe
from sluice.models.errors import UsageError
from sluice.models.signature import Signature
from sluice.pipelines.options.streaming import StreamingOptions
from sluice.pipelines.plan.declared import read_input_schema
from sluice.pipelines.plan.defaults import parse_defaults
from sluice.pipelines.plan.messages import MessagePlan, MessageWanted, plan_messages
from sluice.pipelines.plan.model import (
    check_callable,
    find_signature,
    launch_errors,
    make_recipe,
    plan_watched,
    without_account,
)
from sluice.pipelines.plan.output_paths import parse_output
from sluice.pipelines.plan.read_paths import file_inputs
from sluice.pipelines.plan.streaming_sinks import (
    FailureSinks,
    FilesSink,
    TableSink,
    check_sinks,
    failure_sinks,
    table_sink,
)
from sluice.transforms.bigquery.table import ensure_table
from sluice.transforms.bigquery.write_failures import ensure_failure_table
from sluice.transforms.core.beam_files import open_binary
from sluice.transforms.core.file_contents import FileInputs
from sluice.transforms.core.file_paths import PathRules
from sluice.transforms.core.observe import Watched
from sluice.transforms.pubsub.read_worker import WorkerSource


@dataclasses.dataclass(frozen=True)
class StreamingPlan:
    """A streaming job, with every decision taken.

    Attributes:
      native: Beam's own Pub/Sub source is used, as on Dataflow.
      version: of the model, as found at launch.
      messages: how messages are decoded, and what each sink holds.
      file_interval_secs: 0: each bundle makes a file.
      contents: inputs of the model that get what is in files; None: there are none.
      watched: the columns that are looked at for a report; None: there is none.
      worker: how other processes open the subscription; None: it is open in this one, or native.
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
    messages: MessagePlan
    output_topic: str
    output_table: TableSink | None
    output_files: FilesSink | None
    file_interval_secs: float
    failures: FailureSinks
    contents: FileInputs | None = None
    watched: Watched | None = None
    worker: WorkerSource | None = None


def plan_streaming(
    options: StreamingOptions, native: bool, temp_location: str = "", account: str = ""
) -> StreamingPlan:
    """Returns the job that the options ask for. Looks at sinks; makes and reads nothing.

    Args:
      temp_location: see pipelines.plan.output_paths.payload_directory.
      account: see EndpointOptions.google_account.

    Raises:
      UsageError: something does not fit, or cannot be reached.
    """
    with launch_errors():
        return _plan(options, native, temp_location, account)


def _plan(options: StreamingOptions, native: bool, temp_location: str, account: str) -> StreamingPlan:
    check_callable(options.model)
    endpoint = options.endpoint_options(account)
    found, signature, exclude = find_signature(options, (), endpoint)
    defaults = parse_defaults(signature, options.column_defaults)
    destination = parse_output(options.output, options.output_format) if options.output else None
    messages = _plan_messages(options, signature, exclude, destination.format if destination else "")
    poll_secs = options.model_poll_secs if found.on_disk and found.version is not None else 0.0
    spec = dataclasses.replace(found.spec, version=None) if poll_secs else found.spec  # unpinned where it is followed
    contents = file_inputs(messages.reads, options, PathRules())
    recipe = make_recipe(options, spec, signature, defaults, endpoint, poll_secs, contents is not None)
    plan = StreamingPlan(
        native=native,
        subscription=options.input_subscription,
        topic=options.input_topic,
        id_label=options.id_label,
        timestamp_attribute=options.timestamp_attribute,
        max_delivery_attempts=options.max_delivery_attempts,
        recipe=without_account(recipe) if native else recipe,
        version=found.version,
        output_prefix=options.output_prefix,
        messages=messages,
        output_topic=options.output_topic,
        output_table=None if messages.table is None else table_sink(options, messages.table),
        output_files=FilesSink(destination.prefix, destination.suffix) if destination else None,
        file_interval_secs=options.file_interval_secs if native else 0.0,
        failures=failure_sinks(options, temp_location),
        contents=contents,
        watched=plan_watched(options, signature),
    )
    check_sinks((plan.output_topic, plan.failures.topic), (plan.output_files, plan.failures.files))
    return plan


def _plan_messages(
    options: StreamingOptions, signature: Signature, exclude: tuple[str, ...], files_format: str
) -> MessagePlan:
    declared = read_input_schema(options.input_schema)
    wanted = MessageWanted(
        format=options.input_format,
        avro_schema=_read_avro_schema(options.avro_schema),
        schema=declared.types,
        texts=declared.texts,
        columns=options.columns,
        exclude=exclude,
        defaults=options.column_defaults,
        mapped=options.map,
        read_paths=options.read_paths,
        output_prefix=options.output_prefix,
        model_columns=options.add_model_columns,
        topic=bool(options.output_topic),
        table=bool(options.output_table),
        files_format=files_format,
        flatten=options.flatten,
    )
    return plan_messages(signature, wanted)


def _read_avro_schema(path: str) -> str:
    if not path:
        return ""
    try:
        with open_binary(path) as file:
            return str(file.read().decode())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--avro_schema {path} cannot be read: {error}") from error


@launch_errors()
def make_tables(plan: StreamingPlan) -> StreamingPlan:
    """Creates the tables that the job writes to, unless they exist; returns the plan with the fields that they have.

    Raises:
      UsageError: a table cannot be made, or has another schema.
    """
    table = plan.output_table
    if table:
        fields = ensure_table(table.table_id, table.schema, table.endpoint, options=table.options)
        plan = dataclasses.replace(plan, output_table=dataclasses.replace(table, fields=fields))
    if plan.failures.table:
        ensure_failure_table(plan.failures.table, plan.failures.table_endpoint)
    return plan
