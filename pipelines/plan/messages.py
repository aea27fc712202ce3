"""Decides how messages are decoded for a model and which columns each sink gets.

Messages cannot be sampled before the job starts. Their columns beyond the model's are known from the schema of Avro,
and for JSON and tf.Examples only from --input_schema. A sink that takes the messages' own text needs no types.
"""

import dataclasses

import pyarrow as pa

from sluice.models.errors import CorruptFile, UsageError
from sluice.models.signature import Signature
from sluice.pipelines.plan.input_columns import InputPlan, Wanted, plan_input
from sluice.pipelines.plan.names import near_name, some_names
from sluice.pipelines.plan.output_columns import added_columns, check_model_columns, table_columns
from sluice.transforms.core.formats import AVRO as AVRO_FILE
from sluice.transforms.core.formats import JSONL, TFRECORD
from sluice.transforms.core.messages import MESSAGE_ID_COLUMN
from sluice.transforms.decode.datum import datum_schema
from sluice.transforms.decode.spec import CsvOptions, InputSpec
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.encode.formats import check_output_spec
from sluice.transforms.files.find_source import Source
from sluice.transforms.pubsub.decode_messages import AVRO, EXAMPLE, JSON, RAW, MessageSpec

# The file format of the same rows, by the format of messages. Messages are written to it as they are.
_SAME_ROWS = {JSON: JSONL, EXAMPLE: TFRECORD}


@dataclasses.dataclass(frozen=True)
class MessageWanted:
    """What the user's flags say about messages and sinks.

    Attributes:
      format: of the messages: "json", "example", "avro" or "raw".
      avro_schema: JSON text of the schema that Avro messages are written with.
      schema: types from --input_schema, by name.
      texts: columns that it says are JSON.
      columns: --columns: names of the input columns to carry into the sinks; None: all.
      exclude: names of input columns to leave out.
      defaults: --column_defaults: values for nulls, by column, as text.
      mapped: --map: (input of the model, column).
      read_paths: --read_paths: (input of the model, column of paths).
      model_columns: write `_model` and `_version` to the topic and to files; tables always have them.
      topic, table: whether the job has such a sink.
      files_format: of the files; "": none are written.
      flatten: CSV: a list or struct becomes JSON text in one field.
    """

    format: str
    avro_schema: str = ""
    schema: dict[str, pa.DataType] = dataclasses.field(default_factory=dict)
    columns: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    defaults: tuple[tuple[str, str], ...] = ()
    output_prefix: str = ""
    model_columns: bool = False
    topic: bool = False
    table: bool = False
    files_format: str = ""
    flatten: bool = False
    mapped: tuple[tuple[str, str], ...] = ()
    texts: tuple[str, ...] = ()
    read_paths: tuple[tuple[str, str], ...] = ()

    def is_raw(self, sink_format: str) -> bool:
        """Whether messages go into a sink as they are: same row format in and out, no choice among columns."""
        return _SAME_ROWS.get(self.format) == sink_format and self.columns is None and not self.exclude

    @property
    def typed_sinks(self) -> list[str]:
        """Names, for an error, of the sinks that need typed columns."""
        topic = ["messages to --output_topic"] if self.topic and not self.is_raw(JSONL) else []
        table = ["rows of --output_table"] if self.table else []
        typed_files = self.files_format and not self.is_raw(self.files_format)
        return [*topic, *table, *([f"{self.files_format} files"] if typed_files else [])]


@dataclasses.dataclass(frozen=True)
class MessagePlan:
    """How messages are decoded, and what each sink holds.

    Attributes:
      topic, table, files: None: no such sink. A table's writer adds columns of its own.
      reads: (input, column of paths) of inputs that get what is in files.
    """

    decode: MessageSpec
    topic: OutputSpec | None
    table: pa.Schema | None
    files: OutputSpec | None
    reads: tuple[tuple[str, str], ...] = ()


def plan_messages(signature: Signature, wanted: MessageWanted) -> MessagePlan:
    """Returns how to decode messages for this signature, and what to write.

    Raises:
      UsageError: model, messages and sinks do not fit; the text names the column and the remedy.
    """
    # Tf.Examples have no wider floats than the model's, unless another sink gets the same columns.
    output = TFRECORD if wanted.typed_sinks == [f"{TFRECORD} files"] else ""
    plan = plan_columns(signature, wanted, not wanted.typed_sinks, output)
    topic = _output(JSONL, plan, signature, wanted) if wanted.topic else None
    files = _output(wanted.files_format, plan, signature, wanted) if wanted.files_format else None
    table = _table(plan, signature, wanted) if wanted.table else None
    spec = _with_added(plan.spec, [sink for sink in (topic, files) if sink and sink.raw and sink.format == JSONL])
    return MessagePlan(MessageSpec(wanted.format, spec, wanted.avro_schema), topic, table, files, plan.reads)


def plan_columns(signature: Signature, wanted: MessageWanted, raw: bool, output: str = "") -> InputPlan:
    """Returns which columns of messages are read for this signature, and how.

    Args:
      raw: all sinks get rows as they are.
      output: see Wanted.

    Raises:
      UsageError: model and messages do not fit.
    """
    source = _source(signature, wanted)
    schema = _known_types(signature, wanted)
    if wanted.format in _SAME_ROWS:
        _check_untyped(signature, wanted, schema)
    columns = Wanted(
        schema,
        wanted.columns,
        wanted.exclude,
        wanted.defaults,
        raw,
        output,
        wanted.mapped,
        wanted.texts,
        wanted.read_paths,
    )
    return plan_input(source, signature, columns, CsvOptions())


def _source(signature: Signature, wanted: MessageWanted) -> Source:
    """Returns the messages in the form of a source of files."""
    if wanted.format == AVRO:
        columns = _avro_columns(wanted)
        types = dict(zip(columns.names, columns.types, strict=True))
        return Source(AVRO_FILE, "(Avro messages)", 0, 0, tuple(columns.names), types)
    if wanted.format == RAW:
        return Source(RAW, "(raw messages)", 0, 0, (_raw_column(signature, wanted),))
    return Source(_SAME_ROWS[wanted.format], f"({wanted.format} messages)", 0, 0, ())


def _avro_columns(wanted: MessageWanted) -> pa.Schema:
    if not wanted.avro_schema:
        raise UsageError("Avro messages do not contain their schema; give it as JSON with --avro_schema FILE")
    try:
        return datum_schema(wanted.avro_schema).columns
    except CorruptFile as error:
        raise UsageError(f"--avro_schema: {error}") from error


def _raw_column(signature: Signature, wanted: MessageWanted) -> str:
    takes = [f"'{spec.name}' ({spec})" for spec in signature.columns]
    if signature.takes_examples:
        raise UsageError(
            f"--input_format raw: signature '{signature.name}' takes serialized tf.Examples; give --input_format "
            "example if that is what the messages are"
        )
    only = signature.columns[0]
    if len(takes) != 1 or only.dtype != "string" or not only.is_scalar:
        raise UsageError(
            "--input_format raw: a message is the value of one string column, but the model takes "
            f"{some_names(takes)}; give --input_format json, avro or example, whose messages name the columns"
        )
    column = dict(wanted.read_paths).get(only.name, only.name)
    for name in wanted.schema:
        if name != column:
            raise UsageError(
                f"--input_schema names '{name}', but raw messages hold only '{column}'"
                f"{near_name(name, [column])}; leave it out of the schema"
            )
    return column


def _known_types(signature: Signature, wanted: MessageWanted) -> dict[str, pa.DataType]:
    """Returns the types of --input_schema, and of the features in --columns that the model reads from tf.Examples.

    A feature is carried only if --columns names it: the model gets whole Examples, so a feature that would be carried
    as text may hold any bytes.
    """
    if wanted.format != EXAMPLE or not signature.takes_examples:
        return wanted.schema
    features = {spec.name: spec.arrow_type for spec in signature.columns if spec.name in (wanted.columns or ())}
    return features | wanted.schema


def _taken(signature: Signature, wanted: MessageWanted) -> list[str]:
    """Returns the columns that the model's inputs take."""
    column_of = {**dict(wanted.mapped), **dict(wanted.read_paths)}
    return [column_of.get(spec.name, spec.name) for spec in signature.columns]


def _check_untyped(signature: Signature, wanted: MessageWanted, schema: dict[str, pa.DataType]) -> None:
    """Checks that the columns for typed sinks have types, for messages that do not declare any."""
    known = {*schema, *_taken(signature, wanted)}
    for name in wanted.columns or ():
        if name not in known:
            raise UsageError(
                f"--columns {name}: its type is not known: each {wanted.format} message has types of its own"
                f"{near_name(name, known)}. Give its type with --input_schema FILE (BigQuery's JSON schema form)"
            )
    for name in wanted.exclude if schema else ():
        if name not in known:
            raise UsageError(
                f"--exclude_columns {name}: neither the model nor --input_schema has such a column"
                f"{near_name(name, known)}"
            )
    if wanted.typed_sinks and wanted.columns is None and not wanted.schema:
        raise UsageError(
            f"{' and '.join(wanted.typed_sinks)} need typed columns, but only the model's columns of {wanted.format} "
            f"messages are known{_why_typed(wanted)}. Give the other types with --input_schema FILE (BigQuery's JSON "
            f"schema form), or choose among the model's columns with --columns: {some_names(sorted(known), 5)}; "
            "--columns= writes none of them"
        )


def _why_typed(wanted: MessageWanted) -> str:
    names = ",".join(wanted.exclude)
    return f" (without --exclude_columns {names} they could be carried as they are)" if wanted.exclude else ""


def _output(format_: str, plan: InputPlan, signature: Signature, wanted: MessageWanted) -> OutputSpec:
    raw = wanted.is_raw(format_)
    columns = [] if raw else [pa.field(name, kind) for name, kind in plan.columns]
    known = {*wanted.schema, *_taken(signature, wanted)}
    present = known if raw else {field.name for field in columns}
    added = added_columns(signature, wanted.output_prefix, wanted.model_columns, present)
    if not raw:
        check_model_columns(present)
    spec = OutputSpec(format_, pa.schema(columns + added), raw, wanted.flatten)
    check_output_spec(spec)
    return spec


def _table(plan: InputPlan, signature: Signature, wanted: MessageWanted) -> pa.Schema:
    columns = table_columns(plan, signature, wanted.output_prefix)
    if MESSAGE_ID_COLUMN in columns.names:
        raise UsageError(
            f"column '{MESSAGE_ID_COLUMN}' cannot be written: the table's column of this name holds the messages' ids. "
            f"Leave it out with --exclude_columns {MESSAGE_ID_COLUMN}"
        )
    return columns.append(pa.field(MESSAGE_ID_COLUMN, pa.string()))


def _with_added(spec: InputSpec, outputs: list[OutputSpec]) -> InputSpec:
    """Returns the spec with the names that must not be in objects that are written as they are.

    It does not ask for payloads: messages have them anyway.
    """
    added = tuple(outputs[0].schema.names) if outputs else ()
    return dataclasses.replace(spec, added=added, payload=False)
