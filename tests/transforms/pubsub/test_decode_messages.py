import io
import json
import math
import pickle
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import fastavro
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.cache import ModelRecipe
from sluice.models.errors import CorruptFile
from sluice.models.reserved import FED, MESSAGE_ID, PAYLOAD, is_reserved
from sluice.models.uri import parse_model_uri
from sluice.transforms.core import metrics
from sluice.transforms.core.batches import ATTEMPT_ATTRIBUTE
from sluice.transforms.core.formats import AVRO, JSONL, TFRECORD
from sluice.transforms.core.messages import MESSAGE_SCHEMA, message_batch
from sluice.transforms.decode.datum import datum_schema
from sluice.transforms.decode.json_values import coerce
from sluice.transforms.decode.spec import Decoded, InputSpec
from sluice.transforms.pubsub.decode_messages import DecodeMessages, MessageSpec, decode_messages, refuse_redelivered
from tests.support.formats.decode_cases import example
from tests.support.sizes import examples

SOURCE = "projects/p/subscriptions/s"
COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    ("id", pa.int64()),
    ("x", pa.float32()),
    ("name", pa.string()),
    ("tags", pa.list_(pa.int64())),
)
JSON = MessageSpec("json", InputSpec(JSONL, COLUMNS, payload=False))
EXAMPLES = MessageSpec("example", InputSpec(TFRECORD, COLUMNS, payload=False))
RECORD = {
    "type": "record",
    "name": "row",
    "namespace": "a.b",
    "doc": "not part of the fingerprint",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "x", "type": ["null", "float"], "default": None},
        {"name": "name", "type": "string"},
        {"name": "tags", "type": {"type": "array", "items": "long"}},
        {"name": "when", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}
DATA = MessageSpec("avro", InputSpec(AVRO, COLUMNS, payload=False), json.dumps(RECORD))
TEXTS = MessageSpec("raw", InputSpec("raw", (("text", pa.string()),), payload=False))


def batch_of(payloads: Sequence[bytes | None], attempts: Sequence[int] = ()) -> pa.RecordBatch:
    """Returns messages that differ in all reserved columns."""
    count = len(payloads)
    numbers = np.arange(count)
    batch = message_batch(
        SOURCE,
        [payload or b"" for payload in payloads],
        [f"m{number}" for number in range(count)],
        numbers * 1000,
        numbers * 1000 + 1,
        [{"n": str(number)} for number in range(count)],
        [f"key{number}" for number in range(count)],
        attempts or [number % 3 for number in range(count)],
    )
    return batch.set_column(batch.num_columns - 1, PAYLOAD, pa.array(payloads, pa.binary()))


def test_inputs_take_columns_of_other_names() -> None:
    """What is fed to an input of another name stays beside the row until it is bound."""
    spec = InputSpec(JSONL, (("Age", pa.int64()), ("name", pa.string())), mapped=(("age", "Age"),), payload=False)
    for payloads in ([b'{"Age": 7}', b'{"Age": 8}'], [b'{"Age": 7}', b"{", b'{"Age": 8}']):
        (batch,) = decode_messages(batch_of(payloads), MessageSpec("json", spec)).batches
        assert batch[FED + "age"].to_pylist() == batch["Age"].to_pylist() == [7, 8]
        assert batch.schema.names[:3] == ["Age", "name", FED + "age"]
        assert batch.schema.names[3:] == MESSAGE_SCHEMA.names


def decode(payloads: Sequence[bytes | None], spec: MessageSpec = JSON) -> Decoded:
    """Decodes messages, and checks the reserved columns of rows and failures against the messages."""
    messages = batch_of(payloads)
    decoded = decode_messages(messages, spec)
    ids = []
    for batch in decoded.batches:
        batch.validate(full=True)
        assert batch.schema.names == [name for name, _ in spec.spec.columns] + MESSAGE_SCHEMA.names
        found = [int(text[1:]) for text in batch.column(MESSAGE_ID).to_pylist()]
        assert batch.select(MESSAGE_SCHEMA.names).to_pylist() == messages.take(pa.array(found, pa.int64())).to_pylist()
        assert found == sorted(found)
        ids += found
    for failure in decoded.failures:
        origin, number = failure.origin.split("#message_id=m")
        assert (origin, failure.stage, failure.error_type, failure.attempt) == (SOURCE, "decode", "InvalidRow", 1)
        assert failure.attributes == (("n", number),)
        assert failure.payload == (payloads[int(number)] or b"")
        ids.append(int(number))
    assert sorted(ids) == list(range(len(payloads)))
    return decoded


def outcomes(decoded: Decoded) -> dict[int, Any]:
    """Returns, by message number, its row, or why there is none."""
    found: dict[int, Any] = {}
    for batch in decoded.batches:
        names = [name for name in batch.schema.names if not is_reserved(name)]
        for message, row in zip(batch.column(MESSAGE_ID).to_pylist(), batch.select(names).to_pylist(), strict=True):
            found[int(message[1:])] = row
    return found | {int(failure.origin.split("=m")[1]): failure.error_message for failure in decoded.failures}


def alone(payload: bytes | None, spec: MessageSpec = JSON) -> Any:
    return outcomes(decode([payload], spec))[0]


GOOD = b'{"id": 7, "x": 0.5, "name": "a", "tags": [1]}'
ROW = {"id": 7, "x": 0.5, "name": "a", "tags": [1]}
PRETTY = json.dumps(ROW, indent=2).encode()


@pytest.mark.parametrize(
    "payload",
    [
        PRETTY,
        PRETTY.replace(b"\n", b"\r\n"),
        b"\n\r\n " + GOOD + b"\r\n\n ",
        b" " * 40 + GOOD + b"\t" * 40,
        GOOD[:-1] + b', "other": "\\n {\\"id\\": 8}"}',
        GOOD[:-1] + b', "other": [[{"id": 8}]]}',
    ],
)
@pytest.mark.parametrize("beside", [[], [GOOD], [b"{", PRETTY], [b""], [GOOD + b"\n" + GOOD]])
def test_json_with_white_space_is_one_row_and_stays_as_it_was(payload: bytes, beside: list[bytes]) -> None:
    decoded = decode([*beside, payload, *beside])
    assert outcomes(decoded)[len(beside)] == ROW


BAD_JSON: list[tuple[bytes | None, str]] = [
    (None, "the message is empty"),
    (b"", "the message is empty"),
    (b"\n", "the message is empty"),
    (b" \r\n\t ", "the message is empty"),
    (b"{", "not valid JSON: "),
    (GOOD + GOOD, "not valid JSON: "),
    (GOOD + b"\n" + GOOD, "not valid JSON: "),
    (GOOD + b",", "not valid JSON: "),
    (GOOD + b"\x00", "not valid JSON: "),
    (GOOD + b"\x00}", "not valid JSON: "),
    (b'{"name": "a\nb"}', "not valid JSON: "),
    (b'{"name": "a\rb"}', "not valid JSON: "),
    (b'{"name": "a}\n{b"}', "not valid JSON: "),
    (b'{"other": "a}\n{b"}', "not valid JSON: "),
    (b'{"id": 1, "other": "a}', "not valid JSON: "),
    (b'{b", "id": 2}', "not valid JSON: "),
    (b'{"na\nme": 1}', "not valid JSON: "),
    (b"\xef\xbb\xbf" + GOOD, "it begins with a byte order mark, which RFC 8259 keeps out of messages"),
    (b'{"name": "\xff"}', "not valid JSON: "),
    (b'{"other": "\xc3"}', "not valid JSON: "),
    (GOOD.decode().encode("utf-16"), "not valid JSON: "),
    (b"[" + GOOD + b"]", "a JSON object is expected, found a list"),
    (b"null", "a JSON object is expected, found a NoneType"),
    (b'"text"', "a JSON object is expected, found a str"),
    (b'{"id": 9223372036854775808}', "column 'id': 9223372036854775808 is out of the range of int64"),
    (b'{"id": ' + b"9" * 500 + b"}", "number is infinity when parsed as double"),
    (b'{"x": 1e39}', "column 'x': 1e+39 is out of the range of float"),
    (b'{"tags": 5}', "column 'tags': a list is expected, found 5"),
    (b'{"id": "' + b"z" * 100_000 + b'"}', "column 'id': int64 is expected, found 'zzz"),
]


@pytest.mark.parametrize(("payload", "text"), BAD_JSON, ids=range(len(BAD_JSON)))
@pytest.mark.parametrize("before", [0, 1, 70])
def test_what_is_not_a_json_object_of_the_columns_fails_alone(payload: bytes | None, text: str, before: int) -> None:
    found = outcomes(decode([GOOD] * before + [payload] + [PRETTY] * before))
    assert text in found.pop(before)
    assert list(found.values()) == [ROW] * before * 2


def test_halves_of_an_object_do_not_join() -> None:
    found = outcomes(decode([b'{"id": 1, "other": "a}', b'{b", "id": 2}', GOOD]))
    assert [isinstance(found[number], str) for number in range(3)] == [True, True, False]


def test_names_that_are_added_to_messages_as_they_are() -> None:
    spec = MessageSpec("json", InputSpec(JSONL, COLUMNS, payload=False, added=("score",)))
    found = outcomes(decode([GOOD, GOOD[:-1] + b', "score": 1}', GOOD[:-1] + b', "name": "score"}'], spec))
    assert found[0] == ROW
    assert found[1] == "the row has a value 'score', and so has the model; give --output_prefix TEXT"
    assert found[2] == ROW | {"name": "score"}


def test_no_messages_and_no_columns() -> None:
    assert decode([]).rows == 0
    nothing = MessageSpec("json", InputSpec(JSONL, (), payload=False))
    assert [batch.num_rows for batch in decode([GOOD, b"{}"], nothing).batches] == [2]
    assert [batch.num_rows for batch in decode([GOOD, b"", b"{}"], nothing).batches] == [2]


@pytest.mark.parametrize("spec", [JSON, EXAMPLES, DATA, TEXTS], ids=lambda spec: spec.format)
def test_rows_of_a_slice_of_messages(spec: MessageSpec) -> None:
    payloads = {"json": GOOD, "example": example(id=7), "avro": datum(), "raw": b"text"}
    messages = batch_of([b"\xff" if number % 3 == 0 else payloads[spec.format] for number in range(40)])[7:33]
    decoded = decode_messages(messages, spec)
    (batch,) = decoded.batches
    numbers = [int(text[1:]) for text in batch.column(MESSAGE_ID).to_pylist()]
    assert numbers == [number for number in range(7, 33) if number % 3]
    assert [int(failure.origin.split("=m")[1]) for failure in decoded.failures] == list(range(9, 33, 3))


def test_a_failure_tells_how_often_the_message_was_tried() -> None:
    messages = message_batch(SOURCE, [b"{"], ["1"], np.zeros(1), np.zeros(1), [{ATTEMPT_ATTRIBUTE: "3"}], [""], [0])
    (failure,) = decode_messages(messages, JSON).failures
    assert (failure.attempt, failure.attributes) == (3, ())


ROWS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from([0, -7, 2**63 - 1, None, 1.0, 2**63, "1", [5], True]),
        "x": st.one_of(st.floats(width=32, allow_nan=False, allow_infinity=False), st.sampled_from([1e39, "NaN"])),
        "name": st.one_of(st.text(max_size=5), st.sampled_from([None, 5, "}\n{", {"b64": "YQ=="}])),
        "tags": st.sampled_from([[], [1, 2], None, [[1], [2]], ["1"], 1]),
        "other": st.sampled_from([None, 1, "}{", [[{"id": 1}]], {"id": [1]}]),
    },
)
OBJECTS = st.builds(
    lambda row, indent, before, after: before + json.dumps(row, indent=indent).encode() + after,
    ROWS,
    st.sampled_from([None, None, 0, 1]),
    st.sampled_from([b"", b"", b"\n", b" \t"]),
    st.sampled_from([b"", b"", b"\r\n", b"  "]),
)


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Draws a payload that is cut short, or has other bytes somewhere."""
    payload = draw(whole)
    at = draw(st.integers(0, len(payload)))
    put_in = draw(st.sampled_from([b"", b"\n", b"\r", b"}\n{", b"\xff", b"\x00", b'"', b"{", b"}", b"1"]))
    return payload[:at] + put_in + payload[at + draw(st.sampled_from([0, 1, len(payload)])) :]


def twin(payload: bytes) -> dict[str, Any] | None:
    """Returns the row by Python's json module; None if it is bad."""
    try:
        value = json.loads(payload.decode())
        assert isinstance(value, dict)
        row = {name: coerce(value.get(name), kind) for name, kind in COLUMNS}
        return {name: pa.array([row[name]], kind)[0].as_py() for name, kind in COLUMNS}
    except (ValueError, AssertionError, pa.ArrowException):
        return None


@examples(60)
@given(st.lists(st.one_of(OBJECTS, OBJECTS, damaged(OBJECTS)), max_size=12))
def test_json_messages_are_what_python_reads(payloads: list[bytes]) -> None:
    found = outcomes(decode(payloads))
    for number, payload in enumerate(payloads):
        row = found[number]
        assert repr(None if isinstance(row, str) else row) == repr(twin(payload)), payload


def datum(schema: Any = RECORD, **values: Any) -> bytes:
    file = io.BytesIO()
    fastavro.schemaless_writer(file, schema, ROW | {"when": 5} | values)
    return file.getvalue()


def fingerprint(canonical: bytes) -> bytes:
    """Returns CRC-64-AVRO as the specification's pseudo code computes it, in little-endian order."""
    empty = 0xC15D213AA4D7A795
    value = empty
    for byte in canonical:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (empty & -(value & 1))
    return value.to_bytes(8, "little")


CANONICAL = (
    b'{"name":"a.b.row","type":"record","fields":[{"name":"id","type":"long"},{"name":"x","type":["null","float"]},'
    b'{"name":"name","type":"string"},{"name":"tags","type":{"type":"array","items":"long"}},'
    b'{"name":"when","type":"long"}]}'
)
HEAD = b"\xc3\x01" + fingerprint(CANONICAL)
OTHER = b"\xc3\x01" + fingerprint(b'"int"')
# A reader of DATA takes the marker for an id of -98; no other id begins with it.
MARKED = datum(id=-98)


def test_an_avro_schema_is_known_by_its_fingerprint() -> None:
    assert fingerprint(b'"int"') == (0x7275D51A3F395C8F).to_bytes(8, "little")  # Avro's own test vector
    assert datum_schema(json.dumps(RECORD)).head == HEAD


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (datum(), ROW),
        (HEAD + datum(), ROW),
        (datum(x=None, tags=[]), ROW | {"x": None, "tags": []}),
        (MARKED, ROW | {"id": -98}),
        (HEAD + MARKED, ROW | {"id": -98}),
        (b"", "not a datum of the Avro schema: it ends early"),
        (None, "not a datum of the Avro schema: it ends early"),
        (HEAD, "not a datum of the Avro schema: it ends early"),
        (b"\xc3\x01", "not a datum of the Avro schema: it ends early"),
        (datum()[:-1], "not a datum of the Avro schema: it ends early"),
        (datum() + b"\x00", "not a datum of the Avro schema: 1 bytes follow it; was it written with another?"),
        (HEAD + datum() + b"abc", "not a datum of the Avro schema: 3 bytes follow it; was it written with another?"),
        (
            OTHER + datum(),
            "it was written with another Avro schema: the single-object encoding says 8f5c393f1ad57572, and the "
            f"fingerprint of --avro_schema is {HEAD[2:].hex()}",
        ),
        (datum(name="q").replace(b"q", b"\xff"), "column 'name': "),
        (b"Obj\x01", "not a datum of the Avro schema: "),
    ],
)
@pytest.mark.parametrize("before", [0, 3])
def test_avro_messages(payload: bytes | None, expected: Any, before: int) -> None:
    found = outcomes(decode([datum()] * before + [payload, datum()], DATA))
    one = found.pop(before)
    assert one.startswith(expected) if isinstance(expected, str) else one == expected
    assert list(found.values()) == [ROW] * (before + 1)


@pytest.mark.parametrize(
    "text", ["", "{", '"long"', '{"type": "record"}', '{"type": "record", "name": "r", "fields": 5}', "[]"]
)
def test_what_is_not_a_schema_of_columns(text: str) -> None:
    with pytest.raises(CorruptFile):
        datum_schema(text)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (example(id=7, x=0.5, name="a", tags=[1]), ROW),
        (example(id=7, other=b"\xff"), {"id": 7, "x": None, "name": None, "tags": None}),
        (example(id=[7, 8]), "feature 'id': one value is expected, found 2"),
        (example(name=b"\xff"), "feature 'name': not valid UTF-8"),
        (example(id=0.5), "not a tf.Example that fits the columns: "),
        (example(id=7)[:-1], "not a tf.Example that fits the columns: "),
        (b"\xff", "not a tf.Example that fits the columns: "),
        (GOOD, "not a tf.Example that fits the columns: "),
        (b"", "the message is empty"),
        (None, "the message is empty"),
    ],
)
@pytest.mark.parametrize("before", [0, 3])
def test_tf_example_messages(payload: bytes | None, expected: Any, before: int) -> None:
    other = example(id=7, x=0.5, name="a", tags=[1])
    found = outcomes(decode([other] * before + [payload, other], EXAMPLES))
    one = found.pop(before)
    assert one.startswith(expected) if isinstance(expected, str) else one == expected
    assert list(found.values()) == [ROW] * (before + 1)


def test_tf_examples_for_a_model_that_parses_them() -> None:
    columns = (("id", pa.int64()), ("examples", pa.binary()))
    spec = MessageSpec("example", InputSpec(TFRECORD, columns, examples="examples", payload=False))
    found = outcomes(decode([example(id=7), b"", example(id=[7, 8])], spec))
    assert found[0] == {"id": 7, "examples": example(id=7)}
    assert found[1] == "the message is empty"
    assert found[2] == "feature 'id': one value is expected, found 2"
    whole = MessageSpec("example", InputSpec(TFRECORD, columns[1:], examples="examples", payload=False))
    assert outcomes(decode([b"any"], whole)) == {0: {"examples": b"any"}}


def test_raw_messages_are_the_value() -> None:
    texts = [b"a", b"", b"\xff", "né\n".encode(), None]
    bad = "the message is not valid UTF-8; if 'text' takes bytes, declare it BYTES in --input_schema"
    assert outcomes(decode(texts, TEXTS)) == {
        0: {"text": "a"}, 1: {"text": ""}, 2: bad, 3: {"text": "né\n"}, 4: {"text": ""}
    }  # fmt: skip
    spec = MessageSpec("raw", InputSpec("raw", (("text", pa.binary()),), payload=False))
    assert outcomes(decode(texts, spec))[2] == {"text": b"\xff"}


GOOD_PAYLOADS: dict[str, st.SearchStrategy[bytes]] = {
    "json": OBJECTS,
    "example": st.builds(
        lambda row: example(**row),
        st.fixed_dictionaries({}, optional={"id": st.integers(-9, 9), "name": st.binary(max_size=3)}),
    ),
    "avro": st.builds(
        lambda head, number, name: head + datum(id=number, name=name),
        st.sampled_from([b"", b"", HEAD, OTHER]),
        st.sampled_from([0, 7, -98, 2**62]),
        st.text(max_size=4),
    ),
    "raw": st.binary(max_size=3),
}
JUNK = st.sampled_from([payload for payload, _ in BAD_JSON if payload is not None and len(payload) < 1000])


@pytest.mark.parametrize("spec", [JSON, EXAMPLES, DATA, TEXTS], ids=lambda spec: spec.format)
@examples(40)
@given(data=st.data())
def test_a_message_does_not_depend_on_those_beside_it(spec: MessageSpec, data: st.DataObject) -> None:
    good = GOOD_PAYLOADS[spec.format]
    payloads = data.draw(st.lists(st.one_of(good, good, damaged(good), JUNK, st.none()), max_size=10))
    found = outcomes(decode(payloads, spec))
    assert repr([found[number] for number in range(len(payloads))]) == repr([alone(one, spec) for one in payloads])


def test_messages_that_were_delivered_too_often() -> None:
    messages = batch_of([GOOD] * 4, [0, 5, 6, 100])
    kept, failures = refuse_redelivered(messages, 5)
    assert kept.column(MESSAGE_ID).to_pylist() == ["m0", "m1"]
    assert [(each.stage, each.error_type, each.origin) for each in failures] == [
        ("read", "TooManyDeliveries", f"{SOURCE}#message_id=m2"),
        ("read", "TooManyDeliveries", f"{SOURCE}#message_id=m3"),
    ]
    assert failures[0].error_message == (
        "delivered 6 times, more than --max_delivery_attempts 5, and never acknowledged: it may have killed the "
        "workers that had it, or they could not write its prediction"
    )
    assert failures[0].payload == GOOD
    assert refuse_redelivered(messages, 0) == (messages, [])
    assert refuse_redelivered(messages, 100) == (messages, [])
    assert refuse_redelivered(batch_of([GOOD] * 2, [9, 9]), 1)[0].num_rows == 0


def test_what_is_told_travels() -> None:
    for spec in (JSON, EXAMPLES, DATA, TEXTS):
        assert pickle.loads(pickle.dumps(spec)) == spec
    with pytest.raises(ValueError, match="format 'csv' is not one of json, example, avro, raw"):
        MessageSpec("csv", InputSpec(JSONL, COLUMNS))


class _Seen(beam.DoFn):
    def process(self, each: Any, time: Any = beam.DoFn.TimestampParam, window: Any = beam.DoFn.WindowParam) -> Any:
        what = each.column("id").to_pylist() if isinstance(each, pa.RecordBatch) else each.error_type
        yield what, float(time), float(window.start)


def test_a_stream_of_batches_becomes_rows_and_failures_in_their_windows() -> None:
    metrics.reset_tally()
    batches = [
        TimestampedValue(batch_of([GOOD, b"", b'{"id": 8}', GOOD], [1, 1, 1, 4]), 65),
        TimestampedValue(batch_of([PRETTY]), 5),
        TimestampedValue(batch_of([GOOD], [9]), 130),
    ]
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        messages = pipeline | beam.Create(batches) | beam.Map(lambda each: each) | beam.WindowInto(FixedWindows(60))
        decoded = messages | "Decode" >> DecodeMessages(JSON, max_delivery_attempts=3)
        assert_that(decoded.rows | "R" >> beam.ParDo(_Seen()), equal_to([([7, 8], 65, 60), ([7], 5, 0)]), label="rows")
        failed = [("InvalidRow", 65, 60), ("TooManyDeliveries", 65, 60), ("TooManyDeliveries", 130, 120)]
        assert_that(decoded.failures | "F" >> beam.ParDo(_Seen()), equal_to(failed), label="failures")
    tally = metrics.tally()
    assert (tally["rows_read"], tally["rows_failed"]) == (6, 3)
    assert tally["bytes_read"] == 3 * len(GOOD) + len(b'{"id": 8}') + len(PRETTY)
    assert (tally["rows_failed/decode/InvalidRow"], tally["rows_failed/read/TooManyDeliveries"]) == (1, 2)


def test_failures_name_the_model_that_the_rows_were_for() -> None:
    """Whoever reads a table of failures of several jobs must see which job's they are."""
    recipe = ModelRecipe(parse_model_uri("gs://b/m"))
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        messages = pipeline | beam.Create([batch_of([GOOD, b"", PRETTY], [1, 1, 4])]) | beam.Map(lambda each: each)
        decoded = messages | "Decode" >> DecodeMessages(JSON, 3, recipe, 12)
        found = decoded.failures | beam.Map(lambda each: (each.error_type, each.model, each.version))
        wanted = [("InvalidRow", "gs://b/m", 12), ("TooManyDeliveries", "gs://b/m", 12)]
        assert_that(found, equal_to(wanted))


def test_float32_is_read_as_such_however_many_are_beside_it() -> None:
    numbers = [0.1, 16777217.0000001, math.pi, 1e-40]
    payloads = [b'{"x": %s}' % repr(number).encode() for number in numbers]
    together = outcomes(decode(payloads))
    assert [together[place]["x"] for place in range(4)] == [alone(payload)["x"] for payload in payloads]
