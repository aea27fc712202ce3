"""The spec of an output file, and what the encoders share: columns in the types of the file, and joined bytes."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sluice.models.errors import SluiceError
from sluice.models.tensors.arrays import list_array
from sluice.models.tensors.column_types import is_list
from sluice.models.wording import message
from sluice.transforms.core.formats import FORMATS, RAW_FORMATS

Text = TypeVar("Text", str, bytes)

# A batch is encoded in parts, because Arrow addresses the text of one array with 31 bits. A byte of a column becomes 6
# bytes of text at most (a control character in JSON), and each row has the column names.
_PART_ROWS = 16_384
_PART_BYTES = 32 << 20


@dataclasses.dataclass(frozen=True)
class OutputSpec:
    """The contents of an output file, decided at launch. Picklable.

    Attributes:
      format: one of FORMATS.
      schema: the columns of the file in order, with their types.
      raw: each row is its own source text (the column `models.reserved.PAYLOAD`) with the columns of `schema` added.
        The input must be of the same row format.
      raw_names: for raw CSV: the names of the fields of the source rows, for the header.
      flatten: for CSV: a list or struct becomes its JSON text in one field.
    """

    format: str
    schema: pa.Schema
    raw: bool = False
    flatten: bool = False
    raw_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format '{self.format}' is not one of {', '.join(FORMATS)}")
        if self.raw and self.format not in RAW_FORMATS:
            raise ValueError(f"raw rows go into {', '.join(RAW_FORMATS)}, not into {self.format}")


class Encoder(Protocol):
    """Writes batches into one open file."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Writes the rows of a batch. Columns that the OutputSpec does not name are left out.

        Raises:
          SluiceError: a column is missing, or has values that its column in the file cannot hold. Nothing is written.
        """

    def close(self) -> None:
        """Writes the end of the format. The file itself stays open."""


def shown_type(kind: pa.DataType) -> pa.DataType:
    """Returns the type as a file shows it, without Arrow's variants.

    A dictionary becomes its values, an extension type its storage, a large or view variant the common type, a fixed
    size the variable one, a map a list of {key, value}.
    """
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return shown_type(kind.storage_type)
    if types.is_dictionary(kind):
        return shown_type(kind.value_type)
    if types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_large_binary(kind) or types.is_fixed_size_binary(kind) or types.is_binary_view(kind):
        return pa.binary()
    if types.is_date64(kind):
        return pa.date32()
    if types.is_decimal(kind) and not types.is_decimal256(kind):
        return pa.decimal128(kind.precision, kind.scale)
    if types.is_map(kind):
        key = pa.field("key", shown_type(kind.key_type), nullable=False)
        return pa.list_(pa.struct([key, pa.field("value", shown_type(kind.item_type))]))
    if is_list(kind):
        return pa.list_(_shown_field(kind.value_field))
    if types.is_struct(kind):
        return pa.struct([_shown_field(field) for field in kind])
    return kind


def shown_schema(schema: pa.Schema) -> pa.Schema:
    """Returns the schema with shown types."""
    return pa.schema([_shown_field(field) for field in schema])


def _shown_field(field: pa.Field) -> pa.Field:
    return field.with_type(shown_type(field.type))


def map_leaves(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Returns the type with every type inside its lists and structs changed."""
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(map_leaves(field.type, change)) for field in kind])
    if is_list(kind):
        return pa.list_(kind.value_field.with_type(map_leaves(kind.value_type, change)))
    return change(kind)


def in_micros(kind: pa.DataType) -> pa.DataType:
    """Returns a timestamp or time in microseconds, for formats that have no nanoseconds; other types as they are.

    `select_columns` refuses values that would lose digits.
    """
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return pa.time64("us") if pa.types.is_time(kind) else kind


def select_columns(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Returns the columns of the schema, in its order and types.

    A type may differ if no value changes: dictionary or text, string or binary, another width or unit.

    Raises:
      SluiceError: a column is missing, has another type, or a value that does not fit. The text names the column.
    """
    return pa.RecordBatch.from_arrays([_select(batch, field) for field in schema], schema=schema)


def find_column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Returns the column of that name.

    Raises:
      SluiceError: the batch has no such column, or several.
    """
    places = batch.schema.get_all_field_indices(name)
    if len(places) != 1:
        found = "is twice in" if places else "is not in"
        raise SluiceError(f"column '{name}' {found} the scored rows: {', '.join(batch.schema.names)}")
    return batch.column(places[0])


def _select(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    array = find_column(batch, field.name)
    if array.null_count and not field.nullable:
        raise SluiceError(
            message(
                "column '{name}' is REQUIRED in the output and {nulls} of {rows} rows are null; make it NULLABLE in "
                "--input_schema",
                name=field.name,
                nulls=array.null_count,
                rows=len(array),
            )
        )
    if array.type == field.type:
        return array
    if not same_kind(shown_type(array.type), shown_type(field.type)):
        raise SluiceError(f"column '{field.name}' is {field.type} in the output, found {array.type}")
    try:
        return _cast(array, field.type)
    except pa.ArrowException as error:
        text = "column '{name}': {found} does not fit {wanted} of the output: {}"
        raise SluiceError(message(text, error, name=field.name, found=array.type, wanted=field.type)) from error


def same_kind(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether a checked cast between shown types keeps the meaning of every value that passes."""
    types = pa.types
    if is_list(source) and is_list(target):
        return same_kind(source.value_type, target.value_type)
    if types.is_struct(source) and types.is_struct(target):
        return [field.name for field in source] == [field.name for field in target] and all(
            same_kind(one.type, other.type) for one, other in zip(source, target, strict=True)
        )
    if types.is_timestamp(source) and types.is_timestamp(target):
        return (source.tz is None) == (target.tz is None)
    if types.is_floating(source) and types.is_floating(target):
        return source.bit_width <= target.bit_width
    if types.is_integer(source):
        return types.is_integer(target) or types.is_floating(target)
    kinds = (_is_text, types.is_decimal, types.is_time)
    return source in (target, pa.null()) or any(kind(source) and kind(target) for kind in kinds)


def _is_text(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.binary())


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_nested(array.type) and _miscast(array.type):
        return pa.array(array.to_pylist(), kind)
    return array.cast(kind)


def _miscast(kind: pa.DataType) -> bool:
    """Whether a nested type holds a type that pyarrow 25 casts wrongly.

    A slice of a column of type null comes out with the length of the whole, and an empty dictionary fails under a null.
    """
    if pa.types.is_null(kind) or pa.types.is_dictionary(kind):
        return True
    return any(_miscast(kind.field(place).type) for place in range(kind.num_fields))


def parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yields slices of the batch that are small enough to encode at once; none if there are no rows."""
    if batch.num_rows <= _PART_ROWS and (batch.num_rows <= 1 or batch.nbytes <= _PART_BYTES):
        if batch.num_rows:
            yield batch
        return
    middle = batch.num_rows // 2
    yield from parts(batch.slice(0, middle))
    yield from parts(batch.slice(middle))


def join(pieces: Sequence[pa.Array | Text], rows: int, null: Text) -> pa.Array:
    """Returns string or binary [rows]: the pieces of each row, joined.

    Args:
      pieces: string or binary arrays [rows], and texts that are the same in every row.
      null: replaces a null piece.
    """
    pieces = [piece for piece in pieces if isinstance(piece, pa.Array) or piece]
    arrays = [piece for piece in pieces if isinstance(piece, pa.Array)]
    if not arrays:
        return pa.repeat(null[:0].join(pieces), rows)
    if len(pieces) == 1 and not arrays[0].null_count:
        return arrays[0]
    return pc.binary_join_element_wise(*pieces, null[:0], null_handling="replace", null_replacement=null)


def replace_values(lists: pa.ListArray, values: pa.Array) -> pa.ListArray:
    """Returns the lists with these values in place of `lists.flatten()`."""
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy()
    return list_array(lengths, values, lists.is_null() if lists.null_count else None)


def data_bytes(array: pa.Array) -> bytes:
    """Returns the joined bytes of a string or binary array, for files, of which some take nothing but bytes."""
    return bytes(data_view(array))


def data_view(array: pa.Array) -> memoryview:
    """Returns the joined bytes of a string or binary array, not copied. Bytes under a null may be among them."""
    if not len(array):
        return memoryview(b"")
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, np.int32)[[array.offset, array.offset + len(array)]]
    return memoryview(b"" if data is None else data)[bounds[0] : bounds[1]].cast("B")
