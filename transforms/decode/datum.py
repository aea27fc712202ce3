"""One Avro datum of a message, without a container file: bare, or in Avro's single-object encoding.

The encoding: https://avro.apache.org/docs/1.11.1/specification/#single-object-encoding
"""

import dataclasses
import functools
import io
import json
from typing import Any

import fastavro
import pyarrow as pa
from fastavro.schema import fingerprint, to_parsing_canonical_form

from sluice.models.errors import CorruptFile
from sluice.models.wording import message
from sluice.transforms.decode.avro import arrow_schema
from sluice.transforms.decode.avro_container import without_logical_types

_MARKER = b"\xc3\x01"
_FINGERPRINT = "CRC-64-AVRO"
_HEAD_BYTES = 10


@dataclasses.dataclass(frozen=True)
class DatumSchema:
    """A writer's schema.

    Attributes:
      columns: the fields.
      datum: the parsed schema, for fastavro.
      head: the marker and the fingerprint that stand before a datum in the single-object encoding.
    """

    columns: pa.Schema
    datum: Any
    head: bytes


@functools.lru_cache(maxsize=16)
def datum_schema(text: str) -> DatumSchema:
    """Parses a writer's schema.

    Args:
      text: JSON, a record.

    Raises:
      CorruptFile: the text is not an Avro schema, not a record, or has a field that cannot be a column.
    """
    try:
        schema = json.loads(text)
        expanded = fastavro.parse_schema(schema, expand=True)
        datum = fastavro.parse_schema(without_logical_types(schema))
        mark = bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), _FINGERPRINT))
    except Exception as error:
        raise CorruptFile(f"not an Avro schema: {type(error).__name__}: {error}") from error
    return DatumSchema(arrow_schema(expanded), datum, _MARKER + mark)


def read_datum(data: bytes, schema: str) -> dict[str, Any]:
    """Returns a record, bare or in the single-object encoding.

    A bare record may begin with the marker of the encoding by chance. So data whose fingerprint is of another schema
    are read as bare, and accepted if they are exactly one datum.

    Args:
      schema: the writer's schema, as JSON text.

    Raises:
      ValueError: the data are not one datum of this schema.
    """
    known = datum_schema(schema)
    if data.startswith(known.head):
        return _read(data[_HEAD_BYTES:], known)
    try:
        return _read(data, known)
    except ValueError as error:
        if not data.startswith(_MARKER) or len(data) < _HEAD_BYTES:
            raise
        raise ValueError(
            message(
                "it was written with another Avro schema: the single-object encoding says {}, and the fingerprint of "
                "--avro_schema is {known}",
                data[2:_HEAD_BYTES].hex(),
                known=known.head[2:].hex(),
            )
        ) from error


def _read(data: bytes, schema: DatumSchema) -> dict[str, Any]:
    file = io.BytesIO(data)
    try:
        row = fastavro.schemaless_reader(file, schema.datum, None, handle_unicode_errors="surrogateescape")
    except Exception as error:
        if isinstance(error, EOFError):
            raise ValueError(message("not a datum of the Avro schema: it ends early")) from error
        text = "not a datum of the Avro schema: {kind}: {}"
        raise ValueError(message(text, error, kind=type(error).__name__)) from error
    rest = len(data) - file.tell()
    if rest:
        text = "not a datum of the Avro schema: {rest} bytes follow it; was it written with another?"
        raise ValueError(message(text, rest=rest))
    return row
