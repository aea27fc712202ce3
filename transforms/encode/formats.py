"""How files are written: the table from each format to its encoder and to the types that it cannot hold."""

from collections import Counter
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.transforms.core.formats import AVRO, CSV, JSONL, PARQUET, TFRECORD
from sluice.transforms.encode.avro import AvroEncoder, avro_bad_name, avro_unsupported
from sluice.transforms.encode.base import Encoder, OutputSpec, shown_schema, shown_type
from sluice.transforms.encode.csv import CsvEncoder, csv_unsupported
from sluice.transforms.encode.examples import ExampleEncoder, example_unsupported
from sluice.transforms.encode.json import JsonEncoder, json_unsupported
from sluice.transforms.encode.parquet import ParquetEncoder, parquet_unsupported


class Writer(NamedTuple):
    """How files of one format are written.

    Attributes:
      encoder: writes the rows to an open file, beginning with the header of the format.
      unsupported: returns the part of a column's type that the format cannot hold, or None. The second argument is
        `OutputSpec.flatten`.
    """

    encoder: Callable[[BinaryIO, OutputSpec], Encoder]
    unsupported: Callable[[pa.DataType, bool], str | None]


def _of_shown(unsupported: Callable[[pa.DataType], str | None]) -> Callable[[pa.DataType, bool], str | None]:
    return lambda kind, _: unsupported(shown_type(kind))


WRITERS = {
    CSV: Writer(CsvEncoder, lambda kind, flatten: csv_unsupported(shown_type(kind), flatten)),
    JSONL: Writer(JsonEncoder, _of_shown(json_unsupported)),
    PARQUET: Writer(ParquetEncoder, lambda kind, _: parquet_unsupported(kind)),
    AVRO: Writer(AvroEncoder, _of_shown(avro_unsupported)),
    TFRECORD: Writer(ExampleEncoder, _of_shown(example_unsupported)),
}


def open_encoder(file: BinaryIO, spec: OutputSpec) -> Encoder:
    """Returns the encoder of the format. The header of the format is written.

    Args:
      file: anything with `write(bytes)`. The encoder neither seeks in it nor closes it.
    """
    return WRITERS[spec.format].encoder(file, spec)


def check_output_spec(spec: OutputSpec) -> None:
    """Checks at launch that the format can hold the columns.

    Raises:
      UsageError: it cannot. The text names the column, its type and the remedy.
    """
    if not len(spec.schema):
        raise UsageError("the output has no columns; name some with --columns, or exclude fewer with --exclude_columns")
    twice = sorted(name for name, count in Counter(spec.schema.names).items() if count > 1)
    if twice:
        raise UsageError(f"two columns of the output are named '{twice[0]}'; tell them apart with --output_prefix")
    for field in spec.schema:
        _check_field(field, spec)


def _check_field(field: pa.Field, spec: OutputSpec) -> None:
    found = WRITERS[spec.format].unsupported(field.type, spec.flatten)
    if found:
        holders = [name for name, each in WRITERS.items() if not each.unsupported(field.type, spec.flatten)]
        inside = "" if found == str(shown_type(field.type)) else f" with {found} inside"
        raise UsageError(
            f"column '{field.name}' is {field.type}{inside}, which {spec.format} cannot hold; "
            f"{_remedy(holders, field, spec)}"
        )
    bad_name = avro_bad_name(shown_schema(pa.schema([field])).field(0)) if spec.format == AVRO else None
    if bad_name is not None:
        inside = "" if bad_name == field.name else f" (in column '{field.name}')"
        raise UsageError(
            f"'{bad_name}'{inside} is not a name that avro accepts ([A-Za-z_][A-Za-z0-9_]*); rename model outputs with "
            "--output_prefix, leave the column out with --exclude_columns, or choose another --output_format"
        )


def _remedy(holders: list[str], field: pa.Field, spec: OutputSpec) -> str:
    ways = []
    if spec.format == CSV and not spec.flatten and not csv_unsupported(shown_type(field.type), flatten=True):
        ways.append("write it as JSON text with --flatten")
    if holders:
        ways.append(f"choose --output_format {' or '.join(holders)}")
    last = "leave it out with --exclude_columns"
    return ", ".join([*ways, f"or {last}"]) if ways else last
