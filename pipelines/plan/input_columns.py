"""Decides which columns a job reads and with which types, from those of the input and of the model."""

import dataclasses
import difflib
import itertools
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.models.signature import ColumnSpec, Signature
from sluice.models.tensors.binding import bind
from sluice.models.tensors.column_types import type_fits
from sluice.models.tensors.columns import column_or_nulls
from sluice.models.wording import message
from sluice.pipelines.plan.carried_types import SAMPLE_BYTES, carried_types, exact_floats
from sluice.transforms.core.formats import BIGQUERY, CSV, JSONL, TFRECORD, TYPED_FORMATS
from sluice.transforms.decode.formats import read_range, split_file
from sluice.transforms.decode.json_values import Json, form_of
from sluice.transforms.decode.ranges import SAMPLE_ROWS
from sluice.transforms.decode.spec import CsvOptions, Decoded, InputSpec
from sluice.transforms.files.find_source import Source

_LOG = logging.getLogger(__name__)

# If none of so many rows fits the model, the command is wrong rather than the rows.
_ENOUGH_ROWS = 10


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the user's flags say about the input's columns.

    Attributes:
      schema: types from --input_schema, by name.
      columns: --columns: names of the input columns to carry into the output; None: all.
      exclude: names of input columns to leave out.
      defaults: --column_defaults: values for nulls, by column, as text.
      raw: rows are carried as their own source text, so that passthrough columns need not be read.
      output: the format of the output files; "": a table, or a stream.
    """

    schema: dict[str, pa.DataType]
    columns: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    defaults: tuple[tuple[str, str], ...] = ()
    raw: bool = False
    output: str = ""


@dataclasses.dataclass(frozen=True)
class InputPlan:
    """How a job reads its input.

    Attributes:
      spec: how its rows are decoded. `spec.columns` are all columns that are read.
      columns: --columns with their types: those to carry into the output, in order; none for raw rows.
    """

    spec: InputSpec
    columns: tuple[tuple[str, pa.DataType], ...]


def plan_input(source: Source, signature: Signature, wanted: Wanted, csv: CsvOptions) -> InputPlan:
    """Returns how to read the input for this signature.

    Raises:
      UsageError: model and input do not fit; the text names the column, both types and the remedy.
    """
    examples = signature.inputs[0].name if signature.takes_examples and source.format == TFRECORD else ""
    specs = {} if examples else {spec.name: spec for spec in signature.columns}
    if not examples and signature.takes_examples and signature.inputs[0].name in source.names and source.types:
        specs = {signature.inputs[0].name: ColumnSpec(signature.inputs[0].name, "string")}
    _check_unknown_features(source, signature, wanted, examples)
    _check_names(source, signature, wanted)
    needed = {name: _type_of(spec, source, wanted) for name, spec in specs.items() if _is_read(spec, source, wanted)}
    if signature.features == () and not examples:  # unknown features: every column with a type goes in
        typed = source.types if source.format in TYPED_FORMATS else wanted.schema
        needed |= {name: kind for name, kind in typed.items() if name not in needed}
    carried = {} if wanted.raw else _carried(source, needed, wanted)
    untyped = {name: kind for name, kind in needed.items() if name in carried and name not in wanted.schema}
    models = carried_types(source, untyped, wanted.output, csv)
    carried |= models.types
    order = source.names if source.format != JSONL else tuple(dict.fromkeys((*source.names, *carried, *needed)))
    columns = {name: (needed | carried)[name] for name in order if name in needed or name in carried}
    columns |= {name: kind for name, kind in (needed | carried).items() if name not in columns}
    exact = exact_floats(source, carried)
    if examples:
        columns[examples] = pa.binary()
    header = source.names if wanted.raw and source.format == CSV else ()
    spec = InputSpec(
        source.format, tuple(columns.items()), csv, examples, header=header,
        fed=models.fed, exact=exact, guessed=models.guessed,
    )  # fmt: skip
    return InputPlan(spec, tuple((name, columns[name]) for name in columns if name in carried))


def _check_unknown_features(source: Source, signature: Signature, wanted: Wanted, examples: str) -> None:
    if signature.features == () and not examples and not source.types and not wanted.schema:
        raise UsageError(
            f"signature '{signature.name}' takes serialized tf.Examples, and the features that it reads are not "
            "known: its graph does not show them, or its server shows no graph. Give --input_schema FILE with their "
            "types, or TFRecord input"
        )


def _check_names(source: Source, signature: Signature, wanted: Wanted) -> None:
    for flag, names in (("--columns", wanted.columns or ()), ("--exclude_columns", wanted.exclude)):
        known = {*source.names, *wanted.schema, *(() if flag == "--columns" else _outputs(signature))}
        for name in names:
            if name not in known and source.names:
                raise UsageError(f"{flag} {name}: the input has no such column{near_name(name, known)}")
    for name in wanted.schema if source.names and source.format in (CSV, *TYPED_FORMATS) else ():
        if name not in source.names:
            raise UsageError(
                f"--input_schema names '{name}': the input has no such column{near_name(name, source.names)}"
            )
    known = {spec.name for spec in signature.columns}
    for name, _ in wanted.defaults:
        if name not in known and known:
            raise UsageError(f"--column_defaults {name}: the model takes no such column{near_name(name, known)}")


def _outputs(signature: Signature) -> set[str]:
    return {spec.name for spec in signature.outputs}


def _is_read(spec: ColumnSpec, source: Source, wanted: Wanted) -> bool:
    """Whether a column of the model is read; False where it is missing and the model works without it."""
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
        f"{near_name(spec.name, source.names)}; it has {some_names(source.names)}.{_csv_hint(source)} Rename "
        f"it in the input, or give a value for it with --column_defaults {spec.name}=VALUE"
    )


def _type_of(spec: ColumnSpec, source: Source, wanted: Wanted) -> pa.DataType:
    """Returns the type that a column of the model is read as."""
    declared = wanted.schema.get(spec.name)
    found = source.types.get(spec.name) if source.format in TYPED_FORMATS else None
    kind = found or declared or spec.arrow_type
    if source.format == TFRECORD and spec.name in source.types:
        _check_feature(spec, source)
    if not declared and source.format == JSONL:
        kind = _as_found(kind, next((row[spec.name] for row in source.sample if row.get(spec.name) is not None), None))
    if not type_fits(kind, spec):
        where = "--input_schema says" if declared and not found else f"the input {source.path} has"
        raise UsageError(
            f"column '{spec.name}': the model takes {spec}, and {where} {kind}. Convert the column"
            f"{', which --input_query can do,' if source.format == BIGQUERY else ','} or export a signature that takes "
            "this type"
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


def _as_found(kind: pa.DataType, value: Json) -> pa.DataType:
    """Returns the type of a JSON column: binary instead of text where a value is {"b64": ...}."""
    if pa.types.is_list(kind):
        return pa.list_(_as_found(kind.value_type, value[0] if isinstance(value, list) and value else value))
    return pa.binary() if pa.types.is_string(kind) and pa.types.is_struct(form_of(value, kind)) else kind


def _carried(source: Source, needed: dict[str, pa.DataType], wanted: Wanted) -> dict[str, pa.DataType]:
    """Returns the input columns that go into the output, with their types."""
    names = [
        name
        for name in dict.fromkeys((*source.names, *(needed if not source.names else ()), *wanted.schema))
        if (wanted.columns is None or name in wanted.columns) and name not in wanted.exclude
    ]
    carried, untyped = {}, []
    for name in names:
        kind = needed.get(name) or wanted.schema.get(name)
        if kind is None and source.format in TYPED_FORMATS:
            kind = source.types[name]
        if kind is None and source.format == CSV:
            kind = pa.string()
        if kind is None:
            untyped.append(name)
        else:
            carried[name] = kind
    if untyped:
        raise UsageError(
            f"the types of {some_names(untyped)} are not known: each {source.format} row has types of its own. Give "
            "their types with --input_schema FILE (BigQuery's JSON schema form), leave them out with --exclude_columns "
            f"{','.join(untyped[:3])}, or write {source.format}, which carries rows as they are"
        )
    return carried


def check_sample(source: Source, plan: InputPlan, signature: Signature, defaults: dict[str, Any]) -> None:
    """Reads and binds the first rows of a file as the job will.

    Raises:
      UsageError: none of them fits, so the command is at fault rather than the rows.
    """
    parts = split_file(source.path, source.size, plan.spec) if source.names else []
    if not parts:
        return
    part = parts[0]
    if part.stop is not None and source.format not in TYPED_FORMATS:
        part = dataclasses.replace(part, stop=min(part.stop, part.start + SAMPLE_BYTES))
    for decoded, _ in itertools.islice(read_range(part, plan.spec), 1):
        check_rows(decoded, source, signature, defaults)


def check_rows(first: Decoded, source: Source, signature: Signature, defaults: dict[str, Any]) -> None:
    """Binds the first rows of the input as the job will; raises as `check_sample` does.

    Rows that lack a value prove nothing of the rows after them: they are warned of, if no row fits.
    """
    reasons = [failure.error_message for failure in first.failures]
    lacking: list[str] = []
    samples = (b.slice(at, SAMPLE_ROWS) for b in first.batches for at in range(0, b.num_rows, SAMPLE_ROWS))
    for sample in samples:
        errors = bind(sample, signature, defaults).errors
        if len(errors) < sample.num_rows:
            return
        nulls = _null_rows(sample, signature, defaults)
        lacking += [reason for row, reason in errors.items() if nulls[row]]
        reasons += [reason for row, reason in errors.items() if not nulls[row]]
        if len(reasons) >= _ENOUGH_ROWS:
            break
    if len(reasons) >= _ENOUGH_ROWS:
        rows = len(reasons) + len(lacking)
        text = "none of the first {rows} rows of {path} fits the model. The first: {}"
        raise UsageError(message(text, reasons[0], rows=rows, path=source.path))
    if lacking:
        _LOG.warning("None of the first %d rows of %s can be scored: %s", len(lacking), source.path, lacking[0])


def _null_rows(batch: pa.RecordBatch, signature: Signature, defaults: dict[str, Any]) -> np.ndarray:
    """Returns bool [rows]: which have a null in a column that the model needs."""
    nulls = np.zeros(batch.num_rows, bool)
    for spec in signature.columns:
        if spec.required and spec.name not in defaults and spec.name in batch.schema.names:
            nulls |= column_or_nulls(batch, spec.name).is_null().to_numpy(zero_copy_only=False)
    return nulls


def near_name(name: str, known: Iterable[str]) -> str:
    """Returns " (did you mean 'x'?)" for the end of an error; "" if no known name is similar."""
    same = [other for other in known if other.lower() == name.lower()]
    near = same or difflib.get_close_matches(name, list(known), 1, 0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""


def _csv_hint(source: Source) -> str:
    """Returns the likely mistake where a header does not look like one: another delimiter in it, or values."""
    if source.format == CSV and len(source.names) == 1 and any(mark in source.names[0] for mark in "\t;|"):
        return " Does the file use another delimiter? Give it with --csv_delimiter."
    if source.format == CSV and any(name[:1].isdigit() for name in source.names):
        return " Does the file lack a header line? Give the names with --column_names."
    return ""


def some_names(names: Sequence[str], most: int = 12) -> str:
    """Returns names as an error lists them."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or "none"
