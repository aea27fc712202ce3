"""--input_schema: the types of columns, from a file or from the rows themselves."""

import dataclasses
import itertools
import logging
import sys
from collections.abc import Iterator, Sequence

import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.models.signature import Signature
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.schema import AUTO, SAMPLED_ROWS
from sluice.pipelines.plan.json_schema import JsonSchema, doubt_lines, in_a_line, schema_of
from sluice.transforms.bigquery.schema import bigquery_to_arrow_schema, json_columns, read_schema_file
from sluice.transforms.core.beam_files import is_file_error, open_binary
from sluice.transforms.core.formats import JSONL
from sluice.transforms.decode.json_facts import RowFacts
from sluice.transforms.decode.json_file import read_lines
from sluice.transforms.files.find_files import match_all
from sluice.transforms.files.find_source import Source

_LOG = logging.getLogger(__name__)

# A sample is taken of so many files, from the first to the last.
_SAMPLED_FILES = 20
# At launch, of so many bytes: rows may hold images.
_SAMPLED_BYTES = 256 << 20


@dataclasses.dataclass(frozen=True)
class Declared:
    """What --input_schema says of columns.

    Attributes:
      types: by name.
      texts: columns of type JSON.
      left_out: names that no schema can have, of columns in the first rows.
      closed: columns of objects whose keys are those of the first rows.
    """

    types: dict[str, pa.DataType] = dataclasses.field(default_factory=dict)
    texts: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()


def read_input_schema(path: str) -> Declared:
    """Returns what the file of --input_schema says; nothing without a file.

    Raises:
      UsageError: the file cannot be read, or is not a schema.
    """
    if not path:
        return Declared()
    try:
        with open_binary(path) as file:
            schema = read_schema_file(file.read().decode())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--input_schema {path} cannot be read: {error}") from error
    return _declared(schema)


def _declared(schema: pa.Schema) -> Declared:
    return Declared(dict(zip(schema.names, schema.types, strict=True)), json_columns(schema))


def _holds_objects(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind.value_type if pa.types.is_list(kind) else kind))


def declare(options: BatchOptions, source: Source, signature: Signature, raw: bool) -> Declared:
    """Returns the types that a job's --input_schema gives; with "auto", those that the first rows show.

    The columns that the model takes have the model's types then.

    Args:
      raw: rows are carried as they are.

    Raises:
      UsageError: the schema cannot be read, or the rows are no JSON.
    """
    if options.input_schema != AUTO:
        return read_input_schema(options.input_schema)
    check_rows_are_json(source, f"--input_schema {AUTO}")
    if raw and signature.features != ():
        _LOG.info("--input_schema %s: the rows are carried as they are, and need none", AUTO)
        return Declared()
    if not source.names:  # which launch has warned of
        return Declared()
    found = infer_schema(source, SAMPLED_ROWS, _SAMPLED_BYTES)
    column_of = dict((*options.map, *options.read_paths))
    taken = {column_of.get(spec.name, spec.name) for spec in signature.columns}
    found = dataclasses.replace(
        found,
        fields=tuple(field for field in found.fields if field["name"] not in taken),
        doubts=tuple(doubt for doubt in found.doubts if doubt.column.partition(".")[0] not in taken),
    )
    _say(found)
    left_out = tuple(name for name in found.left_out if name in source.names)
    schema = bigquery_to_arrow_schema(found.fields)
    closed = tuple(field.name for field in schema if _holds_objects(field.type))
    return dataclasses.replace(_declared(schema), left_out=left_out, closed=closed)


def check_rows_are_json(source: Source, flag: str) -> None:
    """Checks that a schema can be made from rows.

    Raises:
      UsageError: they are no JSON.
    """
    if source.format != JSONL:
        raise UsageError(
            f"{flag}: {source.path or 'the input'} is {source.format}, and a schema is made from the rows of JSON "
            "only: columns of CSV are text, and those of Parquet, Avro and tables have types"
        )


def _say(found: JsonSchema) -> None:
    _LOG.info("--input_schema %s: %s", AUTO, in_a_line(found))
    for line in doubt_lines(found):
        _LOG.info("--input_schema %s is unsure of %s", AUTO, line)


def infer_schema(source: Source, most: int, most_bytes: int = sys.maxsize) -> JsonSchema:
    """Returns the schema of JSON rows.

    Args:
      most: how many rows are looked at, of several files if there are some; 0: all.
      most_bytes: with `most`, no further row is looked at after so many bytes.

    Raises:
      UsageError: there is no row.
    """
    found = RowFacts()
    for line in _rows(source, most, most_bytes):
        found.add(line)
    if not found.rows:
        raise UsageError(f"{source.path}: there is no row to make a schema from")
    return schema_of(found)


def _rows(source: Source, most: int, most_bytes: int) -> Iterator[bytes]:
    files = [file.path for file in match_all(source.patterns) if file.size_in_bytes]
    if not most:
        return itertools.chain.from_iterable(map(_lines, files))
    paths = _some(files, source.path, min(most, _SAMPLED_FILES))
    return itertools.chain.from_iterable(
        _first(_lines(path), most // len(paths) + (place < most % len(paths)), most_bytes // len(paths))
        for place, path in enumerate(paths)
    )


def _first(lines: Iterator[bytes], most: int, most_bytes: int) -> Iterator[bytes]:
    """Yields so many lines at most; none after so many bytes."""
    for line in itertools.islice(lines, most):
        yield line
        most_bytes -= len(line)
        if most_bytes <= 0:
            return


def _some(paths: Sequence[str], first: str, count: int) -> list[str]:
    """Returns so many paths at most: the first file with rows, and others spread over all."""
    spread = [paths[place * len(paths) // count] for place in range(count)] if paths else []
    return list(dict.fromkeys([first, *spread]))[:count]


def _lines(path: str) -> Iterator[bytes]:
    """Yields the rows of a file; of one that is damaged, those before the damage."""
    try:
        yield from read_lines(path)
    except Exception as error:
        if not is_file_error(error):
            raise
        _LOG.warning("%s cannot be read further (%s)", path, type(error).__name__)  # its text may quote rows
