"""A comparison as a page: throughput by batch size, latency by rate, cost by monthly volume, cost of a row by stage."""

from collections.abc import Iterator

import numpy as np

from sluice.pipelines.compare.answer import Answer, Line
from sluice.pipelines.compare.claims import claims
from sluice.pipelines.compare.costing import Workers, fleets, monthly
from sluice.pipelines.compare.managed import NOT_MEASURED
from sluice.pipelines.compare.result import Result
from sluice.pipelines.compare.spread import Spread
from sluice.pipelines.compare.subject import STAGES
from sluice.pipelines.compare.sweep import highest_rate
from sluice.pipelines.compare.text import crossings_text, money, paste, spread, workers_text
from sluice.pipelines.report.charts import Axis, Rule, bars, lines
from sluice.pipelines.report.data import Cell, Column, Data
from sluice.pipelines.report.machine import machine_section
from sluice.pipelines.report.page import Figure, Page, Section

_JOBS, _STREAMS, _COSTS, _ALL = "At rest", "In a stream", "Costs", "What it says"
# Volumes of a month, rows: from a row every 26 s to some 380,000 a second.
_VOLUMES = np.geomspace(1e5, 1e12, 29)


def to_page(result: Result) -> Page:
    """Returns the page of a comparison."""
    return Page(
        f"Ways to serve {result.model}",
        "sluice compare",
        "; ".join(result.notes[-1:]),
        tuple(_figures(result)),
        tuple(_sections(result)),
        result.notes,
    )


def _figures(result: Result) -> Iterator[Figure]:
    answer = result.answer
    if answer.at_rest:
        yield Figure("At rest", answer.at_rest.found.way.title, f"{spread(answer.at_rest.found.rate)} rows/s")
        million = f"{money(answer.at_rest.million)} {result.prices.currency}"
        yield Figure("A million rows", million, f"prices of {result.prices.region}, {result.prices.oldest} or later")
    if answer.in_stream and answer.in_stream.stream:
        held = answer.in_stream.stream
        how = "with mini-batches" if held.load.mini_batches else "one message a call"
        yield Figure("In a stream", answer.in_stream.found.way.title, f"{held.load.rate:,.0f} messages a second, {how}")
        if needed := answer.in_stream.for_qps:
            note = workers_text(needed, answer.in_stream.found.way.is_reference)
            yield Figure("Workers for the wanted rate", f"{needed.count:,}", note)


def _sections(result: Result) -> Iterator[Section]:
    yield _ranks(result)
    yield _commands(result)
    if section := _workers(result.answer):
        yield section
    for section in (_sizes(result.answer), _stages(result.answer), _starts(result.answer)):
        if section:
            yield section
    for mini_batches in (True, False):
        if section := _latency(result, mini_batches):
            yield section
    if section := _volumes(result):
        yield section
    if result.managed:
        yield _managed(result)
    yield _prices(result)
    verdicts = tuple((each.text, each.verdict, each.reason) for each in claims(result.answer))
    columns = (Column("claim", "Claim"), Column("verdict", "Found here"), Column("reason", "With these figures"))
    yield Section("Four claims, for this model on this machine", "", Data(columns, verdicts), group=_ALL, wide=True)
    yield machine_section(_ALL)


def _ranks(result: Result) -> Section:
    columns = (
        Column("rank", "Rank"),
        Column("way", "Way"),
        *_spread_columns("rows_per_second", "Rows/s"),
        Column("whole_rows_per_second", "Whole job, rows/s"),
        Column("cpu_s_per_million", "CPU s of a million rows"),
        Column("gb_s_per_million", "GB s of a million rows"),
        Column("cost_per_million", f"{result.prices.currency} a million rows"),
        Column("cost_per_month", f"{result.prices.currency} a month"),
    )
    rows = tuple(_rank(line) for line in result.answer.lines)
    text = "Without start-up; = marks ways that cannot be told apart. CPU and memory of the server are in the sums."
    best = result.answer.at_rest
    title = (
        f"{best.found.way.title[0].upper()}{best.found.way.title[1:]} is the way at rest" if best else "Ways at rest"
    )
    return Section(title, text, Data(columns, rows), group=_JOBS, wide=True)


def _rank(line: Line) -> tuple[Cell, ...]:
    found, use = line.found, line.use
    if use is None:
        return (NOT_MEASURED, found.way.title, *[None] * 8)
    rank = f"{line.rank}{'=' if line.tied else ''}"
    whole = found.whole_rate.median if found.whole_rate else None
    spent = (use.cpu_secs_per_million, use.gb_secs_per_million, line.million, line.month)
    return (rank, found.way.title, *_spread_cells(found.rate), whole, *spent)


def _spread_columns(name: str, title: str) -> tuple[Column, ...]:
    return Column(name, title), Column(f"{name}_least", "least"), Column(f"{name}_most", "most")


def _spread_cells(values: Spread | None) -> tuple[Cell, ...]:
    return (values.median, values.least, values.most) if values else (None, None, None)


def _commands(result: Result) -> Section:
    rows = tuple((line.found.way.title, paste(result, line)) for line in result.answer.lines if line.use)
    data = Data((Column("way", "Way"), Column("command", "Command")), rows)
    return Section("Flags to paste", "Those of each way that were found best here.", data, group=_JOBS, wide=True)


def _workers(answer: Answer) -> Section | None:
    """The workers that the goals need."""
    goals = ((line, name, workers) for line in answer.lines for name, workers in _goals(line))
    rows = tuple(
        (line.found.way.title, name, workers.count, workers_text(workers, line.found.way.is_reference))
        for line, name, workers in goals
    )
    if not rows:
        return None
    columns = (Column("way", "Way"), Column("goal", "For"), Column("workers", "Workers"), Column("how", "Reckoned"))
    text = "One worker is as large as this machine. More are extrapolated."
    return Section("Workers for what is wanted", text, Data(columns, rows), group=_JOBS, wide=True)


def _goals(line: Line) -> Iterator[tuple[str, Workers]]:
    for name, workers in (("--rows by --deadline", line.for_rows), ("--target_qps", line.for_qps)):
        if workers:
            yield name, workers


def _sizes(answer: Answer) -> Section | None:
    """Rows a second by batch size, with the calls in flight that were found."""
    rows: list[tuple[Cell, ...]] = []
    for line in answer.lines:
        found, of_way = line.found, dict[int, tuple[Cell, ...]]()
        default = found.loaded.batch if found.loaded else 0
        # Sizes are searched first, with the calls in flight that the user gave.
        calls = next((point.in_flight for point in found.searched), 0)
        for point, rates in found.searched.items():
            if point.in_flight == calls:
                values = Spread(tuple(rates))
                batch = point.batch or default
                of_way[batch] = (batch, found.way.title, *_spread_cells(values))
        rows += [of_way[batch] for batch in sorted(of_way)]
    if not rows:
        return None
    columns = (Column("batch", "Rows of a call"), Column("way", "Way"), *_spread_columns("rows_per_second", "Rows/s"))
    data = Data(columns, tuple(rows))
    chart = lines(
        data,
        Axis("batch", "Rows of a call", log=True),
        Axis("rows_per_second", "Rows a second", log=True),
        series="way",
        low="rows_per_second_least",
        high="rows_per_second_most",
        points=True,
    )
    text = "The model kept busy, without reading and writing. The sizes are those that the search has looked at."
    return Section(
        "Throughput by batch size", text, data, chart, _told("rows a second by batch size", data), group=_JOBS
    )


def _stages(answer: Answer) -> Section | None:
    rows: list[tuple[Cell, ...]] = []
    for line in answer.lines:
        found = line.found
        stages = [(name, found.stages[name]) for name in STAGES if name in found.stages]
        if not stages:
            continue
        rest = found.cpu_us.median - sum(us for _, us in stages) if found.cpu_us else 0.0
        server = found.server_cpu_us.median if found.server_cpu_us else 0.0
        stages += [(name, us) for name, us in (("all else of the job", rest), ("the server", server)) if us > 0]
        rows += [(found.way.title, name, us) for name, us in stages]
    if not rows:
        return None
    data = Data((Column("way", "Way"), Column("stage", "Stage"), Column("cpu_us", "CPU of a row (us)")), tuple(rows))
    chart = bars(data, Axis("way", ""), Axis("cpu_us", "Microseconds of CPU of a row"), series="stage")
    text = "Each stage was measured alone; what a job takes beyond their sum is shown as all else."
    return Section("Cost of a row by stage", text, data, chart, _told("CPU of a row by stage", data), group=_JOBS)


def _starts(answer: Answer) -> Section | None:
    rows = []
    for line in answer.lines:
        found = line.found
        if found.loaded:
            copy = None if found.way.remote else found.loaded.copy_mb
            cells = (*_spread_cells(found.start_secs), found.loaded.secs, copy, found.peak_mb, found.server_mb)
            rows.append((found.way.title, *cells))
    if not rows:
        return None
    columns = (
        Column("way", "Way"),
        *_spread_columns("start_s", "Start to exit (s)"),
        Column("open_s", "Model opened (s)"),
        Column("copy_mb", "A copy (MB)"),
        Column("job_mb", "A job (MB)"),
        Column("server_mb", "The server (MB)"),
    )
    return Section("Start-up and memory", "Of a job of one row.", Data(columns, tuple(rows)), group=_JOBS, wide=True)


def _latency(result: Result, mini_batches: bool) -> Section | None:
    rows: list[tuple[Cell, ...]] = []
    rules = [Rule("target p99", y=result.target_p99_ms)] if result.target_p99_ms else []
    for line in result.answer.lines:
        streams = [each for each in line.found.streams if each.load.mini_batches is mini_batches and each.p99_ms]
        for each in sorted(streams, key=lambda stream: stream.load.rate):
            low, high = each.p99_between_ms or (each.p99_ms, each.p99_ms)
            cells = (each.p50_ms, each.p95_ms, each.p99_ms, low, high, each.answered, each.complete)
            rows.append((each.load.rate, line.found.way.title, *cells))
        if held := highest_rate(streams, result.target_p99_ms or None):
            rules.append(Rule(f"{line.found.way.name} holds", x=held.load.rate))
    if not rows:
        return None
    names = {
        "p50_ms": "p50 (ms)",
        "p95_ms": "p95 (ms)",
        "p99_ms": "p99 (ms)",
        "p99_low": "at least",
        "p99_high": "at most",
    }
    columns = [Column("rate", "Messages a second"), Column("way", "Way"), *(Column(*each) for each in names.items())]
    columns += [Column("messages", "Messages"), Column("complete", "All answered")]
    data = Data(tuple(columns), tuple(rows))
    chart = lines(
        data,
        Axis("rate", "Messages a second", log=True),
        Axis("p99_ms", "p99 latency (ms)", log=True),
        series="way",
        low="p99_low",
        high="p99_high",
        rules=tuple(rules),
        points=True,
    )
    how = "Mini-batches" if mini_batches else "One message a call"
    text = (
        "Gaps are exponential from a seed, latency counts from the scheduled time, p99 is bounded by MLPerf's early "
        "stopping; its 600 s are waived."
    )
    return Section(
        f"{how}: latency by rate", text, data, chart, _told("p99 latency by rate", data), True, group=_STREAMS
    )


def _volumes(result: Result) -> Section | None:
    ways = [
        (line.found.way.title, fleets(line.use, result.prices))
        for line in result.answer.lines
        if line.use and line.million
    ]
    if not ways:
        return None
    rows = tuple(
        (float(volume), title, monthly(machines, float(volume))) for title, machines in ways for volume in _VOLUMES
    )
    columns = (Column("rows_per_month", "Rows a month"), Column("way", "Way"))
    data = Data((*columns, Column("cost", f"{result.prices.currency} a month")), rows)
    chart = lines(
        data,
        Axis("rows_per_month", "Rows a month", log=True),
        Axis("cost", f"{result.prices.currency} a month", log=True),
        series="way",
    )
    text = (
        "A stream that runs around the clock, its rows evenly spread: extrapolated from the CPU of a row measured here."
    )
    text += "".join(f" {each}." for each in crossings_text(result.answer.crossings))
    return Section("Cost by monthly volume", text, data, chart, _told("cost by rows a month", data), True, group=_COSTS)


def _managed(result: Result) -> Section:
    currency = result.prices.currency
    columns = (
        Column("way", "Way"),
        Column("cost_per_million", f"{currency} a million rows"),
        Column("least_per_month", f"{currency} a month at least"),
        Column("notes", "How that is reckoned"),
    )
    rows = tuple((way.title, way.million, way.month, "; ".join(way.notes)) for way in result.managed)
    return Section(
        f"Managed ways ({NOT_MEASURED})", "From prices and limits.", Data(columns, rows), group=_COSTS, wide=True
    )


def _prices(result: Result) -> Section:
    columns = (Column("name", "Price"), Column("value", "Value"), Column("date", "Date"), Column("source", "Source"))
    return Section(
        "Prices", "--prices FILE replaces them.", Data(columns, result.prices.sources), group=_COSTS, wide=True
    )


def _told(what: str, data: Data) -> str:
    """Returns the alternative text of a chart."""
    series = dict.fromkeys(str(cell) for cell in data.column("way"))
    return f"Chart of {what}: {', '.join(series)}. The numbers are below it."
