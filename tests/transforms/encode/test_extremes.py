"""Every type at its extremes in every format: a value is read back as it was, or fails, or the pair is refused."""

from __future__ import annotations

import base64
import csv
import datetime
import decimal
import io
import json
import re
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sluice.models.errors import SluiceError, UsageError
from sluice.models.protos import message_class
from sluice.models.tensors.tfrecord import read_records
from sluice.transforms.bigquery.schema import arrow_to_bigquery_schema
from sluice.transforms.core.formats import AVRO, BIGQUERY, CSV, FORMATS, JSONL, PARQUET, TFRECORD
from sluice.transforms.encode.base import OutputSpec, shown_type
from sluice.transforms.encode.formats import check_output_spec
from tests.support.formats.encode_cases import encode_batch
from tests.support.formats.extremes import EXTREMES, stored
from tests.support.paths import ROOT

# Formats of rows of text, and the texts that they have for floats.
_TEXT = (CSV, JSONL)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_ARRAYS = [pytest.param(array, id=str(array.type)) for arrays in EXTREMES.values() for array in arrays]


def is_refused(kind: pa.DataType, format_: str) -> bool:
    """Whether a job that would write such a column is refused at launch, by the column's name."""
    schema = pa.schema([("x", kind)])
    try:
        if format_ == BIGQUERY:
            arrow_to_bigquery_schema(schema)
        else:
            check_output_spec(OutputSpec(format_, schema, flatten=True))
    except UsageError as error:
        assert "column 'x'" in str(error)
        return True
    return False


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("array", _ARRAYS)
def test_a_value_comes_out_as_it_was_or_not_at_all(array: pa.Array, format_: str) -> None:
    if is_refused(array.type, format_):
        return
    for row in range(len(array)):
        batch = pa.RecordBatch.from_arrays([array[row : row + 1]], ["x"])
        try:
            data = encode_batch(format_, batch, flatten=True)
        except SluiceError as error:
            assert "column 'x'" in str(error)
            assert _may_fail(array.type, format_), error
            continue
        found = _READ[format_](data)
        assert _same(stored(array[row]), found, array.type, format_), (stored(array[row]), found)


def _may_fail(kind: pa.DataType, format_: str) -> bool:
    """Whether the format has no form for some values of a type: times out of range, digits below microseconds."""
    leaf = kind
    while pa.types.is_nested(leaf):
        leaf = leaf.field(0).type
    return pa.types.is_temporal(leaf) and format_ != TFRECORD


def _csv(data: bytes) -> Any:
    _, (text,) = csv.reader(io.StringIO(data.decode(), newline=""))
    return text


def _avro(data: bytes) -> Any:
    # Without its logical type a time is read as the number that it is, whether Python has such a time or not.
    raw = data if b'"decimal"' in data else data.replace(b'"logicalType"', b'"logicalNone"')
    return next(fastavro.reader(io.BytesIO(raw)))["x"]


def _parquet(data: bytes) -> Any:
    return stored(pq.read_table(pa.BufferReader(data))["x"][0])


def _example(data: bytes) -> Any:
    ((_, record),) = read_records(io.BytesIO(data))
    feature = message_class("tensorflow.Example").FromString(record).features.feature
    if not feature["x"].WhichOneof("kind"):
        return None
    return list(getattr(feature["x"], feature["x"].WhichOneof("kind")).value)


_READ = {CSV: _csv, JSONL: lambda data: json.loads(data)["x"], AVRO: _avro, PARQUET: _parquet, TFRECORD: _example}


def _same(value: Any, found: Any, kind: pa.DataType, format_: str) -> bool:
    """Whether what was read back means the value, which is as `stored` returns it."""
    if pa.types.is_dictionary(kind):
        return _same(value, found, kind.value_type, format_)
    if value is None:
        return found in (None, "") if format_ == CSV else found is None
    if format_ == TFRECORD:
        return _same_feature(value, found, kind)
    shown = shown_type(kind)
    if pa.types.is_list(shown) or pa.types.is_struct(shown):
        if format_ == CSV:
            return _same(value, json.loads(found), kind, JSONL)
        return _same_nested(value, found, kind if format_ == PARQUET else shown, format_)
    if pa.types.is_floating(kind):
        return _same_float(value, found)
    if pa.types.is_temporal(kind):
        return _same_time(value, found, kind, format_)
    if format_ in _TEXT and isinstance(value, bytes):
        return base64.b64decode(found, validate=True) == value
    if isinstance(value, decimal.Decimal) or (pa.types.is_uint64(kind) and format_ == AVRO):
        return decimal.Decimal(found) == value
    if format_ == CSV and isinstance(value, bool | int):
        return found == str(value).lower()
    return type(found) is type(value) and found == value


def _same_nested(value: Any, found: Any, kind: pa.DataType, format_: str) -> bool:
    if isinstance(value, dict):
        fields = {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {}
        return found.keys() == value.keys() and all(_same(value[n], found[n], fields[n], format_) for n in value)
    inner = shown_type(kind).value_type if pa.types.is_map(kind) else kind.value_type
    return len(value) == len(found) and all(
        _same(one, other, inner, format_) for one, other in zip(value, found, strict=True)
    )


def _same_feature(value: Any, found: Any, kind: pa.DataType) -> bool:
    values = value if isinstance(value, list) else [value]
    return len(values) == len(found or []) and all(
        _same_float(one, other)
        if isinstance(one, np.floating)
        else (one.encode() if isinstance(one, str) else one) == other
        for one, other in zip(values, found or [], strict=True)
    )


def _same_float(value: np.floating, found: Any) -> bool:
    """Whether a number or its text is the value, read with the value's own width; the sign of zero counts."""
    names = {"Infinity": "inf", "-Infinity": "-inf", "NaN": "nan"}
    read = type(value)(names.get(found, found) if isinstance(found, str) else found)
    return bool(np.isnan(read) and np.isnan(value)) or read.tobytes() == value.tobytes()


def _same_time(value: int, found: Any, kind: pa.DataType, format_: str) -> bool:
    per_second = 1 if pa.types.is_date(kind) else _PER_SECOND[kind.unit]
    days = value // 86_400_000 if pa.types.is_date64(kind) else value
    if format_ in _TEXT:
        return _counted(found, kind, per_second) == (days if pa.types.is_date(kind) else value)
    if pa.types.is_date(kind):
        return found in (days, value)
    if format_ == AVRO:
        return found * per_second == value * 10**6
    return found == value or (kind.unit == "s" and found == value * 1000)


def _counted(text: str, kind: pa.DataType, per_second: int) -> int:
    """Returns the number that a date or time is stored as, of its ISO 8601 text."""
    if pa.types.is_date(kind):
        return datetime.date.fromisoformat(text).toordinal() - 719_163
    day, _, time = text.rpartition("T")
    assert text.endswith("Z") == (getattr(kind, "tz", None) is not None)
    hours, minutes, seconds, digits = re.fullmatch(r"(\d\d):(\d\d):(\d\d)(?:\.(\d+))?Z?", time).groups()  # type: ignore[union-attr]
    whole = (int(hours) * 60 + int(minutes)) * 60 + int(seconds)
    whole += (datetime.date.fromisoformat(day).toordinal() - 719_163) * 86_400 if day else 0
    assert len(digits or "") in (0, len(str(per_second)) - 1)
    return whole * per_second + int(digits or 0)


def table() -> str:
    """The table in docs/batch.md."""
    places = [*FORMATS, BIGQUERY]
    lines = ["| type | " + " | ".join(places) + " |", "|---|" + "---|" * len(places)]
    for name, arrays in EXTREMES.items():
        cells = []
        for place in places:
            refused = {is_refused(array.type, place) for array in arrays}
            assert len(refused) == 1, f"{name} in {place}: divide the row"
            cells.append("refused" if refused.pop() else "yes")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_the_docs_list_the_pairs_that_are_refused() -> None:
    assert table() in (ROOT / "docs" / "batch.md").read_text(), f"docs/batch.md should hold:\n{table()}"
