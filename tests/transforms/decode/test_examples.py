import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.protos import message_class
from sluice.models.reserved import FILE, PAYLOAD, POSITION
from sluice.transforms.core.formats import TFRECORD
from sluice.transforms.decode.examples import decode_examples, example_schema
from sluice.transforms.decode.spec import Decoded, InputSpec
from tests.support.formats.decode_cases import example, origins_of, payloads_of, rows_of
from tests.support.sizes import examples

COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    ("i", pa.int64()),
    ("small", pa.int8()),
    ("flag", pa.bool_()),
    ("x", pa.float32()),
    ("name", pa.string()),
    ("data", pa.binary()),
    ("tags", pa.list_(pa.int32())),
    ("names", pa.list_(pa.string())),
)
SPEC = InputSpec(TFRECORD, COLUMNS)


def decode(records: list[bytes], spec: InputSpec = SPEC, at: int = 0) -> Decoded:
    decoded = decode_examples(records, np.arange(at, at + len(records)), spec, "f#byte=")
    for batch in decoded.batches:
        batch.validate(full=True)
    assert decoded.rows == len(records)
    return decoded


def convert(value: Any, kind: pa.DataType) -> Any:
    if pa.types.is_string(kind):
        return value.decode()
    if pa.types.is_boolean(kind):
        return value != 0
    return pa.array([value], kind)[0].as_py()  # raises for a number that is out of range


def twin(record: bytes) -> dict[str, Any] | None:
    """The row in a tf.Example by protobuf and explicit conversions; None if it is bad."""
    try:
        features = message_class("tensorflow.Example").FromString(record).features.feature
    except DecodeError:
        return None
    row = {}
    for name, kind in COLUMNS:
        leaf = kind.value_type if pa.types.is_list(kind) else kind
        field = features[name].WhichOneof("kind") if name in features else None
        if field is None:
            row[name] = None
            continue
        wanted = "int64_list" if pa.types.is_integer(leaf) or pa.types.is_boolean(leaf) else "bytes_list"
        values = list(getattr(features[name], field).value)
        if field != ("float_list" if pa.types.is_floating(leaf) else wanted):
            return None
        try:
            found = [convert(value, leaf) for value in values]
        except (ValueError, pa.ArrowException):
            return None
        if not pa.types.is_list(kind) and len(found) > 1:
            return None
        row[name] = found if pa.types.is_list(kind) else found[0] if found else None
    return row


INTS = st.sampled_from([0, -7, 2**62, 127, 128])
FLOATS = st.sampled_from([0.5, -1e30, math.inf, math.nan])
BYTES = st.sampled_from([b"", b"abc", "é".encode(), b"\xff", b"\r\n"])
FEATURES: dict[str, st.SearchStrategy[Any]] = {
    "i": st.one_of(INTS, INTS, st.lists(INTS, max_size=2), FLOATS),
    "small": INTS,
    "flag": st.sampled_from([0, 1, 2]),
    "x": st.one_of(FLOATS, FLOATS, INTS),
    "name": st.one_of(BYTES, st.lists(BYTES, max_size=2)),
    "data": BYTES,
    "tags": st.lists(INTS, max_size=3),
    "names": st.lists(BYTES, max_size=3),
    "other": st.one_of(INTS, FLOATS, BYTES),
}
EXAMPLES = st.fixed_dictionaries({}, optional=FEATURES).map(lambda features: example(**features))
JUNK = st.one_of(st.binary(max_size=8), EXAMPLES.map(lambda record: record[:-1]))


@examples(40)
@given(st.lists(EXAMPLES, max_size=10))
def test_rows_are_those_that_protobuf_reads(records: list[bytes]) -> None:
    decoded = decode(records)
    expected = [twin(record) for record in records]
    good = [number for number, row in enumerate(expected) if row is not None]
    assert repr(rows_of(decoded)) == repr([expected[number] for number in good])
    assert origins_of(decoded) == [f"f#byte={number}" for number in good]
    assert payloads_of(decoded) == [records[number] for number in good]
    assert sorted((failure.origin, failure.payload) for failure in decoded.failures) == sorted(
        (f"f#byte={number}", records[number]) for number, row in enumerate(expected) if row is None
    )


@examples(40)
@given(st.lists(st.one_of(EXAMPLES, JUNK), max_size=8))
def test_a_row_does_not_depend_on_those_beside_it(records: list[bytes]) -> None:
    decoded, alone = decode(records), Decoded()
    for number, record in enumerate(records):
        alone.add(decode([record], at=number))
    assert repr(rows_of(decoded)) == repr(rows_of(alone))
    assert origins_of(decoded) == origins_of(alone)
    assert sorted((f.origin, f.payload) for f in decoded.failures) == sorted(
        (f.origin, f.payload) for f in alone.failures
    )


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"\xff\xff", "not a tf.Example that fits the columns: "),
        (example(i=0.5), "not a tf.Example that fits the columns: "),
        (example(i=[1, 2]), "feature 'i': one value is expected, found 2"),
        (example(small=128), "feature 'small': out of the range of int8"),
        (example(tags=[1, 2**40]), "feature 'tags': out of the range of int32"),
        (
            example(name=b"\xff"),
            "feature 'name': not valid UTF-8; name it with the suffix _bytes or declare it BYTES in --input_schema",
        ),
        (example(i=[1, 2], small=128), "feature 'i': one value is expected, found 2"),
    ],
)
def test_what_is_said_of_a_bad_row(record: bytes, message: str) -> None:
    decoded = decode([example(i=1), record, example(i=2)])
    assert [row["i"] for row in rows_of(decoded)] == [1, 2]
    (failure,) = decoded.failures
    assert (failure.stage, failure.error_type) == ("decode", "InvalidRow")
    assert failure.error_message.startswith(message)
    assert (failure.origin, failure.payload) == ("f#byte=1", record)


def test_examples_carried_whole_are_not_parsed() -> None:
    records = [example(i=1), b"not an example"]
    spec = InputSpec(TFRECORD, (("examples", pa.binary()),), examples="examples")
    decoded = decode(records, spec)
    assert rows_of(decoded) == [{"examples": record} for record in records]
    assert payloads_of(decoded) == records


def test_features_beside_examples_carried_whole() -> None:
    records = [example(i=1, name="a"), b"\xff", example(i=2)]
    decoded = decode(records, InputSpec(TFRECORD, (("i", pa.int64()), ("examples", pa.binary())), examples="examples"))
    assert rows_of(decoded) == [{"i": 1, "examples": records[0]}, {"i": 2, "examples": records[2]}]
    assert [failure.payload for failure in decoded.failures] == [b"\xff"]


def test_columns_in_order_and_the_reserved_behind() -> None:
    (batch,) = decode([example(i=1)]).batches
    assert batch.schema.names == [*(name for name, _ in COLUMNS), FILE, POSITION, PAYLOAD]
    assert [batch.schema.field(name).type for name, _ in COLUMNS] == [kind for _, kind in COLUMNS]


def test_the_features_of_some_examples() -> None:
    records = [
        example(a=1, b=[0.5, 1.5], c=b"x"),
        b"\xff not an example",
        example(a=[2, 3], d=[], e="y"),
        example(a=4, c=0.5),
    ]
    assert example_schema(records) == pa.schema(
        [
            ("a", pa.list_(pa.int64())),
            ("b", pa.list_(pa.float32())),
            ("c", pa.binary()),
            ("e", pa.binary()),
        ]
    )
