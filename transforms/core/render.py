"""A row as the JSON that its failure carries. Whatever the row holds, this never raises.

A failure that cannot be rendered would end the job for the sake of one row, so each step has a coarser one behind it.
"""

import base64
import math
from collections.abc import Iterable, Mapping

import orjson
import pyarrow as pa

_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_map)
_WRAPPED = (pa.types.is_dictionary, pa.types.is_union)
# What Arrow prints for a time that no calendar has.
_OUT_OF_RANGE = "<value"


def clean_text(text: str) -> str:
    r"""Returns a text that UTF-8 can hold: what it cannot (bytes of file names, lone surrogates) becomes \x and hex."""
    if text.isascii():
        return text
    try:
        return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:
        return text.encode(errors="surrogatepass").decode(errors="backslashreplace")


def json_payload(row: Mapping[str, object]) -> bytes:
    """Returns a row of a columnar source as a JSON object: bytes are base64, and NaN and infinities are strings."""
    return json_object(row.items())


def json_object(members: Iterable[tuple[str, object]]) -> bytes:
    """Returns names and values as `json_payload` does. Of a name that comes twice, all values are there."""
    return b"{" + b",".join(_dumps(name) + b":" + _dumps(value) for name, value in members) + b"}"


def _dumps(value: object) -> bytes:
    try:
        return orjson.dumps(_plain(value), default=str)
    except Exception:  # noqa: BLE001  too deep, or an object that has no text of its own
        return orjson.dumps(_described(value))


def _described(value: object) -> str:
    try:
        return clean_text(repr(value))
    except Exception as error:  # noqa: BLE001
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, int) and value.bit_length() > 63:
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return {clean_text(str(key)): _plain(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def scalar_value(scalar: pa.Scalar) -> object:
    """Returns a value as Python has it; what Python cannot hold, such as the year 10,000, as a text or in pieces."""
    try:
        return scalar.as_py()
    except Exception:  # noqa: BLE001  UnicodeDecodeError, OverflowError, ValueError and others, by type and library
        pass
    try:
        return _in_pieces(scalar)
    except Exception as error:  # noqa: BLE001
        return f"<{scalar.type} that cannot be shown: {type(error).__name__}>"


def _in_pieces(scalar: pa.Scalar) -> object:
    kind = scalar.type
    if _is(kind, _TEXTS):
        return bytes(scalar.as_buffer()).decode(errors="surrogateescape")
    if _is(kind, _LISTS):
        return [scalar_value(entry) for entry in scalar.values]
    if pa.types.is_struct(kind):
        return {kind.field(place).name: scalar_value(scalar[place]) for place in range(kind.num_fields)}
    if _is(kind, _WRAPPED) or isinstance(scalar, pa.ExtensionScalar):
        return scalar_value(scalar.value)
    text = scalar.cast(pa.string()).as_py()
    return text if _OUT_OF_RANGE not in text else f"{scalar.value} as {kind}"


def _is(kind: pa.DataType, checks: Iterable[object]) -> bool:
    return any(check(kind) for check in checks)  # type: ignore[operator]
