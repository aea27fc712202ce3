"""Record batches to the bytes of a file: one encoder per format, and what each of them cannot hold."""

from collections.abc import Callable
from typing import BinaryIO

import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.transforms.encode.avro import AvroEncoder, avro_bad_name, avro_unsupported
from sluice.transforms.encode.base import FORMATS, Encoder, OutputSpec, shown_schema, shown_type
from sluice.transforms.encode.csv import CsvEncoder, csv_unsupported
from sluice.transforms.encode.examples import ExampleEncoder, example_unsupported
from sluice.transforms.encode.json import JsonEncoder, json_unsupported
from sluice.transforms.encode.parquet import ParquetEncoder, parquet_unsupported

_ENCODERS: dict[str, Callable[[BinaryIO, OutputSpec], Encoder]] = {
    "csv": CsvEncoder,
    "jsonl": JsonEncoder,
    "parquet": ParquetEncoder,
    "avro": AvroEncoder,
    "tfrecord": ExampleEncoder,
}


def open_encoder(file: BinaryIO, spec: OutputSpec) -> Encoder:
    """Returns the format's encoder, which has written what stands before the rows.

    Args:
      file: anything with `write(bytes)`; it is neither sought nor closed.
    """
    return _ENCODERS[spec.format](file, spec)


def check_output_spec(spec: OutputSpec) -> None:
    """Checks at launch that the format can hold the columns.

    Raises:
      UsageError: it cannot; the text names the column, its type and what to do.
    """
    if not len(spec.schema):
        raise UsageError("the output has no columns; name some with --columns, or exclude fewer with --exclude_columns")
    twice = sorted({name for name in spec.schema.names if spec.schema.names.count(name) > 1})
    if twice:
        raise UsageError(f"two columns of the output are named '{twice[0]}'; tell them apart with --output_prefix")
    for field in spec.schema:
        _check_field(field, spec)


def _check_field(field: pa.Field, spec: OutputSpec) -> None:
    found = _unsupported(field.type, spec.format, spec.flatten)
    if found:
        holders = [name for name in FORMATS if not _unsupported(field.type, name, spec.flatten)]
        inside = "" if found == str(shown_type(field.type)) else f" with {found} inside"
        raise UsageError(
            f"column '{field.name}' is {field.type}{inside}, which {spec.format} cannot hold; "
            f"{_remedy(holders, field, spec)}"
        )
    bad_name = avro_bad_name(shown_schema(pa.schema([field])).field(0)) if spec.format == "avro" else None
    if bad_name is not None:
        inside = "" if bad_name == field.name else f" (in column '{field.name}')"
        raise UsageError(
            f"'{bad_name}'{inside} is not a name that avro takes ([A-Za-z_][A-Za-z0-9_]*); rename model outputs with "
            "--output_prefix, leave the column out with --exclude_columns, or choose another --output_format"
        )


def _unsupported(kind: pa.DataType, name: str, flatten: bool) -> str | None:
    """Returns the type within `kind` that the format cannot hold, or None."""
    if name == "parquet":
        return parquet_unsupported(kind)
    plain = shown_type(kind)
    if name == "csv":
        return csv_unsupported(plain, flatten)
    checks = {"jsonl": json_unsupported, "avro": avro_unsupported, "tfrecord": example_unsupported}
    return checks[name](plain)


def _remedy(holders: list[str], field: pa.Field, spec: OutputSpec) -> str:
    ways = []
    if spec.format == "csv" and not spec.flatten and not _unsupported(field.type, "csv", True):
        ways.append("write it as JSON text with --flatten")
    if holders:
        ways.append(f"choose --output_format {' or '.join(holders)}")
    last = "leave it out with --exclude_columns"
    return ", ".join([*ways, f"or {last}"]) if ways else last
