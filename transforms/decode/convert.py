"""Text columns to typed columns: in one step if every value fits, else with the misfits marked."""

import base64
import binascii
import decimal
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sluice.models.isolate import isolate
from sluice.models.wording import message

_Convert = Callable[[pa.Array], pa.Array]
# A double holds every integer up to this one.
EXACT = 1 << 53
ROUNDED = "float64 can only hold it rounded; declare the column INT64, NUMERIC or STRING in --input_schema"
# The errors of a conversion that mean that a value does not fit.
_MISFIT = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError, OverflowError)


def convert_or_mark(array: pa.Array, convert: _Convert, out: pa.DataType) -> tuple[pa.Array, np.ndarray | None]:
    """Returns the converted array, null where a value does not fit, and the misfits (bool [n]; None: there are none).

    Args:
      out: the type that `convert` returns.
    """
    parts = list(isolate(len(array), lambda start, stop: convert(array[start:stop]), _MISFIT))
    arrays = [pa.nulls(1, out) if part.error else part.result for part in parts]
    converted = arrays[0] if len(arrays) == 1 else pa.concat_arrays([pa.nulls(0, out), *arrays])
    misfits = [part.start for part in parts if part.error]
    if not misfits:
        return converted, None
    marked = np.zeros(len(array), bool)
    marked[misfits] = True
    return converted, marked


def text_converter(kind: pa.DataType) -> _Convert:
    """Returns a function from an array of texts (binary or string) to an array of this type, which is not nested.

    An empty or blank text is a null, unless the type is string or binary (base64). The function raises ValueError
    (ArrowInvalid is one) if a value does not fit.
    """
    prepare, convert = _steps(kind)
    return lambda array: convert(prepare(array))


def parse_texts(array: pa.Array, kind: pa.DataType, exact: bool = False) -> tuple[pa.Array, np.ndarray | None]:
    """Returns the texts converted as by `text_converter`, null where one does not fit, and the misfits (bool [n]).

    Args:
      exact: a whole number that float64 can only hold rounded is a misfit, too.
    """
    prepare, convert = _steps(kind)
    if exact and pa.types.is_float64(kind):
        convert = _parse_exact_floats
    texts, not_text = convert_or_mark(array, prepare, pa.string())
    values, misfits = convert_or_mark(texts, convert, kind)
    if not_text is None or misfits is None:
        return values, misfits if not_text is None else not_text
    return values, not_text | misfits


def _steps(kind: pa.DataType) -> tuple[_Convert, _Convert]:
    """Returns two steps: one that all texts need and that seldom fails, and the one that makes values of them."""
    if pa.types.is_string(kind):
        return _as_text, _as_text
    if pa.types.is_binary(kind):
        return _as_text, _decode_base64
    convert: Callable[[pa.Array, pa.DataType], pa.Array] = _cast
    if pa.types.is_timestamp(kind):
        convert = _parse_timestamps
    elif pa.types.is_time(kind):
        convert = _parse_times
    elif pa.types.is_floating(kind):
        convert = _parse_floats
    elif pa.types.is_boolean(kind):
        convert = _parse_booleans
    elif pa.types.is_integer(kind):
        convert = _parse_integers
    return _trimmed, lambda array: convert(array, kind)


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    return array.cast(kind)


# A whole number as other programs write it: with a plus, or with a fraction of zeros.
_WHOLE = r"^(?:\+|(-))?([0-9]+)(?:\.0*)?$"
_INTEGER = r"^-?[0-9]+$"
# R writes 100000 as 1e+05.
_FLOAT = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
# A double below shows a fraction of 1/256 or more.
SURELY_WHOLE = 1 << 45


def _parse_integers(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Parses whole numbers: also 20.0 and +9, and others, such as 1e+05, if a double shows that they are whole."""
    try:
        return array.cast(kind)
    except pa.ArrowInvalid:
        texts = pc.replace_substring_regex(array, _WHOLE, r"\1\2")
    plain = pc.match_substring_regex(texts, _INTEGER)
    floats = pc.and_not(pc.match_substring_regex(texts, _FLOAT), plain)
    if not pc.any(floats).as_py():
        return texts.cast(kind)
    values = _parse_floats(pc.if_else(floats, texts, "0"), pa.float64())
    if pc.any(pc.greater_equal(pc.abs(values), SURELY_WHOLE)).as_py():
        raise ValueError("a whole number that a double may hold rounded")
    return pc.if_else(floats, values.cast(kind), pc.if_else(floats, "0", texts).cast(kind))


def _parse_booleans(array: pa.Array, kind: pa.DataType) -> pa.Array:
    return pc.utf8_lower(array).cast(kind)


def _as_text(array: pa.Array) -> pa.Array:
    return array.cast(pa.string())


def _trimmed(array: pa.Array) -> pa.Array:
    return _empty_to_null(pc.utf8_trim_whitespace(_as_text(array)))


def _empty_to_null(array: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(array, ""), pa.scalar(None, array.type), array)


def _parse_floats(array: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        values = array.cast(kind)
    except pa.ArrowInvalid:
        values = pc.replace_substring_regex(array, r"^\+([0-9.])", r"\1").cast(kind)
    infinite = pc.is_inf(values)
    if not pc.any(infinite).as_py():
        return values
    named = pc.match_substring(array.filter(infinite), "inf", ignore_case=True)
    if not pc.all(named, min_count=0).as_py():
        raise ValueError(message("out of the range of {kind}", kind=kind))
    return values


def _parse_exact_floats(array: pa.Array) -> pa.Array:
    values = _parse_floats(array, pa.float64())
    large = may_round(values)
    wholes = array.filter(large).filter(pc.match_substring_regex(array.filter(large), r"^[+-]?[0-9]+(?:\.0*)?$"))
    if any(rounds(int(text.split(".")[0])) for text in wholes.to_pylist()):
        raise ValueError(ROUNDED)
    return values


def may_round(values: pa.Array) -> pa.Array:
    """Returns bool [n]: whether a float may be another whole number than its text."""
    return pc.greater_equal(pc.abs(values), EXACT)


def rounds(value: object) -> bool:
    """Whether a JSON value is, or has within its lists, a whole number that float64 does not hold.

    A Decimal is one if it has a fraction of zeros.
    """
    if isinstance(value, list):
        return any(map(rounds, value))
    if isinstance(value, decimal.Decimal) and value.is_finite() and _exponent(value) < 0 and value == int(value):
        value = int(value)  # 9007199254740993.0; but 1e+300 is what a program writes for a float
    return isinstance(value, int) and abs(value) > EXACT and int(float(value)) != value


def _exponent(value: decimal.Decimal) -> int:
    exponent = value.as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0


def _parse_timestamps(array: pa.Array, kind: pa.TimestampType) -> pa.Array:
    """Parses ISO 8601 and the form of BigQuery's exports ("2024-01-02 03:04:05 UTC"). Without a zone it is UTC."""
    try:
        return array.cast(kind)
    except pa.ArrowInvalid:
        zoneless = pc.replace_substring_regex(array, r" ?(UTC|Z)$", "")
        return zoneless.cast(pa.timestamp(kind.unit)).cast(kind)


def _parse_times(array: pa.Array, kind: pa.DataType) -> pa.Array:
    moments = pc.binary_join_element_wise("1970-01-01T", array, "")  # pyarrow casts no text to a time of day
    return moments.cast(pa.timestamp(kind.unit)).cast(kind)


def _decode_base64(array: pa.Array) -> pa.Array:
    try:
        values = [None if value is None else base64.b64decode(value, validate=True) for value in array.to_pylist()]
    except binascii.Error as error:
        raise ValueError(message("not base64: {}", error)) from error
    return pa.array(values, pa.binary())
