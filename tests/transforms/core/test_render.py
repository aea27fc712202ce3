"""A failure can be written by every sink, whatever its row, its message or its file is."""

import datetime
import json
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.transforms.bigquery.write_failures import failure_columns, failure_row
from sluice.transforms.core.batches import failure_of, payload_of, with_origin
from sluice.transforms.core.failures import Failure, to_json
from sluice.transforms.core.render import json_object, json_payload
from sluice.transforms.pubsub.message_attributes import failure_message
from sluice.transforms.pubsub.replay.stored_failure import parse_failure
from tests.support.sizes import examples

_FIXED = [
    *(pa.bool_(), pa.int8(), pa.int64(), pa.uint64(), pa.float16(), pa.float64(), pa.date32(), pa.date64()),
    *(pa.timestamp(unit) for unit in ("s", "ms", "us", "ns")),
    *(pa.timestamp(unit, "UTC") for unit in ("s", "us", "ns")),
    *(pa.time32("s"), pa.time64("ns"), pa.duration("s"), pa.duration("ns"), pa.month_day_nano_interval()),
    *(pa.decimal128(38, 3), pa.decimal256(76, -4), pa.binary(5)),
]
_VARIABLE = [pa.string(), pa.binary(), pa.large_string(), pa.large_binary()]
_ROWS = 3


@st.composite
def raw_leaves(draw: st.DrawFn) -> pa.Array:
    """Draws arrays over raw bytes: Arrow does not look at them, so text need not be UTF-8, nor a date exist."""
    if draw(st.booleans()):
        kind = draw(st.sampled_from(_FIXED))
        size = _ROWS * max(1, kind.bit_width // 8)
        data = draw(st.binary(min_size=size, max_size=size))
        return pa.Array.from_buffers(kind, _ROWS, [None, pa.py_buffer(data)])
    kind = draw(st.sampled_from(_VARIABLE))
    texts = draw(st.lists(st.binary(max_size=6), min_size=_ROWS, max_size=_ROWS))
    wide = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    offsets = np.cumsum([0, *map(len, texts)]).astype(np.int64 if wide else np.int32)
    return pa.Array.from_buffers(kind, _ROWS, [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(texts))])


def _nested(arrays: st.SearchStrategy[pa.Array]) -> st.SearchStrategy[pa.Array]:
    ones = pa.array(np.arange(_ROWS + 1, dtype=np.int32))

    def as_map(keys: pa.Array, values: pa.Array) -> pa.Array:
        return pa.MapArray.from_arrays(ones, keys, values)

    return st.one_of(
        arrays.map(lambda values: pa.ListArray.from_arrays(ones, values)),
        arrays.map(lambda values: pa.FixedSizeListArray.from_arrays(values, 1)),
        arrays.map(lambda values: pa.DictionaryArray.from_arrays(pa.array(range(_ROWS)), values)),
        st.tuples(arrays, arrays).map(lambda pair: pa.StructArray.from_arrays(list(pair), names=["a", "a"])),
        st.builds(as_map, raw_leaves(), arrays),
    )


ARRAYS = st.recursive(raw_leaves(), _nested, max_leaves=4)
SURROGATES = st.text(st.characters(), max_size=8) | st.binary(max_size=8).map(
    lambda b: b.decode(errors="surrogateescape")
)


def check_every_sink(failure: Failure) -> None:
    for mode in ("full", "hash", "none"):
        stored = parse_failure(to_json(failure, mode))
        assert stored.payload == (failure.payload if mode == "full" else None)
        json.dumps(failure_row(failure, mode))
        assert failure_columns([failure], mode).num_rows == 1
        data, attributes, size = failure_message(failure, mode)
        assert len(data) + sum(len(name.encode()) + len(value.encode()) for name, value in attributes.items()) < size
    assert pickle.loads(pickle.dumps(failure)) == failure


@examples(200)
@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), ARRAYS), min_size=1, max_size=3))
def test_whatever_the_columns_of_a_row_hold(columns: list[tuple[str, pa.Array]]) -> None:
    batch = pa.RecordBatch.from_arrays([array for _, array in columns], names=[name for name, _ in columns])
    for row in range(_ROWS):
        json.loads(payload_of(batch, row))
        check_every_sink(failure_of(batch, row, "encode", "SluiceError", "x"))


@examples(100)
@given(SURROGATES, SURROGATES, SURROGATES, st.integers(), st.binary(max_size=20))
def test_whatever_its_file_its_error_and_its_attributes_are_called(
    origin: str, name: str, value: str, attempt: int, payload: bytes
) -> None:
    check_every_sink(Failure("encode", name, value, origin, payload, ((name, value),), model=name, attempt=attempt))
    batch = with_origin(pa.record_batch({"a": [1]}), origin, np.array([5]))
    check_every_sink(failure_of(batch, 0, "bind", "InvalidRow", value))


@pytest.mark.parametrize(
    ("array", "shown"),
    [
        (pa.array([2**62], pa.timestamp("us")), "4611686018427387904 as timestamp[us]"),
        (pa.array([1], pa.timestamp("ns")), "1970-01-01 00:00:00.000000001"),
        (pa.array([b"a\xff"]).view(pa.string()), "a\\xff"),
        (pa.array([[b"a\xff"]], pa.list_(pa.binary())).view(pa.list_(pa.string())), ["a\\xff"]),
    ],
)
def test_what_python_cannot_hold(array: pa.Array, shown: Any) -> None:
    assert json.loads(payload_of(pa.record_batch({"v": array}), 0)) == {"v": shown}


def test_keys_and_values_of_avro_that_are_not_utf8() -> None:
    row = {"m": {b"\xff".decode(errors="surrogateescape"): "\udcfe\ud800"}, "i": 2**70, "t": datetime.date(1, 1, 1)}
    assert json.loads(json_payload(row)) == {
        "m": {"\\xff": "\\xed\\xb3\\xbe\\xed\\xa0\\x80"},
        "i": str(2**70),
        "t": "0001-01-01",
    }


def test_a_value_without_end_and_a_name_that_comes_twice() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    text = json_object([("deep", deep), ("a", 1), ("a", 2)])
    assert json.loads(text)["deep"].startswith("<list that cannot be shown")
    assert text.endswith(b'"a":1,"a":2}')
