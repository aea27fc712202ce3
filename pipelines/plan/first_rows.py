"""Reads and binds the first rows of the input before the job starts, as the job will."""

import dataclasses
import itertools
import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.models.reserved import FED
from sluice.models.signature import ColumnSpec, Signature
from sluice.models.tensors.binding import bind
from sluice.models.tensors.columns import column_or_nulls
from sluice.models.wording import message
from sluice.pipelines.plan.csv_texts import SAMPLE_BYTES, marker_advice
from sluice.pipelines.plan.input_columns import InputPlan
from sluice.pipelines.plan.names import defaults_flag
from sluice.transforms.core.file_contents import FileInputs, load_files
from sluice.transforms.core.formats import CSV, TYPED_FORMATS
from sluice.transforms.decode.formats import read_range, split_file
from sluice.transforms.decode.ranges import SAMPLE_ROWS
from sluice.transforms.decode.spec import Decoded
from sluice.transforms.files.find_source import Source

_LOG = logging.getLogger(__name__)

# If none of so many rows fits the model, the command is wrong rather than the rows.
_ENOUGH_ROWS = 10
NO_ROWS = "There was no first row to look at."


def check_sample(
    source: Source,
    plan: InputPlan,
    signature: Signature,
    defaults: dict[str, Any],
    contents: FileInputs | None = None,
) -> str:
    """Reads and binds the first rows of a file as the job will. Warns of texts in CSV that seem to stand for no value,
    and of columns without values.

    Args:
      contents: inputs that get what is in files.

    Returns:
      What was found, in a sentence.

    Raises:
      UsageError: none of them fits, so the command is at fault rather than the rows.
    """
    parts = split_file(source.path, source.size, plan.spec) if source.names else []
    if not parts:
        return NO_ROWS
    part = parts[0]
    if part.stop is not None and source.format not in TYPED_FORMATS:
        part = dataclasses.replace(part, stop=min(part.stop, part.start + SAMPLE_BYTES))
    for decoded, _ in itertools.islice(read_range(part, plan.spec), 1):
        inputs = [spec.name for spec in signature.columns]
        advice = marker_advice(source, plan.spec, inputs) if decoded.failures and source.format == CSV else ""
        found = check_rows(decoded, source, signature, defaults, advice, contents)
        if advice:
            _LOG.warning("%d of the first rows of %s do not parse: %s", len(decoded.failures), source.path, advice)
        return found
    return NO_ROWS


def check_rows(
    first: Decoded,
    source: Source,
    signature: Signature,
    defaults: dict[str, Any],
    advice: str = "",
    contents: FileInputs | None = None,
) -> str:
    """Binds the first rows of the input as the job will; returns and raises as `check_sample` does.

    Rows that lack a value prove nothing of the rows after them: they are warned of, if no row fits.

    Args:
      advice: what may be done about rows that do not parse.
      contents: inputs that get what is in files: those of a few rows are read.
    """
    first = _with_files(first, contents) if contents else first
    if empty := _empty_columns(first, source, signature, defaults):
        _LOG.warning("%s", empty)
    reasons = [failure.error_message for failure in first.failures]
    lacking: list[str] = []
    samples = (b.slice(at, SAMPLE_ROWS) for b in first.batches for at in range(0, b.num_rows, SAMPLE_ROWS))
    for sample in samples:
        errors = bind(sample, signature, defaults).errors
        if len(errors) < sample.num_rows:
            bad = len(reasons) + len(lacking) + len(errors)
            return f"Some of the first rows fit, and {bad} do not." if bad else "The first rows fit."
        nulls = _null_rows(sample, _needed(signature, defaults))
        lacking += [reason for row, reason in errors.items() if nulls[row]]
        reasons += [reason for row, reason in errors.items() if not nulls[row]]
        if len(reasons) >= _ENOUGH_ROWS:
            break
    if len(reasons) >= _ENOUGH_ROWS or (reasons and advice):
        rows = len(reasons) + len(lacking)
        text = "none of the first {rows} rows of {path} fits the model. The first: {}{advice}"
        advice = advice and f". In these rows {advice}"
        raise UsageError(message(text, reasons[0], rows=rows, path=source.path, advice=advice))
    if lacking:
        _LOG.warning("None of the first %d rows of %s can be scored: %s", len(lacking), source.path, lacking[0])
    bad = len(reasons) + len(lacking)
    return f"None of the first rows fits: {bad} were looked at." if bad else NO_ROWS


def _empty_columns(first: Decoded, source: Source, signature: Signature, defaults: dict[str, Any]) -> str:
    """Returns which columns have no value in some of the rows, and the flag that gives one; "": none.

    A row's failure names one column only: who mends a file by what fails would run the job once for each.
    """
    singles = [spec for spec in _needed(signature, defaults) if spec.is_scalar]
    names = [spec.name for spec in singles if any(_nulls(batch, spec).any() for batch in first.batches)]
    lacking = sum(int(_null_rows(batch, singles).sum()) for batch in first.batches)
    if not names:
        return ""
    where = f"{len(names)} columns" if len(names) > 1 else f"column '{names[0]}'"
    return (
        f"{lacking} of the first {first.rows} rows of {source.path} lack a value in {where}, and such rows fail; "
        f"{defaults_flag(names)} gives them one"
    )


def _with_files(first: Decoded, contents: FileInputs) -> Decoded:
    """Returns some of the first rows with what is in their files, and the failures of the others."""
    loaded = Decoded(failures=list(first.failures))
    for rows, failures in load_files(first.batches[0].slice(0, _ENOUGH_ROWS), contents) if first.batches else ():
        loaded.batches += [] if rows is None else [rows]
        loaded.failures += failures
    return loaded


def _null_rows(batch: pa.RecordBatch, specs: Iterable[ColumnSpec]) -> np.ndarray:
    """Returns bool [rows]: which have a null in one of these columns."""
    nulls = np.zeros(batch.num_rows, bool)
    for spec in specs:
        nulls |= _nulls(batch, spec)
    return nulls


def _needed(signature: Signature, defaults: dict[str, Any]) -> list[ColumnSpec]:
    return [spec for spec in signature.columns if spec.required and spec.name not in defaults]


def _nulls(batch: pa.RecordBatch, spec: ColumnSpec) -> np.ndarray:
    """Returns bool [rows]: where a column has no value; of a column that is not there, nowhere."""
    if not {spec.name, FED + spec.name} & {*batch.schema.names}:
        return np.zeros(batch.num_rows, bool)
    nulls: np.ndarray = column_or_nulls(batch, spec.name).is_null().to_numpy(zero_copy_only=False)
    return nulls
