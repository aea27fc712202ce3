"""The sections that show why rows have failed."""

from collections.abc import Iterator, Mapping, Sequence

from sluice.pipelines.progress.remedies import remedy_for
from sluice.pipelines.report.charts import Axis, bars
from sluice.pipelines.report.data import Column, Data
from sluice.pipelines.report.page import Section
from sluice.transforms.core.reasons import Group

GROUP = "Failures"
# Bars of a chart; the table has all.
_MOST_BARS = 10
_MOST_LABEL = 60


def failure_sections(failures_by: Mapping[str, Mapping[str, int]], reasons: Sequence[Group]) -> Iterator[Section]:
    """Yields failures by reason, or by stage and type where the reasons are not known; nothing without failures."""
    if reasons:
        yield _reasons_section(reasons)
    kinds = tuple((stage, kind, count) for stage, types in failures_by.items() for kind, count in types.items())
    if kinds:
        columns = Column("stage", "Stage"), Column("error_type", "Type"), Column("rows", "Rows")
        data = Data(columns, kinds)
        yield Section(f"{sum(each[2] for each in kinds):,} rows failed", "By stage and type.", data, group=GROUP)


def _reasons_section(reasons: Sequence[Group]) -> Section:
    columns = (
        Column("reason", "Reason"),
        Column("rows", "Rows"),
        Column("stage", "Stage"),
        Column("error_type", "Type"),
        Column("example", "Example"),
        Column("origin", "Its row"),
        Column("remedy", "What may help"),
    )
    rows = tuple(
        (each.reason, each.count, each.stage, each.error_type, each.example, each.origin, str(remedy_for(each) or ""))
        for each in reasons
    )
    largest = reasons[0]
    title = f"Most frequent: {_short(largest.reason)}"
    text = f"{largest.count:,} rows, at stage {largest.stage}. A reason stands for failures that differ in values only."
    chart = bars(_drawn(reasons), Axis("reason", "Reason"), Axis("rows", "Rows"))
    return Section(title, text, Data(columns, rows), chart, f"Bars: rows by reason. {title}.", True, True, GROUP)


def _drawn(reasons: Sequence[Group]) -> Data:
    """Returns what the bars show: reasons that are cut alike are told apart by their numbers."""
    rows = tuple((f"{place}. {_short(each.reason)}", each.count) for place, each in enumerate(reasons[:_MOST_BARS], 1))
    return Data((Column("reason", "Reason"), Column("rows", "Rows")), rows)


def _short(text: str) -> str:
    return text if len(text) <= _MOST_LABEL else f"{text[: _MOST_LABEL - 1]}…"
