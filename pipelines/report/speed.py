"""The sections that show how fast a job was, and where its time went."""

from collections.abc import Iterator, Mapping

from sluice.pipelines.progress import phases as names
from sluice.pipelines.report.charts import Axis, bars, histogram, lines
from sluice.pipelines.report.data import Column, Data, shown
from sluice.pipelines.report.page import Section
from sluice.transforms.core import metrics
from sluice.transforms.core.observed import Timeline

GROUP = "Speed"
# Rows come in batches: in many short steps the rate would jump.
_MOST_STEPS = 40
_PHASES = {
    names.IMPORTS: "Imports",
    names.PLAN: "Launch checks",
    names.MODEL_LOAD: "Load of the model",
    names.PREPARE: "Rows become instances",
    names.SCORE: "The service scores",
    names.JOIN: "Answers are joined",
    names.RUN: "Run",
    names.COMMIT: "Commit",
}


def throughput_section(timeline: Timeline, what: str) -> Iterator[Section]:
    """Yields rows over time, unless there are none.

    Args:
      what: is counted, in the plural: predictions.
    """
    timeline = timeline.coarser(_MOST_STEPS)
    points = timeline.points()
    if not points:
        return
    rows = tuple((seconds, count / timeline.step_secs) for seconds, count in points)
    most = max(rate for _, rate in rows)
    data = Data((Column("seconds", "Seconds"), Column("per_second", f"{what.capitalize()} per second")), rows)
    chart = lines(
        data,
        Axis("seconds", "Seconds since the first one"),
        Axis("per_second", f"{what.capitalize()} per second"),
        points=len(rows) < 3,
        area=True,
    )
    text = f"In steps of {timeline.step_secs:g} s, of which the first and the last are not whole."
    title = f"{what.capitalize()} over time: up to {shown(round(most))} a second"
    yield Section(title, text, data, chart, alt=f"{title}. {text}", wide=True, group=GROUP)


def call_sections(spreads: Mapping[str, Mapping[int, int]]) -> Iterator[Section]:
    """Yields how many rows the calls of the model had, and how long they took; nothing where it is not known.

    Args:
      spreads: see metrics.spreads.
    """
    sizes = spreads.get(metrics.BATCH_SIZE)
    if sizes:
        title = f"Rows of a call: most often {_most_often(sizes)}"
        yield _spread_section(title, "Rows of a call of the model", "rows", sizes)
    msecs = spreads.get(metrics.PREDICT_LATENCY_MSEC)
    if msecs:
        title = f"Time of a call: most often {_most_often(msecs)} ms"
        yield _spread_section(title, "Milliseconds of a call", "msec", msecs)


def _most_often(spread: Mapping[int, int]) -> str:
    low = max(spread, key=lambda low: spread[low])
    last = metrics.spread_end(low) - 1
    return shown(low) if last == low else f"{shown(low)} to {shown(last)}"


def _spread_section(title: str, axis: str, unit: str, spread: Mapping[int, int]) -> Section:
    columns = Column(f"from_{unit}", "From"), Column(f"to_{unit}", "Below"), Column("calls", "Calls")
    data = Data(columns, tuple((low, metrics.spread_end(low), spread[low]) for low in sorted(spread)))
    text = f"{sum(spread.values()):,} calls."
    if len(spread) == 1:
        return Section(title, text, data, group=GROUP)
    log = min(spread) > 0 and max(spread) > 8 * min(spread)
    at_x = Axis("", f"{axis}, logarithmic scale" if log else axis, log)
    chart = histogram(data, f"from_{unit}", f"to_{unit}", Axis("calls", "Calls"), at_x)
    return Section(title, text, data, chart, alt=f"Histogram: {title}.", group=GROUP)


def phases_section(phases: Mapping[str, float | None]) -> Iterator[Section]:
    """Yields the seconds of a job's phases, unless none is known."""
    rows = tuple((_PHASES.get(name, name), round(secs, 3)) for name, secs in phases.items() if secs is not None)
    if not rows:
        return
    data = Data((Column("phase", "Phase"), Column("seconds", "Seconds")), rows)
    before = sum(phases.get(name) or 0.0 for name in (names.IMPORTS, names.PLAN))
    title = f"Before the run: {shown(round(before, 2))} s"
    text = "Phases overlap: a model is loaded beside the launch checks, and the commit is a part of the run."
    chart = bars(data, Axis("phase", "Phase"), Axis("seconds", "Seconds"))
    yield Section(title, text, data, chart, alt=f"Bars: {title}. {text}", group=GROUP)
