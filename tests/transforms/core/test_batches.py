import datetime
import decimal
import json
import math
from typing import Any

import apache_beam as beam
import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.reserved import ATTRIBUTES
from sluice.transforms.core.batches import (
    ATTEMPT_ATTRIBUTE,
    RecordBatchCoder,
    failure_of,
    origin_of,
    payload_of,
    slices,
    with_origin,
    with_payload,
)
from sluice.transforms.core.failures import to_json
from sluice.transforms.core.render import json_payload
from tests.support.formats.encode_cases import batches
from tests.support.sizes import examples

CODER = RecordBatchCoder()


@examples(20)
@given(batches())
def test_the_coder_gives_back_what_it_was_given(batch: pa.RecordBatch) -> None:
    found = CODER.decode(CODER.encode(batch))
    found.validate(full=True)
    assert found.schema == batch.schema
    assert repr(found.to_pylist()) == repr(batch.to_pylist())
    assert CODER.encode(batch) == CODER.encode(batch)


def big_batch() -> pa.RecordBatch:
    rows = 10_000
    batch = pa.record_batch(
        {
            "i": np.arange(rows),
            "s": [f"text {row}" for row in range(rows)],
            "l": [[row] * (row % 3) for row in range(rows)],
            "d": pa.array(["a", "b"] * (rows // 2)).dictionary_encode(),
        }
    )
    batch = with_origin(batch, "gs://bucket/data.csv#byte=", np.arange(rows) * 100)
    return with_payload(batch, pa.array([b"x" * 100] * rows))


def test_a_slice_is_encoded_without_what_it_was_cut_from() -> None:
    batch = big_batch()
    part = batch.slice(5000, 10)
    assert len(CODER.encode(part)) < 4_000 < len(CODER.encode(batch)) / 100
    assert CODER.decode(CODER.encode(part)).equals(part)
    assert origin_of(CODER.decode(CODER.encode(part)), 3) == "gs://bucket/data.csv#byte=500300"


def test_beam_finds_the_coder() -> None:
    assert isinstance(beam.coders.registry.get_coder(pa.RecordBatch), RecordBatchCoder)
    assert CODER.to_type_hint() is pa.RecordBatch
    # Arrow may encode equal values in several ways, so batches cannot be keys.
    assert not CODER.is_deterministic()
    assert CODER.estimate_size(big_batch()) > 1_000_000


@given(st.integers(0, 50), st.integers(1, 60))
def test_slices(rows: int, most: int) -> None:
    batch = pa.record_batch({"i": np.arange(rows)})
    parts = list(slices(batch, most))
    assert [value for part in parts for value in part.column(0).to_pylist()] == list(range(rows))
    sizes = [part.num_rows for part in parts]
    assert max(sizes, default=0) <= most
    assert max(sizes, default=0) - min(sizes, default=0) <= 1
    assert len(parts) == math.ceil(rows / most)


def test_where_a_row_came_from() -> None:
    batch = with_origin(pa.record_batch({"i": [1, 2]}), "f.csv#byte=", np.array([7, 19]))
    assert [origin_of(batch, row) for row in range(2)] == ["f.csv#byte=7", "f.csv#byte=19"]
    assert origin_of(batch.slice(1), 0) == "f.csv#byte=19"
    assert origin_of(pa.record_batch({"i": [1]}), 0) == ""


def test_rows_without_columns_have_an_origin() -> None:
    batch = with_origin(pa.RecordBatch.from_arrays([], []), "f.csv#byte=", np.array([7, 19]))
    assert [origin_of(batch, row) for row in range(batch.num_rows)] == ["f.csv#byte=7", "f.csv#byte=19"]


def test_a_row_as_it_stood_in_the_source() -> None:
    batch = with_payload(pa.record_batch({"i": [1, 2, 3]}), pa.array([b"1,a", b"\x00\r\n", None]))
    assert [payload_of(batch, row) for row in range(3)] == [b"1,a", b"\x00\r\n", b""]


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    [
        (None, pa.int64(), None),
        (2**64 - 1, pa.uint64(), "18446744073709551615"),
        (-7, pa.int64(), -7),
        (0.5, pa.float32(), 0.5),
        (math.nan, pa.float64(), "NaN"),
        (-math.inf, pa.float32(), "-Infinity"),
        (True, pa.bool_(), True),
        ("é\n", pa.string(), "é\n"),
        (b"\x00\xff", pa.binary(), "AP8="),
        (decimal.Decimal("1.50"), pa.decimal128(5, 2), "1.50"),
        (datetime.date(2024, 2, 29), pa.date32(), "2024-02-29"),
        (datetime.time(1, 2, 3), pa.time64("us"), "01:02:03"),
        (datetime.datetime(2024, 2, 29, 1, 2, 3), pa.timestamp("us"), "2024-02-29T01:02:03"),
        (datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC), pa.timestamp("us", "UTC"), "2024-02-29T00:00:00+00:00"),
        ([1.0, math.inf, None], pa.list_(pa.float32()), [1.0, "Infinity", None]),
        ([b"\xff"], pa.list_(pa.binary()), ["/w=="]),
        ({"a": math.nan}, pa.struct([("a", pa.float32())]), {"a": "NaN"}),
        ([("k", 1)], pa.map_(pa.string(), pa.int64()), [["k", 1]]),
        ("a", pa.dictionary(pa.int32(), pa.string()), "a"),
    ],
    ids=str,
)
def test_a_row_of_a_columnar_source_is_shown_as_json(value: Any, kind: pa.DataType, shown: Any) -> None:
    batch = with_origin(pa.RecordBatch.from_arrays([pa.array([value], kind)], ["v"]), "f#row=", np.array([0]))
    assert json.loads(payload_of(batch, 0)) == {"v": shown}


def test_values_that_python_has_no_form_for() -> None:
    broken = pa.array([b"a\xff"]).view(pa.string())
    nanoseconds = pa.array([1], pa.timestamp("ns"))
    batch = pa.RecordBatch.from_arrays([broken, nanoseconds], ["s", "t"])
    shown = json.loads(payload_of(batch, 0))
    assert shown["s"] == "a\\xff"
    assert shown["t"].startswith("1970-01-01 00:00:00.000000001")
    assert json.loads(json_payload({"s": "a\udcff"})) == {"s": "a\\xff"}


@pytest.mark.parametrize(
    ("text", "attempt"),
    [
        ("", 1),
        ("0", 1),
        ("3", 3),
        ("007", 7),
        ("-4", 1),
        ("2147483648", 2**31 - 1),
        ("99999999999999999999", 2**31 - 1),
        ("9" * 5000, 2**31 - 1),
        ("0" * 5000 + "5", 5),
        ("\u0663", 3),
        ("\u00b2", 1),
    ],
)
def test_an_attempt_of_any_size_can_be_written(text: str, attempt: int) -> None:
    attributes = pa.array([[(ATTEMPT_ATTRIBUTE, text)]], pa.map_(pa.string(), pa.string()))
    failure = failure_of(pa.RecordBatch.from_arrays([attributes], [ATTRIBUTES]), 0, "decode", "X", "x")
    assert failure.attempt == attempt
    assert orjson.loads(to_json(failure))["attempt"] == attempt
