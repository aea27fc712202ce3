"""What the reports of all jobs have in common: their sections, and how they are written."""

import dataclasses
import datetime
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from sluice.pipelines.dataflow.template import to_text
from sluice.pipelines.logs import tell
from sluice.pipelines.options.job import JobFlags
from sluice.pipelines.outcome import reason
from sluice.pipelines.progress.remedies import with_inputs
from sluice.pipelines.report.charts import Axis, bars
from sluice.pipelines.report.data import Column, Data, shown
from sluice.pipelines.report.distributions import distribution_sections
from sluice.pipelines.report.failures import failure_sections
from sluice.pipelines.report.machine import machine_section
from sluice.pipelines.report.page import Figure, Page, Section, render_page
from sluice.pipelines.report.speed import call_sections, phases_section, throughput_section
from sluice.transforms.core import metrics
from sluice.transforms.core.beam_files import write_text
from sluice.transforms.core.failures import FULL
from sluice.transforms.core.observe import Watched, collect
from sluice.transforms.core.observed import Record
from sluice.transforms.core.reasons import Group

_LOG = logging.getLogger(__name__)

JOB = "Job"
_ELSEWHERE = (
    "The rows of this job passed through other processes than the one that wrote this page, which does not know their "
    "distributions, nor the throughput over time."
)
_MOST_REASONS = 10
_OPTION_COLUMNS = (Column("flag", "Flag"), Column("value", "Value"))


class JobSummary(Protocol):
    """What the summaries of all jobs tell."""

    @property
    def predictions(self) -> int: ...
    @property
    def model(self) -> str: ...
    @property
    def failures_by(self) -> Mapping[str, Mapping[str, int]]: ...
    @property
    def phases(self) -> Mapping[str, float | None]: ...
    @property
    def versions(self) -> Mapping[str, int]: ...
    @property
    def reasons(self) -> Sequence[Group]: ...
    @property
    def beam_options(self) -> Mapping[str, object]: ...


@dataclasses.dataclass(frozen=True)
class Seen:
    """What is known of a job beside its summary.

    Attributes:
      record: what has been seen of its rows.
      spreads: see metrics.spreads.
      reasons: of failures, the most frequent first.
      error: why the job has failed; "": it has not.
      now: when the report is made.
    """

    record: Record
    spreads: Mapping[str, Mapping[int, int]]
    reasons: Sequence[Group] = ()
    error: str = ""
    now: datetime.datetime = dataclasses.field(default_factory=lambda: datetime.datetime.now(datetime.UTC))


def write_report(
    options: JobFlags,
    summary: JobSummary,
    watched: Watched | None,
    error: BaseException | None,
    make: Callable[[Seen], Page],
) -> None:
    """Writes the report of a job that has ended, if one is wanted.

    What goes wrong is logged only: the outcome of the job is known by now.
    """
    if not options.report_file:
        return
    private = options.failure_payload != FULL
    text = "" if error is None else reason(error, private)
    try:
        record = collect(watched) if watched else Record()
        seen = with_inputs(metrics.reasons().top(_MOST_REASONS, private), options.map)
        reasons = seen or summary.reasons  # a summary has the first few
        page = make(Seen(record, metrics.spreads(), reasons, text))
        write_text(options.report_file, render_page(page))
    except Exception as problem:  # noqa: BLE001
        _LOG.warning("--report_file: the report could not be made or written: %s", problem)
        return
    tell(f"Report: {options.report_file}\n")


def job_page(
    kind: str, title: str, figures: Iterator[Figure], summary: JobSummary, options: JobFlags, seen: Seen
) -> Page:
    """Returns the page of a job; `title` is that of one which has not failed."""
    ended = f"It ended with an error: {seen.error.rstrip('.')}. " if seen.error else ""
    return Page(
        title="The job failed" if seen.error else title,
        kind=kind,
        subtitle=f"{ended}Model {summary.model}. Written on {seen.now:%-d %B %Y at %H:%M} UTC.",
        figures=tuple(figures),
        sections=tuple(_sections(summary, options, seen)),
        notes=(_ELSEWHERE,) if summary.predictions and not seen.record.outputs.rows else (),
    )


def call_figures(rows: float | None, msec: float | None) -> Iterator[Figure]:
    """Yields the size of a call of the model, if it is known; `msec` is its time."""
    if rows is not None:
        note = "rows of a call, on average" + ("" if msec is None else f"; {shown(round(msec, 1))} ms a call")
        yield Figure("Batch size", shown(round(rows, 1)), note)


def retry_figures(retries: int, throttled_secs: int) -> Iterator[Figure]:
    """Yields how many calls were repeated, if some were."""
    if retries:
        waited = f"{shown(throttled_secs)} s waited for the server" if throttled_secs else ""
        yield Figure("Repeated calls", shown(retries), waited)


def _sections(summary: JobSummary, options: JobFlags, seen: Seen) -> Iterator[Section]:
    private = options.failure_payload != FULL
    record = seen.record
    yield from throughput_section(record.timeline, "predictions")
    yield from call_sections(seen.spreads)
    yield from phases_section(summary.phases)
    yield from distribution_sections(record.outputs, "Predictions", private)
    yield from failure_sections(summary.failures_by, seen.reasons)
    yield from distribution_sections(record.inputs, "Inputs of the model", private)
    yield from _version_section(summary.versions or _by_version(record))
    yield _options_section(options, summary.beam_options)
    yield machine_section(JOB)


def _by_version(record: Record) -> dict[str, int]:
    return {str(version): rows for version, rows in sorted(record.versions.items(), key=str) if version is not None}


def _version_section(versions: Mapping[str, int]) -> Iterator[Section]:
    if versions:
        data = Data((Column("version", "Version"), Column("rows", "Rows")), tuple(versions.items()))
        title = "One version predicted" if len(versions) == 1 else f"{len(versions)} versions predicted"
        chart = bars(data, Axis("version", "Version"), Axis("rows", "Rows")) if len(versions) > 1 else None
        yield Section(title, "Rows by the version of the model.", data, chart, alt=f"Bars: {title}.", group=JOB)


def _options_section(options: JobFlags, beam_options: Mapping[str, object]) -> Section:
    """Returns the flags that were given or are not as by default. Secrets are not shown."""
    ours = [
        (f"--{field.name}", "(not shown)" if field.metadata["secret"] else to_text(getattr(options, field.name)))
        for field in dataclasses.fields(options)
        if field.default is dataclasses.MISSING or getattr(options, field.name) != field.default
    ]
    of_beam = [(f"--{name}", str(value)) for name, value in beam_options.items()]
    text = "All others had their defaults."
    return Section("Options", text, Data(_OPTION_COLUMNS, (*ours, *of_beam)), group=JOB)
