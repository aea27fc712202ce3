"""Decides which columns a job reads and with which types, from those of the input and of the model."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import pyarrow as pa

from sluice.models.errors import SluiceError, UsageError
from sluice.models.signature import ColumnSpec, Signature
from sluice.models.tensors.column_types import type_fits
from sluice.pipelines.plan.carried_types import carried_types, exact_floats
from sluice.pipelines.plan.column_map import check_absent, check_map
from sluice.pipelines.plan.csv_texts import NumberForms, marker_advice, number_forms
from sluice.pipelines.plan.names import near_name, some_names
from sluice.pipelines.plan.read_paths import check_read_paths, content_inputs, path_types
from sluice.transforms.core.formats import BIGQUERY, CSV, FILES, JSONL, TFRECORD, TYPED_FORMATS
from sluice.transforms.decode.json_values import Json, form_of
from sluice.transforms.decode.spec import CsvOptions, InputSpec
from sluice.transforms.files.find_source import Source


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the user's flags say about the input's columns.

    Attributes:
      schema: types from --input_schema, by name.
      texts: columns that it says are JSON.
      columns: --columns: names of the input columns to carry into the output; None: all.
      exclude: names of input columns to leave out.
      defaults: --column_defaults: values for nulls, by column, as text.
      mapped: --map: (input of the model, column).
      raw: rows are carried as their own source text, so that passthrough columns need not be read.
      output: the format of the output files; "": a table, or a stream.
      read_paths: --read_paths: (input of the model, column of paths).
      closed: see InputSpec.closed.
    """

    schema: dict[str, pa.DataType]
    columns: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    defaults: tuple[tuple[str, str], ...] = ()
    raw: bool = False
    output: str = ""
    mapped: tuple[tuple[str, str], ...] = ()
    texts: tuple[str, ...] = ()
    read_paths: tuple[tuple[str, str], ...] = ()
    closed: tuple[str, ...] = ()

    def column_of(self, name: str) -> str:
        """Returns the column that an input of the model takes."""
        return dict(self.mapped).get(name, name)


@dataclasses.dataclass(frozen=True)
class InputPlan:
    """How a job reads its input.

    Attributes:
      spec: how its rows are decoded. `spec.columns` are all columns that are read.
      columns: --columns with their types: those to carry into the output, in order; none for raw rows.
      reads: (input, column of paths) of inputs that get what is in files.
    """

    spec: InputSpec
    columns: tuple[tuple[str, pa.DataType], ...]
    reads: tuple[tuple[str, str], ...] = ()


def plan_input(source: Source, signature: Signature, wanted: Wanted, csv: CsvOptions) -> InputPlan:
    """Returns how to read the input for this signature.

    Raises:
      UsageError: model and input do not fit; the text names the column, both types and the remedy.
    """
    wanted = _with_content(source, signature, wanted)
    examples, specs = _specs(source, signature)
    wanted = _as_the_model_takes(wanted, specs, source)
    _check_unknown_features(source, signature, wanted, examples)
    _check_names(source, signature, wanted)
    inputs = {spec.name for spec in signature.columns}
    known = dict.fromkeys((*source.names, *(wanted.schema if source.names else ())))
    check_map(wanted.mapped, inputs, known, bool(examples))
    others = {name for name, _ in (*wanted.mapped, *wanted.defaults)}
    check_read_paths(wanted.read_paths, signature, others, source, list(known), bool(examples))
    taken = _taken([spec for spec in specs if spec.name not in dict(wanted.read_paths)], source, wanted, csv)
    needed = dict(taken.values())
    needed |= path_types(wanted.read_paths, source, wanted.schema, needed)
    if signature.features == () and not examples:  # unknown features: every column with a type goes in
        typed = source.types if source.format in TYPED_FORMATS else wanted.schema
        needed |= {name: kind for name, kind in typed.items() if name not in needed}
    forms = NumberForms()
    if source.format == CSV:
        forms = number_forms(source, {name: kind for name, kind in needed.items() if name not in wanted.schema}, csv)
        needed |= dict.fromkeys(forms.booleans, pa.bool_())
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
    as_text = dict(models.fed)
    if csv.null_strings and source.format == CSV == wanted.output and not wanted.raw:
        as_text |= {name: kind for name, kind in needed.items() if pa.types.is_string(kind)}
        csv = dataclasses.replace(csv, null_strings=False)  # what is carried keeps its text
    spec = InputSpec(
        source.format,
        tuple(columns.items()),
        csv,
        examples,
        header=source.names if wanted.raw and source.format == CSV else (),
        fed=tuple((name, as_text[column]) for name, (column, _) in taken.items() if column in as_text),
        mapped=tuple((name, column) for name, (column, _) in taken.items() if name != column),
        decimals=tuple(name for name in forms.decimals if columns[name] == needed[name]),
        exact=exact,
        guessed=models.guessed,
        arrays=source.arrays,
        texts=tuple(name for name in wanted.texts if name in columns) if source.format == JSONL else (),
        closed=tuple(name for name in wanted.closed if name in columns),
    )
    return InputPlan(spec, tuple((name, columns[name]) for name in columns if name in carried), wanted.read_paths)


def _with_content(source: Source, signature: Signature, wanted: Wanted) -> Wanted:
    """Returns what is wanted; of files that are rows, with the inputs that get what is in them."""
    if source.format != FILES:
        return wanted
    chosen = (*(wanted.columns or ()), *wanted.exclude)
    reads, mapped = content_inputs(signature, wanted.mapped, dict(wanted.defaults), chosen)
    return dataclasses.replace(wanted, mapped=mapped, read_paths=reads)


def _specs(source: Source, signature: Signature) -> tuple[str, tuple[ColumnSpec, ...]]:
    """Returns the column of whole tf.Examples, if the model gets records as they are, and else the model's columns."""
    name = signature.inputs[0].name if signature.inputs else ""
    if signature.takes_examples and source.format == TFRECORD:
        return name, ()
    if signature.takes_examples and name in source.names and source.types:
        return "", (ColumnSpec(name, "string"),)
    return "", signature.columns


def _as_the_model_takes(wanted: Wanted, specs: Sequence[ColumnSpec], source: Source) -> Wanted:
    """Forgets that columns of the model are JSON, which is any value: they are read as the types that it takes."""
    columns = {wanted.column_of(spec.name) for spec in specs} | {column for _, column in wanted.read_paths}
    taken = columns.intersection(wanted.texts)
    if source.format != JSONL or not taken:
        return wanted
    schema = {name: kind for name, kind in wanted.schema.items() if name not in taken}
    texts = tuple(name for name in wanted.texts if name not in taken)
    return dataclasses.replace(wanted, schema=schema, texts=texts)


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


def _taken(
    specs: Sequence[ColumnSpec], source: Source, wanted: Wanted, csv: CsvOptions
) -> dict[str, tuple[str, pa.DataType]]:
    """Returns, by name of an input of the model, the column that it takes and the type that this is read as.

    An input without a column, which the model works without, is left out.
    """
    there = [spec for spec in specs if _is_there(spec, source, wanted)]
    absent = [spec for spec in specs if spec not in there]
    columns = {wanted.column_of(spec.name) for spec in there}
    missing = [spec for spec in absent if spec.required and spec.name not in dict(wanted.defaults)]
    check_absent(absent, missing, columns, source, functools.partial(_marker_advice, specs, source, wanted, csv))
    taken = {}
    kinds: dict[str, tuple[str, pa.DataType]] = {}
    for spec in there:
        column = wanted.column_of(spec.name)
        kind = _type_of(spec, column, source, wanted)
        other, found = kinds.setdefault(column, (spec.name, kind))
        if found != kind:
            raise UsageError(
                f"--map: inputs '{other}' and '{spec.name}' take column '{column}', one as {found} and the other as "
                f"{kind}; a column is read as one type: give the input the column twice, or export the model with one "
                "type for both"
            )
        taken[spec.name] = column, kind
    return taken


def _marker_advice(
    specs: Sequence[ColumnSpec], source: Source, wanted: Wanted, csv: CsvOptions, alike: Mapping[str, str]
) -> str:
    """Returns which null markers are in the columns that inputs would take, if those of other names were mapped.

    Otherwise a user would learn of them by a second error.

    Args:
      alike: by input, the column of another name.
    """
    if source.format != CSV:
        return ""
    columns = [(spec, alike.get(spec.name, wanted.column_of(spec.name))) for spec in specs]
    there = tuple((column, spec.arrow_type) for spec, column in columns if column in source.names)
    mapped = tuple((spec.name, column) for spec, column in columns if spec.name != column)
    try:
        advice = marker_advice(source, InputSpec(CSV, there, csv, mapped=mapped), [spec.name for spec in specs])
    except (OSError, SluiceError):  # of the rows: it is told once the names are right
        return ""
    return advice and f" - besides, {advice}"


def _is_there(spec: ColumnSpec, source: Source, wanted: Wanted) -> bool:
    """Whether the input has a column for an input of the model, as far as is known."""
    column = wanted.column_of(spec.name)
    if column in source.names or not source.names:
        return True
    declared = source.format == JSONL and column in wanted.schema
    return declared and spec.required and spec.name not in dict(wanted.defaults)


def _type_of(spec: ColumnSpec, column: str, source: Source, wanted: Wanted) -> pa.DataType:
    """Returns the type that the column of an input of the model is read as."""
    declared = wanted.schema.get(column)
    found = source.types.get(column) if source.format in TYPED_FORMATS else None
    kind = found or declared or spec.arrow_type
    if source.format == TFRECORD and column in source.types:
        _check_feature(spec, source.types[column], source)
    if not declared and source.format == JSONL:
        kind = _as_found(kind, [row[column] for row in source.sample if row.get(column) is not None])
    if not type_fits(kind, spec):
        where = "--input_schema says" if declared and not found else f"the input {source.path} has"
        raise UsageError(
            f"column '{column}': the model takes {spec}, and {where} {kind}. Convert the column"
            f"{', which --input_query can do,' if source.format == BIGQUERY else ','} or export a signature that takes "
            "this type"
        )
    return kind


def _check_feature(spec: ColumnSpec, kind: pa.DataType, source: Source) -> None:
    leaf = kind.value_type if pa.types.is_list(kind) else kind
    text = pa.types.is_binary(leaf)
    integer = pa.types.is_integer(leaf)
    wants_text, wants_integer = spec.dtype == "string", spec.dtype.startswith(("int", "uint", "bool"))
    if (text, integer) != (wants_text, wants_integer):
        named = "bytes" if text else "int64" if integer else "float"
        raise UsageError(
            f"column '{spec.name}': the model takes {spec}, and the tf.Examples in {source.path} hold a {named} feature"
        )


def _as_found(kind: pa.DataType, values: Sequence[Json]) -> pa.DataType:
    """Returns the type of a JSON column, by its values in the first rows, without nulls.

    It is binary instead of text where the first value is {"b64": ...}, and boolean for numbers if all values are.
    """
    if pa.types.is_list(kind):
        entries = [entry for value in values for entry in (value if isinstance(value, list) else [value])]
        return pa.list_(_as_found(kind.value_type, [entry for entry in entries if entry is not None]))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return pa.bool_() if values and all(isinstance(value, bool) for value in values) else kind
    first = next(iter(values), None)
    return pa.binary() if pa.types.is_string(kind) and pa.types.is_struct(form_of(first, kind)) else kind


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
        as_it_is = f"write {source.format}, which carries rows as they are"
        by_rows = ", or auto: as the first rows are" if source.format == JSONL else ""
        if wanted.output == source.format:
            as_it_is = "leave out --columns and --exclude_columns, so that rows are carried as they are"
        raise UsageError(
            f"the types of {some_names(untyped)} are not known: each {source.format} row has types of its own. Give "
            f"their types with --input_schema FILE (BigQuery's JSON schema form{by_rows}), leave them out with "
            f"--exclude_columns {','.join(untyped[:3])}, or {as_it_is}"
        )
    return carried
