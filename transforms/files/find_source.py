"""What stands at --input: its format, its columns as far as the files say, and their first rows. At launch only."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import orjson
import pyarrow as pa

from sluice.models.errors import CorruptFile, UsageError
from sluice.models.tensors.tfrecord import read_records
from sluice.transforms.core.beam_files import match_files, open_binary, open_text
from sluice.transforms.decode.avro import arrow_schema
from sluice.transforms.decode.avro_container import read_header
from sluice.transforms.decode.examples import example_schema
from sluice.transforms.decode.lines import read_blocks
from sluice.transforms.decode.parquet import open_parquet
from sluice.transforms.decode.spec import AVRO, CSV, JSONL, PARQUET, TFRECORD, CsvOptions
from sluice.transforms.files.ranges import DAMAGE, csv_names

# How many rows of the first file are looked at before a job starts.
SAMPLE_ROWS = 100
# So many files are opened before a job starts: to find one with rows in it, and to compare the headers of CSV.
_OPENED = 20

_ENDINGS = {
    ".csv": CSV,
    ".jsonl": JSONL,
    ".ndjson": JSONL,
    ".json": JSONL,
    ".parquet": PARQUET,
    ".avro": AVRO,
    ".tfrecord": TFRECORD,
    ".tfrecords": TFRECORD,
}


@dataclasses.dataclass(frozen=True)
class Source:
    """The input as it is found at launch.

    Attributes:
      path: the first file that holds rows; the first of all if none does.
      size: bytes of all files together.
      names: of the columns, as far as they are known: of JSON and tf.Example, those of the first rows.
      types: of the columns, where the format has types.
      sample: the first rows, of JSON.
      one_header: of CSV: the first files all have the same header.
    """

    format: str
    path: str
    files: int
    size: int
    names: tuple[str, ...]
    types: dict[str, pa.DataType] = dataclasses.field(default_factory=dict)
    sample: tuple[dict[str, Any], ...] = ()
    one_header: bool = True


def find_source(pattern: str, format_: str, csv: CsvOptions) -> Source:
    """Returns what stands at a glob.

    Raises:
      UsageError: nothing does, the format is not known, or the first file cannot be read.
    """
    files = match_files(pattern)
    if not files:
        raise UsageError(f"--input {pattern}: no file matches")
    format_ = format_ or _format_of(files[0].path)
    opened = [file.path for file in files if file.size_in_bytes][:_OPENED]
    path, (names, types, sample) = _first_look(opened, format_, csv) or (files[0].path, ((), {}, ()))
    size = sum(file.size_in_bytes for file in files)
    one_header = format_ != CSV or all(_has_header(path, names, csv) for path in opened)
    return Source(format_, path, len(files), size, names, types, sample, one_header)


def _format_of(path: str) -> str:
    plain = path.removesuffix(".gz")
    for ending, name in _ENDINGS.items():
        if plain.endswith(ending):
            return name
    raise UsageError(
        f"--input {path}: the format is not clear from the name; give --input_format, one of "
        + ", ".join(dict.fromkeys(_ENDINGS.values()))
    )


_Look = tuple[tuple[str, ...], dict[str, pa.DataType], tuple[dict[str, Any], ...]]


def _first_look(paths: Sequence[str], format_: str, csv: CsvOptions) -> tuple[str, _Look] | None:
    for path in paths:
        try:
            look = _look(path, format_, csv)
        except (OSError, *DAMAGE) as error:
            raise UsageError(f"--input {path} cannot be read as {format_}: {error}") from error
        if look[0]:
            return path, look
    return None


def _has_header(path: str, names: tuple[str, ...], csv: CsvOptions) -> bool:
    """Whether a file has these names; one that is empty or cannot be read will not give rows under others."""
    try:
        return csv_names(path, csv) in ((), names)
    except (OSError, *DAMAGE):
        return True


def _look(path: str, format_: str, csv: CsvOptions) -> _Look:
    if format_ == CSV:
        return csv_names(path, csv), {}, ()
    if format_ == JSONL:
        sample = _json_rows(path)
        return tuple(dict.fromkeys(name for row in sample for name in row)), {}, sample
    if format_ == PARQUET:
        with open_parquet(path) as parquet:
            schema = parquet.schema_arrow
    elif format_ == AVRO:
        with open_binary(path) as file:
            schema = arrow_schema(read_header(file).schema)
    else:
        with open_text(path) as file:
            records = [record for _, record in itertools.islice(read_records(file), SAMPLE_ROWS)]
        schema = example_schema(records)
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise CorruptFile(f"its schema names {', '.join(map(repr, twice))} more than once")
    return tuple(schema.names), dict(zip(schema.names, schema.types, strict=True)), ()


def _json_rows(path: str) -> tuple[dict[str, Any], ...]:
    with open_text(path) as file:
        block = next(read_blocks(file), None)
    lines = [block.line(number) for number in range(min(len(block), SAMPLE_ROWS))] if block else []
    lines = [line for line in lines if line.strip()]
    rows = tuple(row for row in map(_json_object, lines) if row is not None)
    if lines and not rows:
        raise CorruptFile(f"none of its first {len(lines)} lines is a JSON object; the first begins {lines[0][:40]!r}")
    return rows


def _json_object(line: bytes) -> dict[str, Any] | None:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None
