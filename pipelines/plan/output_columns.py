"""Decides which columns the output holds."""

from collections.abc import Collection, Sequence

import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.models.signature import Signature
from sluice.pipelines.plan.input_columns import InputPlan
from sluice.transforms.bigquery.asked import BY_FLAGS
from sluice.transforms.bigquery.schema import arrow_to_bigquery_schema
from sluice.transforms.bigquery.table import PREDICTED_AT
from sluice.transforms.core.formats import CSV, RAW_FORMATS
from sluice.transforms.core.outputs import MODEL_COLUMN, VERSION_COLUMN, output_schema
from sluice.transforms.decode.spec import CsvOptions
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.encode.formats import check_output_spec
from sluice.transforms.files.find_source import Source


def is_raw(
    source: Source, format_: str, csv: CsvOptions, columns: tuple[str, ...] | None, exclude: Collection[str]
) -> bool:
    """Whether rows go into the output as they are: same row format in and out, no choice among columns.

    Lines of CSV do so only if they have our delimiter and quotes, and all files have one header.

    Args:
      columns: --columns.
      exclude: names to leave out.
    """
    chosen = columns is not None or any(name in source.names for name in exclude)
    if source.format != format_ or format_ not in RAW_FORMATS or chosen:
        return False
    return format_ != CSV or (
        (csv.delimiter, csv.quote_char) == (",", '"') and source.one_header and source.names != ()
    )


def plan_output(
    source: Source, plan: InputPlan, signature: Signature, format_: str, *, raw: bool, prefix: str,
    model_columns: bool, flatten: bool,
) -> OutputSpec:  # fmt: skip
    """Returns what the output files hold: the input's columns, the signature's outputs, `_model`, `_version`.

    Raises:
      UsageError: two columns of one name, or a column that the format cannot hold.
    """
    present = {*source.names, *(name for name, _ in plan.spec.columns)} if raw else {name for name, _ in plan.columns}
    added = added_columns(signature, prefix, model_columns, present)
    if not raw:
        check_model_columns(present)
    columns = [] if raw else [pa.field(name, kind) for name, kind in plan.columns]
    raw_names = source.names if raw and source.format == CSV else ()
    spec = OutputSpec(format_, pa.schema(columns + added), raw, flatten, raw_names)
    check_output_spec(spec)
    return spec


def table_columns(plan: InputPlan, signature: Signature, prefix: str) -> pa.Schema:
    """Returns what a table holds except the time of writing: the input's columns, outputs, `_model` and `_version`.

    Raises:
      UsageError: two columns of one name, or a column that a table cannot hold.
    """
    columns = [pa.field(name, kind) for name, kind in plan.columns]
    added = added_columns(signature, prefix, True, {field.name for field in columns}, (PREDICTED_AT,))
    schema = pa.schema(columns + added)
    arrow_to_bigquery_schema(schema, BY_FLAGS)
    return schema


def added_columns(
    signature: Signature, prefix: str, model_columns: bool, present: Collection[str], besides: Sequence[str] = ()
) -> list[pa.Field]:
    """Returns the columns that scoring adds to a row.

    Args:
      model_columns: add `_model` and `_version`.
      present: names of the input columns that the output holds.
      besides: names of further columns that the writer adds.

    Raises:
      UsageError: an input column has the name of an added one.
    """
    outputs = list(output_schema(signature, prefix))
    ours = [pa.field(MODEL_COLUMN, pa.string()), pa.field(VERSION_COLUMN, pa.int64())] if model_columns else []
    own_names = [*(field.name for field in ours), *besides]
    taken = [field.name for field in outputs if field.name in present]
    _check_names(taken, [name for name in own_names if name in present])
    return outputs + ours


def check_model_columns(carried: Collection[str]) -> None:
    """Refuses carried columns of the names that scored rows have even where the output has not.

    Raises:
      UsageError: there is one.
    """
    _check_names([], [name for name in (MODEL_COLUMN, VERSION_COLUMN) if name in carried])


def _check_names(outputs: Sequence[str], ours: Sequence[str]) -> None:
    """Refuses input columns that have the names of added columns.

    Args:
      outputs: names of the model's outputs that input columns have too.
      ours: names of other added columns, likewise; --output_prefix does not rename these.
    """
    leave_out = f"--exclude_columns {','.join([*outputs, *ours])} to leave the input's columns out"
    if outputs and ours:
        raise UsageError(
            f"input columns have the names of the model's outputs ({', '.join(outputs)}) and of columns that Sluice "
            f"adds ({', '.join(ours)}): give {leave_out}; or --exclude_columns {','.join(ours)}, and --output_prefix "
            "TEXT to rename the outputs"
        )
    if outputs:
        raise UsageError(
            f"input columns have the names of the model's outputs ({', '.join(outputs)}): give --output_prefix TEXT to "
            f"rename the outputs, or {leave_out}"
        )
    if ours:
        raise UsageError(
            f"input columns have the names of columns that Sluice adds ({', '.join(ours)}): give {leave_out}"
        )
