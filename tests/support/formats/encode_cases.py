"""Batches of random types and values, and write-only files; shared by the tests of encoders."""

import datetime
import decimal
import io
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.encode.formats import open_encoder

UTC = datetime.UTC
EPOCH = datetime.datetime(1970, 1, 1)


class WriteOnlyFile:
    """A stream that can only be written to."""

    def __init__(self) -> None:
        self._data = io.BytesIO()

    def write(self, data: bytes) -> None:
        assert type(data) is bytes
        self._data.write(data)

    @property
    def data(self) -> bytes:
        return self._data.getvalue()


def encode(spec: OutputSpec, *batches: pa.RecordBatch) -> bytes:
    file = WriteOnlyFile()
    encoder = open_encoder(file, spec)  # type: ignore[arg-type]
    for batch in batches:
        encoder.write(batch)
    encoder.close()
    return file.data


def encode_batch(format_name: str, batch: pa.RecordBatch, **options: bool) -> bytes:
    return encode(OutputSpec(format_name, batch.schema, **options), batch)


def _integers(bits: int, signed: bool) -> st.SearchStrategy[int]:
    low = -(1 << bits - 1) if signed else 0
    return st.one_of(st.integers(low, low + (1 << bits) - 1), st.integers(0, 100))


def _decimals(precision: int, scale: int) -> st.SearchStrategy[decimal.Decimal]:
    limit = 10**precision - 1
    return st.integers(-limit, limit).map(lambda unscaled: decimal.Decimal(f"{unscaled}E-{scale}"))


def _datetimes(zone: datetime.tzinfo | None, micros: int) -> st.SearchStrategy[datetime.datetime]:
    """Times in the years 1 to 9999, in steps of some microseconds."""
    first, last = datetime.datetime(1, 1, 2), datetime.datetime(9999, 12, 30)
    return st.datetimes(first, last).map(
        lambda moment: (moment - (moment - EPOCH) % datetime.timedelta(microseconds=micros)).replace(tzinfo=zone)
    )


INTEGERS = {
    pa.int8(): _integers(8, True),
    pa.int16(): _integers(16, True),
    pa.int32(): _integers(32, True),
    pa.int64(): _integers(64, True),
    pa.uint8(): _integers(8, False),
    pa.uint16(): _integers(16, False),
    pa.uint32(): _integers(32, False),
}
FLOATS = {
    pa.float16(): st.floats(width=16),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
}
# Any text that UTF-8 can hold, and text that the formats must quote or escape.
TEXT = st.one_of(
    st.text(), st.text(alphabet=',"\\\r\n\t\b\f\x00\x1f\x7f /{}é\u2028𝄞'), st.sampled_from(["", "null", "nan"])
)
TEXTS = {pa.string(): TEXT, pa.large_string(): TEXT, pa.dictionary(pa.int32(), pa.string()): TEXT}
BINARIES = {pa.binary(): st.binary(), pa.large_binary(): st.binary()}
OTHERS = {
    pa.bool_(): st.booleans(),
    pa.null(): st.none(),
    pa.uint64(): _integers(64, False),
    pa.date32(): st.dates(datetime.date(1, 1, 2)),
    pa.time64("us"): st.times(),
    pa.time32("s"): st.times().map(lambda time: time.replace(microsecond=0)),
    pa.timestamp("us"): _datetimes(None, 1),
    pa.timestamp("us", "UTC"): _datetimes(UTC, 1),
    pa.timestamp("ms", "UTC"): _datetimes(UTC, 1_000),
    pa.timestamp("s"): _datetimes(None, 1_000_000),
    pa.decimal128(38, 9): _decimals(38, 9),
    pa.decimal128(5, 2): _decimals(5, 2),
    pa.decimal256(76, 38): _decimals(76, 38),
}
SCALARS: dict[pa.DataType, st.SearchStrategy[Any]] = INTEGERS | FLOATS | TEXTS | BINARIES | OTHERS
# The types that a feature of a tf.Example can have.
FEATURES: dict[pa.DataType, st.SearchStrategy[Any]] = (
    INTEGERS
    | {pa.float16(): FLOATS[pa.float16()], pa.float32(): FLOATS[pa.float32()]}
    | TEXTS
    | BINARIES
    | {pa.bool_(): st.booleans(), pa.null(): st.none()}
)
NAMES = st.text(alphabet="abcXYZ019_ é\"',\\", min_size=1, max_size=6)


@st.composite
def kinds(draw: st.DrawFn, depth: int = 2) -> pa.DataType:
    """A scalar type, or lists and structs of it."""
    form = draw(st.sampled_from(["scalar", "scalar", "list", "fixed", "struct"])) if depth else "scalar"
    if form == "scalar":
        return draw(st.sampled_from(list(SCALARS)))
    if form == "struct":
        names = draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True))
        return pa.struct([(name, draw(kinds(depth - 1))) for name in names])
    inner = draw(kinds(depth - 1))
    return pa.list_(inner) if form == "list" else pa.list_(inner, draw(st.integers(1, 3)))


def values(kind: pa.DataType, nulls: bool = True) -> st.SearchStrategy[Any]:
    """Values of a type, some of them null."""
    if pa.types.is_fixed_size_list(kind):
        found = st.lists(values(kind.value_type, nulls), min_size=kind.list_size, max_size=kind.list_size)
    elif pa.types.is_list(kind):
        found = st.lists(values(kind.value_type, nulls), max_size=4)
    elif pa.types.is_struct(kind):
        found = st.fixed_dictionaries({field.name: values(field.type, nulls) for field in kind})
    else:
        found = SCALARS[kind]
    return st.one_of(found, found, found, st.none()) if nulls else found


@st.composite
def batches(
    draw: st.DrawFn,
    types: st.SearchStrategy[pa.DataType] | None = None,
    names: st.SearchStrategy[str] = NAMES,
    max_rows: int = 9,
) -> pa.RecordBatch:
    """A batch that is a slice of a larger one, as batches often are."""
    columns = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    rows, before, after = draw(st.integers(0, max_rows)), draw(st.integers(0, 3)), draw(st.integers(0, 2))
    arrays = []
    for _ in columns:
        kind = draw(kinds() if types is None else types)
        cells = st.lists(
            values(kind, draw(st.booleans())), min_size=before + rows + after, max_size=before + rows + after
        )
        arrays.append(pa.array(draw(cells), kind))
    return pa.RecordBatch.from_arrays(arrays, columns).slice(before, rows)
