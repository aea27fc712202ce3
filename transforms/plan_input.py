"""What a job reads: the columns of the files, brought together with those that the model takes. At launch only."""

import dataclasses
import difflib
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from models.binding import bind
from models.columns import type_fits
from models.errors import CorruptFile, UsageError
from models.signature import ColumnSpec, Signature
from models.tfrecord import read_records
from transforms.beam_files import match_files, open_binary, open_text
from transforms.decode import AVRO, CSV, JSONL, PARQUET, TFRECORD, CsvOptions, InputSpec
from transforms.decode_avro import arrow_schema, read_header
from transforms.decode_examples import example_schema
from transforms.file_ranges import csv_names, read_range, split_file
from transforms.json_values import form_of, is_text
from transforms.lines import read_blocks

# How many rows of the first file are looked at before a job starts.
SAMPLE_ROWS = 100
# So many CSV files have their headers compared before a job starts.
_HEADERS = 20
# A column that fits in none of so many rows is taken for a mistake in the command, not for bad rows.
_ENOUGH_ROWS = 10

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
      path: the first file that is not empty; the first if all are.
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
    first = next((file for file in files if file.size_in_bytes), files[0])
    size = sum(file.size_in_bytes for file in files)
    try:
        names, types, sample = _look(first.path, format_, csv) if first.size_in_bytes else ((), {}, ())
        one_header = format_ != CSV or all(
            csv_names(file.path, csv) == names for file in files[:_HEADERS] if file.size_in_bytes
        )
    except (CorruptFile, OSError, EOFError, ValueError) as error:
        raise UsageError(f"--input {first.path} cannot be read as {format_}: {error}") from error
    return Source(format_, first.path, len(files), size, names, types, sample, one_header)


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


def _look(path: str, format_: str, csv: CsvOptions) -> _Look:
    if format_ == CSV:
        return csv_names(path, csv), {}, ()
    if format_ == JSONL:
        sample = tuple(_json_rows(path))
        return tuple(dict.fromkeys(name for row in sample for name in row)), {}, sample
    if format_ == PARQUET:
        with open_binary(path) as file:
            schema = pq.ParquetFile(pa.PythonFile(file, mode="r")).schema_arrow
    elif format_ == AVRO:
        with open_binary(path) as file:
            schema = arrow_schema(read_header(file).schema)
    else:
        with open_text(path) as file:
            records = [record for _, record in itertools.islice(read_records(file), SAMPLE_ROWS)]
        schema = example_schema(records)
    return tuple(schema.names), dict(zip(schema.names, schema.types, strict=True)), ()


def _json_rows(path: str) -> Iterable[dict[str, Any]]:
    with open_text(path) as file:
        block = next(read_blocks(file), None)
    for number in range(min(len(block), SAMPLE_ROWS) if block else 0):
        try:
            row = orjson.loads(block.line(number)) if block else None
        except orjson.JSONDecodeError:
            continue
        if isinstance(row, dict):
            yield row


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the user says of the input's columns.

    Attributes:
      schema: types from --input_schema, by name.
      carry: names of the input columns to carry into the output; None: all.
      exclude: names to leave out.
      defaults: what stands for a null, by column, as text.
      raw: rows are carried as their own source text, so that passthrough columns need not be read.
    """

    schema: dict[str, pa.DataType]
    carry: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    defaults: tuple[tuple[str, str], ...] = ()
    raw: bool = False


@dataclasses.dataclass(frozen=True)
class InputPlan:
    """How a job reads its input.

    Attributes:
      carried: the columns that go into the output, in order; of raw rows, none.
    """

    spec: InputSpec
    carried: tuple[tuple[str, pa.DataType], ...]


def plan_input(source: Source, signature: Signature, wanted: Wanted, csv: CsvOptions) -> InputPlan:
    """Returns how to read the input for this signature.

    Raises:
      UsageError: the model and the input do not fit; the text names the column, both types and the remedy.
    """
    examples = signature.inputs[0].name if signature.takes_examples and source.format == TFRECORD else ""
    specs = {} if examples else {spec.name: spec for spec in signature.columns}
    if not examples and signature.takes_examples and signature.inputs[0].name in source.names and source.types:
        specs = {signature.inputs[0].name: ColumnSpec(signature.inputs[0].name, "string")}
    _check_unknown_features(source, signature, wanted, examples)
    _check_names(source, signature, wanted)
    needed = {name: _type_of(spec, source, wanted) for name, spec in specs.items() if _is_there(spec, source, wanted)}
    carried = {} if wanted.raw else _carried(source, needed, wanted)
    order = source.names if source.format != JSONL else tuple(dict.fromkeys((*source.names, *carried, *needed)))
    columns = {name: (needed | carried)[name] for name in order if name in needed or name in carried}
    columns |= {name: kind for name, kind in (needed | carried).items() if name not in columns}
    if examples:
        columns[examples] = pa.binary()
    header = source.names if wanted.raw and source.format == CSV else ()
    spec = InputSpec(source.format, tuple(columns.items()), csv, examples, header=header)
    return InputPlan(spec, tuple((name, columns[name]) for name in columns if name in carried))


def _check_unknown_features(source: Source, signature: Signature, wanted: Wanted, examples: str) -> None:
    if signature.features == () and not examples and not source.types and not wanted.schema:
        raise UsageError(
            f"signature '{signature.name}' takes serialized tf.Examples, and the features that it reads are not to be "
            f"found in its graph: give --input_schema FILE with their types, or TFRecord input"
        )


def _check_names(source: Source, signature: Signature, wanted: Wanted) -> None:
    for flag, names in (("--columns", wanted.carry or ()), ("--exclude_columns", wanted.exclude)):
        known = {*source.names, *wanted.schema, *(() if flag == "--columns" else _outputs(signature))}
        for name in names:
            if name not in known and source.names:
                raise UsageError(f"{flag} {name}: the input has no such column{_near(name, known)}")
    known = {spec.name for spec in signature.columns}
    for name, _ in wanted.defaults:
        if name not in known and known:
            raise UsageError(f"--column_defaults {name}: the model takes no such column{_near(name, known)}")


def _outputs(signature: Signature) -> set[str]:
    return {spec.name for spec in signature.outputs}


def _is_there(spec: ColumnSpec, source: Source, wanted: Wanted) -> bool:
    """Whether the column is read; False where it is missing and the model does without it."""
    if spec.name in source.names or not source.names:
        return True
    if not spec.required:
        return False
    if spec.name in dict(wanted.defaults):
        return False
    if source.format == JSONL and spec.name in wanted.schema:
        return True
    raise UsageError(
        f"the model takes column '{spec.name}' ({spec}), and the input {source.path} has no such column"
        f"{_near(spec.name, source.names)}; it has {_some(source.names)}. Rename it in the input, or give what stands "
        f"for it with --column_defaults {spec.name}=VALUE"
    )


def _type_of(spec: ColumnSpec, source: Source, wanted: Wanted) -> pa.DataType:
    """The type that a column of the model is read as."""
    declared = wanted.schema.get(spec.name)
    found = source.types.get(spec.name) if source.format in (PARQUET, AVRO) else None
    kind = found or declared or spec.arrow_type
    if source.format == TFRECORD and spec.name in source.types:
        _check_feature(spec, source)
    if not declared and source.format == JSONL and is_text(kind) and _is_base64(spec.name, source):
        kind = pa.binary()
    if not type_fits(kind, spec):
        where = "--input_schema says" if declared and not found else f"the input {source.path} has"
        raise UsageError(
            f"column '{spec.name}': the model takes {spec}, and {where} {kind}. Convert the column, or export a "
            "signature that takes this type"
        )
    return kind


def _check_feature(spec: ColumnSpec, source: Source) -> None:
    kind = source.types[spec.name]
    leaf = kind.value_type if pa.types.is_list(kind) else kind
    text = pa.types.is_binary(leaf)
    integer = pa.types.is_integer(leaf)
    wants_text, wants_integer = spec.dtype == "string", spec.dtype.startswith(("int", "uint", "bool"))
    if (text, integer) != (wants_text, wants_integer):
        named = "bytes" if text else "int64" if integer else "float"
        raise UsageError(
            f"column '{spec.name}': the model takes {spec}, and the tf.Examples in {source.path} hold a {named} feature"
        )


def _is_base64(name: str, source: Source) -> bool:
    values = (row[name] for row in source.sample if row.get(name) is not None)
    return pa.types.is_struct(form_of(next(values, None), pa.string()))


def _carried(source: Source, needed: dict[str, pa.DataType], wanted: Wanted) -> dict[str, pa.DataType]:
    """The columns that go into the output, with their types."""
    names = [
        name
        for name in dict.fromkeys((*source.names, *(needed if not source.names else ()), *wanted.schema))
        if (wanted.carry is None or name in wanted.carry) and name not in wanted.exclude
    ]
    carried, untyped = {}, []
    for name in names:
        kind = needed.get(name) or wanted.schema.get(name)
        if kind is None and source.format in (PARQUET, AVRO):
            kind = source.types[name]
        if kind is None and source.format == CSV:
            kind = pa.string()
        if kind is None:
            untyped.append(name)
        else:
            carried[name] = kind
    if untyped:
        raise UsageError(
            f"the types of {_some(untyped)} are not known: {source.format} rows are typed one by one. Give "
            "--input_schema FILE (BigQuery's JSON schema form) with them, leave them out with --exclude_columns "
            f"{','.join(untyped[:3])}, or write {source.format}, which carries rows as they are"
        )
    return carried


def check_sample(source: Source, plan: InputPlan, signature: Signature, defaults: dict[str, Any]) -> None:
    """Reads and binds the first rows as the job will.

    Raises:
      UsageError: not one of them fits: the command is at fault rather than the rows.
    """
    parts = split_file(source.path, source.size, plan.spec) if source.names else []
    if not parts:
        return
    rows = 0
    reasons: list[str] = []
    part = dataclasses.replace(parts[0], stop=min(parts[0].stop or 0, 1 << 20) or None)
    if source.format in (PARQUET, AVRO):
        part = parts[0]
    for decoded, _ in itertools.islice(read_range(part, plan.spec), 1):
        for batch in decoded.batches:
            sample = batch.slice(0, SAMPLE_ROWS)
            bound = bind(sample, signature, defaults)
            rows += sample.num_rows
            reasons += bound.errors.values()
        rows += len(decoded.failures)
        reasons += [failure.error_message for failure in decoded.failures]
    if rows >= _ENOUGH_ROWS and len(reasons) == rows:
        raise UsageError(f"none of the first {rows} rows of {source.path} fits the model. The first: {reasons[0]}")


def _near(name: str, known: Iterable[str]) -> str:
    same = [other for other in known if other.lower() == name.lower()]
    near = same or difflib.get_close_matches(name, list(known), 1, 0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""


def _some(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or "none"
