"""What the summaries of batch and streaming jobs have in common: failures by kind, and the table for a terminal."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sluice.pipelines.progress.table import align
from sluice.transforms.core.metrics import ROWS_FAILED, ROWS_PREDICTED

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Failures = Mapping[str, Mapping[str, int]]
# A line of the table that has a number: label, number, note.
Count = tuple[str, str, str]


def failures_by_stage(counters: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Returns failures by stage and error type, from the counters called "rows_failed/STAGE/TYPE"."""
    failures_by: dict[str, dict[str, int]] = {}
    for name, count in sorted(counters.items()):
        if name.startswith(f"{ROWS_FAILED}/"):
            _, stage, error_type = name.split("/", 2)
            failures_by.setdefault(stage, {})[error_type] = count
    return failures_by


def rows_by_version(counters: Mapping[str, int]) -> dict[str, int]:
    """Returns rows by the version that answered, from the counters called "rows_predicted/VERSION"."""
    prefix = f"{ROWS_PREDICTED}/"
    return {name.removeprefix(prefix): rows for name, rows in sorted(counters.items()) if name.startswith(prefix)}


def version_counts(versions: Mapping[str, int]) -> list[Count]:
    """Returns a line for each version, if several have answered."""
    if len(versions) < 2:
        return []
    return [(f"  version {version}", f"{rows:,}", "rows") for version, rows in versions.items()]


def failure_counts(failures_by: Failures) -> list[Count]:
    """Returns a line for each kind of failure."""
    return [
        (f"  {stage} {error_type}", f"{count:,}", "")
        for stage, types in failures_by.items()
        for error_type, count in types.items()
    ]


def retry_counts(rpc_retries: int, throttled_seconds: int) -> list[Count]:
    """Returns the line on repeated calls, if there were any."""
    waited = f"; {throttled_seconds:,} s waited for the server" if throttled_seconds else ""
    return [("Retries", f"{rpc_retries:,}", f"calls repeated{waited}")] if rpc_retries else []


def render_table(counts: Sequence[Count], texts: Sequence[tuple[str, str]]) -> str:
    """Returns lines of numbers, aligned among themselves, and under them lines of text, as (label, text)."""
    numbers = align([(number, note) for _, number, note in counts], "><")
    rows = [(label, text) for (label, _, _), text in zip(counts, numbers, strict=True)]
    return "\n".join(align([*rows, *texts]))


def rounded(record: "DataclassInstance") -> dict[str, Any]:
    """Returns the fields of a dataclass by name, floats rounded to three digits."""
    fields = dataclasses.asdict(record)
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in fields.items()}
