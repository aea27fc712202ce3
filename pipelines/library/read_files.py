"""`ReadFiles`: files as RecordBatches."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import pyarrow as pa

from sluice.models.cache import ModelLike
from sluice.models.errors import UsageError
from sluice.models.signature import Signature
from sluice.pipelines.library.parts import types_of
from sluice.pipelines.library.signature import default_columns, signature_of
from sluice.pipelines.plan.input_columns import Wanted, plan_input
from sluice.pipelines.plan.model import launch_errors
from sluice.pipelines.plan.names import some_names
from sluice.transforms.core.formats import FORMATS, JSONL, TFRECORD
from sluice.transforms.decode.spec import CsvOptions, InputSpec
from sluice.transforms.files.find_source import Source, find_source
from sluice.transforms.files.read import ReadPatterns

Path = str | os.PathLike[str]


class ReadFiles(ReadPatterns):
    """Reads files into RecordBatches. The files are looked at when this is made, and checked against the model.

    Returns `Read(rows, failures, tally)`: RecordBatches, the `Failure`s of rows that cannot be read, and how many rows
    there were (ints, to be summed). Columns whose names begin with `_sluice_` say where a row came from; writers leave
    them out.

    A column has one type in all files, which does not hang on what its rows hold. Parquet and Avro have types. In CSV
    and JSON a column that the model takes has the type that it needs, and `schema` has those of others; of CSV all
    others are text.

    Args:
      paths: a path, a glob or a directory; or several of them, of one format.
      model: as for `Predict`; None: no column has the type that a model needs.
      schema: types of columns by name.
      format: "csv", "jsonl", "parquet", "avro" or "tfrecord"; "": by the names of the files.
      columns: the columns to read besides those of the model; None: all.
      delimiter: of CSV: what separates the fields; "": a comma, in .tsv a tab.
      column_names: of CSV whose files have no header line.
      null_values: of CSV: texts that stand for no value besides the empty field.
      limit: read so many rows, the first in the order of the files' names, by one worker; 0: all.

    Raises:
      UsageError: no file is named or matches, one cannot be read, or it and the model do not fit.
    """

    def __init__(
        self,
        paths: Path | Sequence[Path],
        model: ModelLike | None = None,
        *,
        schema: Mapping[str, pa.DataType] | pa.Schema | None = None,
        format: str = "",
        columns: Sequence[str] | None = None,
        delimiter: str = "",
        column_names: Sequence[str] = (),
        null_values: Sequence[str] = (),
        limit: int = 0,
    ) -> None:
        if format not in ("", *FORMATS):
            raise UsageError(f"format is {format!r}; give one of {', '.join(FORMATS)}")
        inputs = [os.fspath(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
        if not inputs:
            raise UsageError("paths names no file; give a path, a glob or a directory, or several")
        csv = CsvOptions(delimiter, column_names=tuple(column_names), null_values=tuple(null_values))
        with launch_errors():
            source = find_source(inputs, format, csv)
            wanted = Wanted(
                types_of(schema), None if columns is None else tuple(columns), defaults=default_columns(model)
            )
            spec = _plan(source, signature_of(model), wanted)
        super().__init__(source.patterns, spec, limit)


def _plan(source: Source, signature: Signature, wanted: Wanted) -> InputSpec:
    if source.format == TFRECORD:  # without a model the features have the types that the first records have
        wanted = dataclasses.replace(wanted, schema=source.types | wanted.schema)
    if source.format == JSONL:
        _check_typed(source, signature, wanted)
    return plan_input(source, signature, wanted, source.csv).spec


def _check_typed(source: Source, signature: Signature, wanted: Wanted) -> None:
    typed = {*wanted.schema, *(spec.name for spec in signature.columns)}
    names = source.names if wanted.columns is None else wanted.columns
    untyped = [name for name in names if name not in typed]
    if untyped:
        raise UsageError(
            f"{source.path}: the types of {some_names(untyped)} are not known: each JSON row has types of its own. "
            f"Give them, as schema={{'{untyped[0]}': pyarrow.string()}}, or name the columns to read, as columns=[...]"
        )
