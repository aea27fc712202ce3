"""A comparison as text for a terminal."""

import shlex
from collections.abc import Iterator, Mapping, Sequence

from sluice.pipelines.compare.answer import Answer, Line
from sluice.pipelines.compare.claims import claims
from sluice.pipelines.compare.costing import Workers
from sluice.pipelines.compare.found import Found
from sluice.pipelines.compare.managed import NOT_MEASURED, Managed
from sluice.pipelines.compare.prices import HOURS_A_MONTH, Prices
from sluice.pipelines.compare.result import Result
from sluice.pipelines.compare.spread import Spread
from sluice.pipelines.compare.subject import STAGES
from sluice.pipelines.options.flags import SECRETS
from sluice.pipelines.progress.table import align

_SHOWN_DIGITS = 3


def render(result: Result) -> str:
    """Returns the whole answer."""
    answer = result.answer
    parts = [
        _table(answer, result.prices),
        _managed(result.managed, result.prices),
        _starts(answer.lines),
        _stages(answer.lines),
        _streams(answer.lines, result.target_p99_ms),
        "\n".join(_loads(answer, result.prices)),
        "\n".join(_recommended(result)),
        "\n".join(_claims(answer)) if len(answer.lines) > 1 else "",
        "\n".join(result.notes),
    ]
    return "\n\n".join(part for part in parts if part)


def _claims(answer: Answer) -> Iterator[str]:
    yield "Four claims that are often made, for this model on this machine:"
    for each in claims(answer):
        yield f"{each.text}: {each.verdict} ({each.reason})"


def _table(answer: Answer, prices: Prices) -> str:
    costs = ("CPU s", "GB s", prices.currency, "month")
    stream = ("messages/s", "p50 ms", "p95 ms", "p99 ms")
    head = ("", "way", "rows/s", "whole job", "us/row", *costs, "batch", "calls", *stream)
    rows = [head, *(_cells(line) for line in answer.lines)]
    note = "CPU, memory and cost of a million rows; rows/s and us/row without start-up; = cannot be told apart;"
    note += "\nmessages/s: the most that a stream holds, and its latencies; ±: how far the least or the most is away"
    return "\n".join([*align(rows, "<<>"), note])


def _cells(line: Line) -> tuple[str, ...]:
    found, use = line.found, line.use
    if use is None:
        reason = f"{NOT_MEASURED}{': ' if found.failed else ''}{found.failed.splitlines()[0] if found.failed else ''}"
        return ("", f"{found.way.title} ({reason})", *[""] * 9, *_held(line))
    return (
        f"{line.rank}{'=' if line.tied else ''}",
        found.way.title,
        spread(found.rate),
        spread(found.whole_rate),
        spread(found.marginal_us, 2),
        f"{use.cpu_secs_per_million:.2f}",
        f"{use.gb_secs_per_million:.2f}",
        money(line.million),
        money(line.month),
        f"{found.best.batch:,}" if found.best.batch else "default",
        f"{found.best.in_flight}" if found.best.in_flight else "default",
        *_held(line),
    )


def _held(line: Line) -> tuple[str, ...]:
    held = line.stream
    if held is None:
        return ("-", "-", "-", "-")
    return (f"{held.load.rate:,.0f}", *map(_ms, (held.p50_ms, held.p95_ms, held.p99_ms)))


def spread(values: Spread | None, digits: int = 0) -> str:
    """Returns "median ±share"; "-" for nothing, and the value alone if it was measured once."""
    if values is None:
        return "-"
    middle = f"{values.median:,.{digits}f}"
    if len(values.values) == 1:
        return f"{middle} (once)"
    away = max(values.most - values.median, values.median - values.least)
    return f"{middle} ±{away / values.median:.0%}"


def money(value: float | None) -> str:
    """Returns an amount with three significant digits, or two decimals if it is large; "-" for none."""
    if value is None:
        return "-"
    return f"{value:,.2f}" if value >= 1 else f"{value:.{_SHOWN_DIGITS}g}"


def _managed(ways: Sequence[Managed], prices: Prices) -> str:
    lines = [
        f"{way.title} ({NOT_MEASURED}): {money(way.million)} {prices.currency} a million rows, from "
        f"{money(way.month)} a month; {'; '.join(way.notes)}"
        for way in ways
    ]
    return "\n".join(lines)


def _starts(lines: Sequence[Line]) -> str:
    rows = [("start-up", "to exit, s", "model opened, s", "a copy, MB", "a job, MB", "the server, MB")]
    for line in lines:
        found = line.found
        if found.loaded:
            peak = "-" if found.peak_mb is None else f"{found.peak_mb:,.0f}"
            server = "-" if found.server_mb is None else f"{found.server_mb:,.0f}"
            copy = "-" if found.way.remote else f"{found.loaded.copy_mb:,.0f}"
            rows.append((found.way.title, spread(found.start_secs, 2), f"{found.loaded.secs:.2f}", copy, peak, server))
    return "\n".join(align(rows, "<>")) if len(rows) > 1 else ""


def _stages(lines: Sequence[Line]) -> str:
    rows: list[tuple[str, ...]] = [("CPU of a row, us", *STAGES, "all of the job", "of the server")]
    for line in lines:
        found = line.found
        if found.stages:
            cells = [f"{found.stages[name]:.2f}" if name in found.stages else "-" for name in STAGES]
            rows.append((found.way.title, *cells, spread(found.cpu_us, 2), spread(found.server_cpu_us, 2)))
    return "\n".join(align(rows, "<>")) if len(rows) > 1 else ""


def _streams(lines: Sequence[Line], target_p99_ms: float) -> str:
    rows: list[tuple[str, ...]] = [("in a stream", "messages", "a second", "p50 ms", "p95 ms", "p99 ms", "p99 between")]
    for line in lines:
        for mini_batches in (True, False):
            streams = [each for each in line.found.streams if each.load.mini_batches is mini_batches]
            for each in sorted(streams, key=lambda stream: stream.load.rate):
                sure = each.p99_between_ms
                between = "too few messages" if sure is None else f"{sure[0]:.2f} and {sure[1]:.2f}"
                ended = between if each.complete else "overloaded"
                latencies = (_ms(value) for value in (each.p50_ms, each.p95_ms, each.p99_ms))
                how = "mini-batches" if mini_batches else "one a call"
                rows.append((line.found.way.title, how, f"{each.load.rate:,.0f}", *latencies, ended))
    if len(rows) == 1:
        return ""
    target = f"; the target of p99 is {target_p99_ms:g} ms" if target_p99_ms else ""
    note = "gaps are exponential, latency counts from the scheduled time, p99 with 99 % confidence"
    return "\n".join([*align(rows, "<<>"), f"{note}; shorter than the 600 s of MLPerf's rules{target}"])


def _loads(answer: Answer, prices: Prices) -> Iterator[str]:
    yield from crossings_text(answer.crossings)
    for line in answer.lines:
        for workers in filter(None, (line.for_rows, line.for_qps)):
            yield f"{line.found.way.title}: {workers_text(workers, line.found.way.is_reference)}"
        if line.found.streams and not line.stream:
            yield f"{line.found.way.title}: held no rate that was tried in a stream"
    yield f"Prices of {prices.region} as of {prices.oldest} or later; --prices FILE replaces them"


def workers_text(workers: Workers, shared: bool) -> str:
    """Returns how many workers a load takes, and how that is known.

    Args:
      shared: the worker has shared this machine with the server.
    """
    number = "" if workers.count == 1 else "s"
    what = f"machine{number} like this one for workers and servers" if shared else f"worker{number}"
    how = "one worker like this machine, measured" if workers.measured else "extrapolated from one worker"
    return f"{workers.formula} {what} ({how})"


def crossings_text(crossings: Mapping[str, float | None]) -> Iterator[str]:
    """Yields from which load on each endpoint costs less than copies in the workers of a stream."""
    for name, load in crossings.items():
        if load is None:
            yield f"{name}: at no load does an endpoint of one's own cost less than copies in the workers of a stream"
        else:
            month = load * HOURS_A_MONTH * 3600
            yield f"{name}: costs less than copies in workers from {load:,.0f} rows a second ({month:,.0f} a month) on"


def _recommended(result: Result) -> Iterator[str]:
    answer = result.answer
    if answer.at_rest:
        yield f"At rest: {answer.at_rest.found.way.title}, {_reason(answer)}"
        yield f"  {paste(result, answer.at_rest)}"
    if answer.in_stream and answer.in_stream.stream:
        stream, needed = answer.in_stream.stream, answer.in_stream.for_qps
        how = "mini-batches" if stream.load.mini_batches else "one message a call"
        text = f"In a stream: {answer.in_stream.found.way.title}, {how}: it holds {stream.load.rate:,.0f} messages "
        text += f"a second with a p99 of {_ms(stream.p99_ms)} ms"
        if needed:
            text += f"; the wanted rate takes {workers_text(needed, answer.in_stream.found.way.is_reference)}"
        yield text
    elif any(line.found.streams for line in answer.lines):
        yield "In a stream: no way held a rate that was tried; see the latencies above"


def _reason(answer: Answer) -> str:
    assert answer.at_rest is not None
    best = answer.at_rest
    others = [line for line in answer.lines if line.use and line is not best]
    if not others:
        return "the only way that was measured"
    if best.tied and best.rank == 1 and not best.found.way.remote:
        return "which needs no server, and ties with the fastest"
    if best.million is None or any(line.million is None for line in others):
        return "the fastest; what a server costs is not known"
    following = min(others, key=lambda line: line.million or 0.0)
    times = (following.million or 0.0) / best.million
    if times < 1:
        near = "ties with" if best.tied and following.rank == best.rank else "costs hardly more than"
        return f"which needs no server, and {near} the cheapest"
    return f"the cheapest: a row costs {times:.1f} times as much {following.found.way.place}"


def paste(result: Result, line: Line) -> str:
    """Returns the command of a way. Whoever gave secrets puts them in: a page may be sent to others."""
    flags = [f"--model={line.found.way.uri}", *map(_without_secret, result.flags(line))]
    place = " --temp_location gs://..." if line.found.way.is_managed_job else ""
    return f"sluice batch {shlex.join(flags)} --input ... --output ...{place}"


def _without_secret(flag: str) -> str:
    name, _, value = flag.removeprefix("--").partition("=")
    return f"--{name}=..." if name in SECRETS and not value.startswith("@") else flag


def failures(found: Sequence[Found]) -> list[str]:
    """Returns a line for each way that failed."""
    return [f"{each.way.title} is left out: {each.failed}" for each in found if each.failed]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
