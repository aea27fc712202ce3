"""What a job writes: the columns of the output, and the names of its files. At launch only."""

import dataclasses
import os
from collections.abc import Collection, Sequence

import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.models.signature import Signature
from sluice.pipelines.plan.input import InputPlan
from sluice.transforms.bigquery.schema import arrow_to_bigquery_schema
from sluice.transforms.core.beam_files import HIDDEN, check_name
from sluice.transforms.core.formats import CSV, FORMATS, OUTPUT_ENDINGS, RAW_FORMATS
from sluice.transforms.core.outputs import MODEL_COLUMN, VERSION_COLUMN, output_schema
from sluice.transforms.decode.spec import CsvOptions
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.encode.formats import check_output_spec
from sluice.transforms.files.find_source import Source
from sluice.transforms.files.write import Target


@dataclasses.dataclass(frozen=True)
class Destination:
    """An --output path taken apart."""

    prefix: str
    suffix: str
    format: str

    def target(self, job: str) -> Target:
        """Returns where the files go; `job` is this job's own name, for its temporary directory."""
        return Target(self.prefix, self.suffix, f"{_directory(self.prefix)}{HIDDEN}{job}")

    def failures(self, path: str, job: str) -> Target:
        """Returns where failures go: to `path`, or beside the predictions if it is empty."""
        if not path:
            return Target(f"{self.prefix}.failures", ".jsonl", f"{_directory(self.prefix)}{HIDDEN}{job}-failures")
        target = failures_target(path, job)
        if (target.prefix, target.suffix) == (self.prefix, self.suffix):
            raise UsageError(f"--failures {path} names the files of --output; give it a name of its own")
        return target


def failures_target(path: str, job: str) -> Target:
    """Returns where the files of --failures go; see `Destination.target`."""
    prefix, suffix = split_path("--failures", path)
    return Target(prefix, suffix or ".jsonl", f"{_directory(prefix)}{HIDDEN}{job}-failures")


def parse_output(path: str, format_: str) -> Destination:
    """Returns an --output path as a prefix, a suffix and a format; a directory gets the name "predictions".

    Raises:
      UsageError: the format is clear neither from the name nor from --output_format, or they contradict.
    """
    prefix, suffix = split_path("--output", path)
    named = OUTPUT_ENDINGS.get(suffix, "")
    if not format_ and not named:
        raise UsageError(
            f"--output {path}: the format is not clear from the name; end it in {', '.join(OUTPUT_ENDINGS)}, or give "
            f"--output_format {'|'.join(FORMATS)}"
        )
    if format_ and named and format_ != named:
        raise UsageError(f"--output {path} ends like {named}, and --output_format says {format_}")
    if prefix.endswith("/"):
        prefix += "predictions"
    return Destination(prefix, suffix or f".{format_}", format_ or named)


def _checked_path(flag: str, path: str) -> str:
    """Returns a path to write to; of a local one its normal form, so that names can be compared."""
    check_name(path, f"{flag} {path}")
    if "://" in path:
        return path
    return os.path.normpath(path) + ("/" if path.endswith("/") else "")


def split_path(flag: str, path: str) -> tuple[str, str]:
    """Returns a path to write to, in its normal form, as a prefix and the ending of a format, which may be "".

    Raises:
      UsageError: nothing can be written there.
    """
    path = _checked_path(flag, path)
    for suffix in sorted(OUTPUT_ENDINGS, key=len, reverse=True):
        if path.endswith(suffix):
            return path.removesuffix(suffix), suffix
    return path, ""


def _directory(prefix: str) -> str:
    return prefix[: prefix.rfind("/") + 1]


def is_raw(
    source: Source, format_: str, csv: CsvOptions, carry: tuple[str, ...] | None, exclude: Collection[str]
) -> bool:
    """Whether rows go into the output as they are: the same row format in and out, and no choice among columns.

    Lines of CSV are carried so if they are written as ours are, under one header in all files.
    """
    chosen = carry is not None or any(name in source.names for name in exclude)
    if source.format != format_ or format_ not in RAW_FORMATS or chosen:
        return False
    return format_ != CSV or (
        (csv.delimiter, csv.quote_char) == (",", '"') and source.one_header and source.names != ()
    )


def plan_output(
    source: Source, plan: InputPlan, signature: Signature, destination: Destination, *, raw: bool, prefix: str,
    model_columns: bool, flatten: bool,
) -> OutputSpec:  # fmt: skip
    """Returns what the output files hold: the carried columns, the signature's outputs, `_model` and `_version`.

    Raises:
      UsageError: two columns of one name, or a column that the format cannot hold.
    """
    present = {*source.names, *(name for name, _ in plan.spec.columns)} if raw else {name for name, _ in plan.carried}
    added = added_columns(signature, prefix, model_columns, present)
    carried = [] if raw else [pa.field(name, kind) for name, kind in plan.carried]
    raw_names = source.names if raw and source.format == CSV else ()
    spec = OutputSpec(destination.format, pa.schema(carried + added), raw, flatten, raw_names)
    check_output_spec(spec)
    return spec


def table_columns(plan: InputPlan, signature: Signature, prefix: str) -> pa.Schema:
    """Returns what a table holds, but for the time of writing: carried columns, outputs, `_model` and `_version`.

    Raises:
      UsageError: two columns of one name, or a column that a table cannot hold.
    """
    from sluice.transforms.bigquery.table import PREDICTED_AT

    carried = [pa.field(name, kind) for name, kind in plan.carried]
    added = added_columns(signature, prefix, True, {field.name for field in carried}, (PREDICTED_AT,))
    schema = pa.schema(carried + added)
    arrow_to_bigquery_schema(schema)
    return schema


def added_columns(
    signature: Signature, prefix: str, model_columns: bool, present: Collection[str], besides: Sequence[str] = ()
) -> list[pa.Field]:
    """Returns the columns that scoring adds to a row.

    Args:
      model_columns: whether `_model` and `_version` are among them.
      present: names of the input columns that the output holds.
      besides: names that the output has for columns which are not returned.

    Raises:
      UsageError: an input column has such a name.
    """
    outputs = list(output_schema(signature, prefix))
    ours = [pa.field(MODEL_COLUMN, pa.string()), pa.field(VERSION_COLUMN, pa.int64())] if model_columns else []
    own_names = [*(field.name for field in ours), *besides]
    taken = [field.name for field in outputs if field.name in present]
    _check_names(taken, [name for name in own_names if name in present])
    return outputs + ours


def _check_names(outputs: Sequence[str], ours: Sequence[str]) -> None:
    """
    Args:
      outputs: those of the model that an input column has the name of.
      ours: other columns, likewise, which --output_prefix does not rename.
    """
    leave_out = f"--exclude_columns {','.join([*outputs, *ours])} to leave the input's out"
    if outputs and ours:
        raise UsageError(
            f"input columns have the names of the model's outputs ({', '.join(outputs)}), and of what is added to them "
            f"({', '.join(ours)}): give {leave_out}; or --exclude_columns {','.join(ours)}, and --output_prefix TEXT "
            "to rename the outputs"
        )
    if outputs:
        raise UsageError(
            f"input columns have the names of the model's outputs ({', '.join(outputs)}): give --output_prefix TEXT to "
            f"rename the outputs, or {leave_out}"
        )
    if ours:
        raise UsageError(
            f"input columns have the names of what is added to the model's outputs ({', '.join(ours)}): give "
            f"{leave_out}"
        )
