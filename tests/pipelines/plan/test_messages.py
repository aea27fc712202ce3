import base64
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest

from sluice.models import zoo
from sluice.models.errors import UsageError
from sluice.models.interface import EndpointOptions
from sluice.models.signature import ColumnSpec, Signature
from sluice.models.signatures import find_model
from sluice.models.tensors.binding import Bound, bind
from sluice.models.tensors.tfrecord import read_records
from sluice.models.uri import parse_model_uri
from sluice.pipelines.plan.messages import MessagePlan, MessageWanted, plan_messages
from sluice.transforms.core.beam_files import BeamFiles
from sluice.transforms.core.formats import AVRO, JSONL, TFRECORD
from sluice.transforms.decode.spec import InputSpec
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.pubsub.decode_messages import MessageSpec, decode_messages
from tests.pipelines.plan.test_input_columns import FEATURES, MODEL, UNKNOWN_FEATURES, signature
from tests.support.formats.decode_cases import example
from tests.support.saved_models.cases import CASES, ModelCase
from tests.support.saved_models.zoo import ZooSample
from tests.transforms.pubsub.test_decode_messages import batch_of

TEXT = signature(text="string")
TAKEN = (("age", pa.int64()), ("height", pa.float32()), ("name", pa.string()))
SCORE = pa.field("score", pa.float32())
MODEL_COLUMNS = [pa.field("_model", pa.string()), pa.field("_version", pa.int64())]
TABLE_COLUMNS = [*MODEL_COLUMNS, pa.field("_message_id", pa.string())]


def avro(**types: Any) -> str:
    fields = [{"name": name, "type": kind} for name, kind in types.items()]
    return json.dumps({"type": "record", "name": "row", "fields": fields})


ROW = avro(zip="string", age="int", height=["null", "double"], name="string")


def plan(format_: str, model: Signature = MODEL, **wanted: Any) -> MessagePlan:
    planned = plan_messages(model, MessageWanted(format_, **wanted))
    assert pickle.loads(pickle.dumps(planned)) == planned
    assert not planned.decode.spec.payload
    return planned


def output(format_: str, *fields: pa.Field, raw: bool = False) -> OutputSpec:
    return OutputSpec(format_, pa.schema(list(fields)), raw)


def test_json_to_a_topic_reads_what_the_model_takes_and_carries_the_text() -> None:
    planned = plan("json", topic=True, schema={"zip": pa.string()})
    added = InputSpec(JSONL, TAKEN, payload=False, added=("score",))
    assert planned.decode == MessageSpec("json", added)
    assert (planned.topic, planned.table, planned.files) == (output(JSONL, SCORE, raw=True), None, None)
    named = plan("json", topic=True, model_columns=True, output_prefix="p_")
    assert named.decode.spec.added == ("p_score", "_model", "_version")


def test_json_to_a_table_types_what_it_carries() -> None:
    planned = plan("json", topic=True, table=True, files_format="parquet", schema={"zip": pa.string()})
    columns = (TAKEN[0], ("height", pa.float64()), TAKEN[2], ("zip", pa.string()))
    assert planned.decode.spec == InputSpec(JSONL, columns, payload=False, added=("score",), exact=("height",))
    assert planned.topic == output(JSONL, SCORE, raw=True)
    assert planned.table == pa.schema([*columns, SCORE, *TABLE_COLUMNS])
    assert planned.files == output("parquet", *map(pa.field, *zip(*columns, strict=True)), SCORE)


def test_the_schema_types_columns_of_the_model_too() -> None:
    planned = plan("json", table=True, schema={"age": pa.int32(), "zip": pa.string()}, exclude=("name",))
    assert planned.decode.spec.columns == (
        ("age", pa.int32()),
        ("height", pa.float64()),
        ("zip", pa.string()),
        ("name", pa.string()),
    )
    assert planned.table is not None
    assert planned.table.names == ["age", "height", "zip", "score", "_model", "_version", "_message_id"]


def test_a_choice_of_columns() -> None:
    planned = plan("json", topic=True, table=True, files_format="jsonl", columns=("age",))
    assert planned.decode.spec == InputSpec(JSONL, TAKEN, payload=False)
    assert planned.topic == planned.files == output(JSONL, pa.field("age", pa.int64()), SCORE)
    assert planned.table == pa.schema([pa.field("age", pa.int64()), SCORE, *TABLE_COLUMNS])
    nothing = plan("json", topic=True, table=True, columns=())
    assert (nothing.topic, nothing.table) == (output(JSONL, SCORE), pa.schema([SCORE, *TABLE_COLUMNS]))
    declared = plan("json", topic=True, columns=("zip",), schema={"zip": pa.int64(), "rest": pa.string()})
    assert declared.topic == output(JSONL, pa.field("zip", pa.int64()), SCORE)


def test_files_hold_messages_as_they_are_where_the_rows_are_the_same() -> None:
    assert plan("json", files_format="jsonl").files == output(JSONL, SCORE, raw=True)
    examples = plan("example", FEATURES, files_format="tfrecord")
    assert examples.files == output(TFRECORD, SCORE, raw=True)
    assert examples.decode.spec == InputSpec(TFRECORD, (("examples", pa.binary()),), examples="examples", payload=False)
    csv = plan("json", files_format="csv", flatten=True, columns=("age",)).files
    assert csv == OutputSpec("csv", pa.schema([pa.field("age", pa.int64()), SCORE]), flatten=True)


def test_tf_examples() -> None:
    columns = plan("example", topic=True, columns=("age",))
    assert columns.decode.spec == InputSpec(TFRECORD, TAKEN, payload=False)
    assert columns.topic == output(JSONL, pa.field("age", pa.int64()), SCORE)
    whole = plan("example", FEATURES, topic=True, columns=())
    assert (whole.decode.spec.columns, whole.decode.spec.examples) == ((("examples", pa.binary()),), "examples")
    assert whole.topic == output(JSONL, SCORE)
    kept = plan("example", FEATURES, topic=True, columns=("age", "zip"), schema={"zip": pa.string()})
    assert kept.decode.spec.columns == (("age", pa.int64()), ("zip", pa.string()), ("examples", pa.binary()))
    assert kept.topic is not None
    assert kept.topic.schema.names == ["age", "zip", "score"]
    unknown = plan("example", UNKNOWN_FEATURES, table=True, schema={"zip": pa.string()})
    assert unknown.decode.spec.columns == (("zip", pa.string()), ("examples", pa.binary()))


def test_json_for_a_model_that_parses_tf_examples() -> None:
    assert plan("json", FEATURES, topic=True).decode.spec.columns == (("age", pa.int64()), ("name", pa.string()))
    unknown = plan("json", UNKNOWN_FEATURES, topic=True, schema={"age": pa.int64()})
    assert unknown.decode.spec.columns == (("age", pa.int64()),)
    assert unknown.topic == output(JSONL, SCORE, raw=True)


def test_avro_has_its_own_types() -> None:
    planned = plan("avro", avro_schema=ROW, topic=True, table=True, exclude=("name",))
    columns = (("zip", pa.string()), ("age", pa.int32()), ("height", pa.float64()), ("name", pa.string()))
    assert planned.decode == MessageSpec("avro", InputSpec(AVRO, columns, payload=False, exact=("height",)), ROW)
    carried = list(map(pa.field, *zip(*columns[:3], strict=True)))
    assert planned.topic == output(JSONL, *carried, SCORE)
    assert planned.table == pa.schema([*carried, SCORE, *TABLE_COLUMNS])
    examples = plan("avro", FEATURES, avro_schema=avro(examples="bytes", id="long"), topic=True, columns=("id",))
    assert examples.decode.spec.columns == (("examples", pa.binary()), ("id", pa.int64()))


def test_raw_messages_are_the_one_string() -> None:
    planned = plan("raw", TEXT, topic=True, table=True)
    assert planned.decode == MessageSpec("raw", InputSpec("raw", (("text", pa.string()),), payload=False))
    assert planned.topic == output(JSONL, pa.field("text", pa.string()), SCORE)
    assert plan("raw", TEXT, schema={"text": pa.binary()}).decode.spec.columns == (("text", pa.binary()),)
    assert plan("raw", signature(image_bytes="string")).decode.spec.columns == (("image_bytes", pa.binary()),)
    assert plan("raw", TEXT, topic=True, columns=()).topic == output(JSONL, SCORE)


def not_known(format_: str) -> str:
    return (
        f"need typed columns, but only the model's columns of {format_} messages are known. Give the other types with "
        "--input_schema FILE (BigQuery's JSON schema form), or choose among the model's columns with --columns: age, "
        "height, name; --columns= writes none of them"
    )


ERRORS: list[tuple[str, str, Signature, dict[str, Any], str]] = [
    ("a table", "json", MODEL, {"table": True, "topic": True}, f"rows of --output_table {not_known('json')}"),
    ("files", "json", MODEL, {"files_format": "parquet"}, f"parquet files {not_known('json')}"),
    (
        "both",
        "json",
        MODEL,
        {"table": True, "files_format": "csv"},
        f"rows of --output_table and csv files {not_known('json')}",
    ),
    ("examples", "example", MODEL, {"topic": True}, f"messages to --output_topic {not_known('example')}"),
    (
        "what is left out",
        "json",
        MODEL,
        {"topic": True, "exclude": ("zip", "name")},
        "messages to --output_topic need typed columns, but only the model's columns of json messages are known "
        "(without --exclude_columns zip,name they could be carried as they are). Give the other types with "
        "--input_schema FILE",
    ),
    (
        "a column without a type",
        "json",
        MODEL,
        {"topic": True, "columns": ("age", "nam")},
        "--columns nam: its type is not known: each json message has types of its own (did you mean 'name'?). Give its "
        "type with --input_schema FILE (BigQuery's JSON schema form)",
    ),
    (
        "a column that is not there to be left out",
        "json",
        MODEL,
        {"topic": True, "exclude": ("nam",), "schema": {"zip": pa.string()}},
        "--exclude_columns nam: neither the model nor --input_schema has such a column (did you mean 'name'?)",
    ),
    (
        "another type",
        "json",
        MODEL,
        {"topic": True, "schema": {"age": pa.string()}},
        "column 'age': the model takes int64, and --input_schema says string. Convert the column",
    ),
    (
        "a default of nothing",
        "json",
        MODEL,
        {"topic": True, "defaults": (("agee", "1"),)},
        "--column_defaults agee: the model takes no such column (did you mean 'age'?)",
    ),
    (
        "features that are not known",
        "json",
        UNKNOWN_FEATURES,
        {"topic": True},
        "takes serialized tf.Examples, and the features that it reads are not known",
    ),
    (
        "a column named like an output",
        "json",
        MODEL,
        {"topic": True, "schema": {"score": pa.float64()}},
        "input columns have the names of the model's outputs (score): give --output_prefix TEXT to rename the outputs",
    ),
    (
        "a column of a table named like that of the ids",
        "avro",
        MODEL,
        {"table": True, "avro_schema": avro(age="int", height="float", name="string", _message_id="string")},
        "column '_message_id' cannot be written: the table's column of this name holds the messages' ids",
    ),
    (
        "a column of a table named like an output",
        "avro",
        MODEL,
        {"table": True, "avro_schema": avro(age="int", height="float", name="string", _version="int")},
        "input columns have the names of columns that Sluice adds (_version): give --exclude_columns",
    ),
    (
        "a column named like one that scored rows have",
        "avro",
        MODEL,
        {"topic": True, "avro_schema": avro(age="int", height="float", name="string", _model="string")},
        "input columns have the names of columns that Sluice adds (_model): give --exclude_columns",
    ),
    (
        "names that BigQuery takes for one",
        "avro",
        MODEL,
        {"table": True, "avro_schema": avro(age="int", height="float", name="string", Name="string")},
        "columns 'name' and 'Name' have the same name for BigQuery, which ignores case; rename one",
    ),
    (
        "a type that a table cannot hold",
        "json",
        signature(x="float32[?,?]"),
        {"table": True, "columns": ("x",)},
        "column 'x' is list<item: list<item: double>>; BigQuery has no lists of lists",
    ),
    (
        "a type that a file cannot hold",
        "json",
        signature(x="float32[3]"),
        {"files_format": "csv", "columns": ("x",)},
        "column 'x' is list<item: double>, which csv cannot hold; write it as JSON text with --flatten",
    ),
    (
        "no avro schema",
        "avro",
        MODEL,
        {},
        "Avro messages do not contain their schema; give it as JSON with --avro_schema FILE",
    ),
    ("a bad avro schema", "avro", MODEL, {"avro_schema": "{"}, "--avro_schema: not an Avro schema: JSONDecodeError: "),
    (
        "an avro schema without columns",
        "avro",
        MODEL,
        {"avro_schema": '"long"'},
        "--avro_schema: the Avro schema is not a record, so it has no columns",
    ),
    (
        "a column that is not in the avro schema",
        "avro",
        MODEL,
        {"avro_schema": avro(Age="int", height="float", name="string")},
        "the model takes 'age', which the input (Avro messages) has under other names: give --map age=Age",
    ),
    (
        "another type in the avro schema",
        "avro",
        MODEL,
        {"avro_schema": avro(age="string", height="float", name="string")},
        "column 'age': the model takes int64, and the input (Avro messages) has string.",
    ),
    (
        "a column that is not in the avro schema to be carried",
        "avro",
        MODEL,
        {"avro_schema": ROW, "columns": ("zap",)},
        "--columns zap: the input has no such column (did you mean 'zip'?)",
    ),
    (
        "raw of several columns",
        "raw",
        MODEL,
        {"topic": True},
        "--input_format raw: a message is the value of one string column, but the model takes 'age' (int64), 'height' "
        "(float32), 'name' (string); give --input_format json, avro or example, whose messages name the columns",
    ),
    ("raw of a number", "raw", signature(x="float32"), {}, "but the model takes 'x' (float32); give --input_format"),
    ("raw of a list", "raw", signature(x="string[?]"), {}, "but the model takes 'x' (string[?]); give --input_format"),
    (
        "raw tf.Examples",
        "raw",
        FEATURES,
        {},
        "--input_format raw: signature 'serving_default' takes serialized tf.Examples; give --input_format example",
    ),
    (
        "raw with other columns",
        "raw",
        TEXT,
        {"schema": {"texts": pa.string()}},
        "--input_schema names 'texts', but raw messages hold only 'text' (did you mean 'text'?)",
    ),
    (
        "raw of another type",
        "raw",
        TEXT,
        {"schema": {"text": pa.int64()}},
        "the model takes string, and --input_schema",
    ),
    ("raw to carry", "raw", TEXT, {"columns": ("id",)}, "--columns id: the input has no such column"),
]


@pytest.mark.parametrize(
    ("format_", "model", "wanted", "text"), [case[1:] for case in ERRORS], ids=[case[0] for case in ERRORS]
)
def test_what_does_not_fit(format_: str, model: Signature, wanted: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_messages(model, MessageWanted(format_, **wanted))
    assert text in str(caught.value)


IMAGE = signature(image="string")
READ = {"read_paths": (("image", "uri"),)}


def test_inputs_take_columns_of_other_names() -> None:
    planned = plan("json", topic=True, mapped=(("age", "Age"),))
    (batch,) = decode_messages(batch_of([b'{"Age": 7, "height": 1.5, "name": "a"}']), planned.decode).batches
    bound = bind(batch, MODEL)
    assert bound.errors == {}
    assert bound.groups[0].feeds["age"].tolist() == [7]


def test_messages_may_name_files() -> None:
    planned = plan("json", IMAGE, topic=True, table=True, schema={"uri": pa.string(), "id": pa.int64()}, **READ)
    assert planned.reads == (("image", "uri"),)
    assert dict(planned.decode.spec.columns) == {"uri": pa.string(), "id": pa.int64()}
    assert planned.table is not None
    assert planned.table.names == ["uri", "id", "score", *(field.name for field in TABLE_COLUMNS)]
    raw = plan("raw", IMAGE, topic=True, **READ)
    assert (raw.reads, raw.decode.spec.columns) == ((("image", "uri"),), (("uri", pa.string()),))
    assert raw.topic == output(JSONL, pa.field("uri", pa.string()), SCORE)
    typed = plan("avro", IMAGE, topic=True, avro_schema=avro(uri="string"), **READ)
    assert typed.decode.spec.columns == (("uri", pa.string()),)


@pytest.mark.parametrize(
    ("format_", "model", "wanted", "text"),
    [
        ("avro", IMAGE, {"avro_schema": avro(uri="int")}, "paths are text, and column 'uri' is int"),
        ("json", signature(image="int64"), {}, "the model takes int64, which the bytes of a file are not"),
        ("example", FEATURES, {"columns": ()}, "--read_paths image=uri: the model gets the tf.Examples as they are"),
    ],
)
def test_messages_that_name_no_files(format_: str, model: Signature, wanted: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan(format_, model, topic=True, **wanted, **READ)
    assert text in str(caught.value)


def signature_of(path: str, name: str = "serving_default") -> Signature:
    return find_model(parse_model_uri(path), BeamFiles(), EndpointOptions(), 10).signatures[name]


def assert_same_feeds(found: Bound, wanted: Bound) -> None:
    assert (found.errors, wanted.errors) == ({}, {})
    assert len(found.groups) == len(wanted.groups) == 1
    for name, array in wanted.groups[0].feeds.items():
        np.testing.assert_array_equal(found.groups[0].feeds[name], array)


@pytest.mark.parametrize("format_", ["json", "example", "avro"])
@pytest.mark.parametrize("name", zoo.NAMES)
def test_messages_give_the_zoo_what_files_do(name: str, format_: str, zoo_samples: dict[str, ZooSample]) -> None:
    sample = zoo_samples[name]
    model = signature_of(sample.model)
    payloads, avro_schema = payloads_of(sample, format_)
    columns = () if format_ == "example" else None
    planned = plan(format_, model, topic=True, avro_schema=avro_schema, columns=columns)
    decoded = decode_messages(batch_of(payloads), planned.decode)
    assert decoded.failures == []
    (batch,) = decoded.batches
    assert_same_feeds(bind(batch, model), bind(sample.batch(), model))


def payloads_of(sample: ZooSample, format_: str) -> tuple[list[bytes], str]:
    """The rows of a sample as messages, and the schema of Avro ones."""
    if format_ == "json":
        return Path(sample.path("jsonl")).read_bytes().splitlines(), ""
    if format_ == "example":
        with open(sample.path("tfrecord"), "rb") as file:
            return [record for _, record in read_records(file)], ""
    with open(sample.path("avro"), "rb") as file:
        reader = fastavro.reader(file)
        schema = reader.writer_schema
        return [datum(schema, row) for row in reader], json.dumps(schema)


def datum(schema: Any, row: Any) -> bytes:
    file = io.BytesIO()
    fastavro.schemaless_writer(file, schema, row)
    return file.getvalue()


# Outputs that cannot be a column.
_LEFT_OUT = {"scalar_output": "threshold", "ragged_output": "letters"}
# Columns with bytes that are no text.
_BYTES = {"tf2_function": {"country": pa.binary()}}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_messages_for_models_of_every_kind(case: ModelCase, cases: Callable[[str], str]) -> None:
    model = signature_of(cases(case.name), case.signature)
    left_out = _LEFT_OUT.get(case.name)
    model = model.with_outputs(tuple(spec.name for spec in model.outputs if spec.name != left_out)).checked()
    rows = [{name: to_json(value) for name, value in row.items()} for row in case.rows]
    planned = plan("json", model, topic=True, output_prefix="p_", schema=_BYTES.get(case.name, {}))
    assert [name for name, _ in planned.decode.spec.columns] == [spec.name for spec in model.columns]
    decoded = decode_messages(batch_of([json.dumps(row).encode() for row in rows]), planned.decode)
    assert (decoded.rows, decoded.failures) == (len(rows), [])
    assert bind(decoded.batches[0], model).errors == {}
    if not model.takes_examples:
        return
    whole = plan("example", model, topic=True, output_prefix="p_", columns=())
    payloads = [example(**row) for row in case.rows]
    (batch,) = decode_messages(batch_of(payloads), whole.decode).batches
    assert [group.feeds[model.inputs[0].name].tolist() for group in bind(batch, model).groups] == [payloads]


def to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return [to_json(each) for each in value] if isinstance(value, list) else value


def test_a_feature_of_the_model_is_carried_where_it_is_named() -> None:
    model = Signature(
        "serving_default", "", FEATURES.inputs, FEATURES.outputs, (ColumnSpec("image/encoded", "string", ()),)
    )
    assert plan("example", model, topic=True, columns=()).decode.spec.columns == (("examples", pa.binary()),)
    named = plan("example", model, topic=True, columns=("image/encoded",), schema={"image/encoded": pa.binary()})
    assert named.decode.spec.columns == (("image/encoded", pa.binary()), ("examples", pa.binary()))
