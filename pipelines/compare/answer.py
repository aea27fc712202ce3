"""What the measurements say: which way at rest, which in a stream, and why."""

import dataclasses
from collections.abc import Sequence

from sluice.pipelines.compare.bench import point_flags
from sluice.pipelines.compare.costing import (
    Use,
    Workers,
    cheaper_from,
    fleets,
    hour_of_held,
    monthly,
    per_million,
    use_of,
    workers_for_deadline,
    workers_for_rate,
)
from sluice.pipelines.compare.found import Found, Stream
from sluice.pipelines.compare.prices import Prices
from sluice.pipelines.compare.spread import UNKNOWN_SHARE, ranked
from sluice.pipelines.compare.sweep import RESOLUTION, highest_rate
from sluice.pipelines.compare.ways import Way


@dataclasses.dataclass(frozen=True)
class Goals:
    """What the user asks for; 0: nothing.

    Attributes:
      rows, deadline_secs: so many rows at rest, in this time.
      target_qps, target_p99_ms: of a stream.
    """

    rows: int = 0
    deadline_secs: float = 0.0
    target_qps: float = 0.0
    target_p99_ms: float = 0.0
    rows_per_month: int = 0


@dataclasses.dataclass(frozen=True)
class Line:
    """A way in the ranked table.

    Attributes:
      rank: ways that tie have the same.
      use: None: no job of it was measured.
      million, month: costs; None: not asked for, or not known, as of a server whose CPU nobody has counted.
      stream: the highest rate that its stream holds, with or without mini-batches.
      for_rows, for_qps: the workers that the goals need.
    """

    found: Found
    rank: int
    tied: bool
    use: Use | None
    million: float | None
    month: float | None
    stream: Stream | None
    for_rows: Workers | None
    for_qps: Workers | None

    @property
    def flags(self) -> list[str]:
        """The flags of `sluice batch` and `sluice streaming` that were found best for it."""
        return point_flags(self.found.best)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the measurements say.

    Attributes:
      lines: the ways that were measured at rest, the fastest first, then the others.
      at_rest, in_stream: the best; None: nothing was measured.
      crossings: by the name of a served way: rows a second from which it costs less than copies in workers; None: at
        no load.
    """

    lines: list[Line]
    at_rest: Line | None
    in_stream: Line | None
    crossings: dict[str, float | None]


def answer(found: Sequence[Found], prices: Prices, goals: Goals, cores: int) -> Answer:
    """Returns what the measurements say."""
    rates = {each.way: each.rate for each in found}
    groups = ranked({way: rate for way, rate in rates.items() if rate is not None})
    ranks: dict[Way, tuple[int, bool]] = {}
    for ways in groups:
        ranks |= dict.fromkeys(ways, (1 + len(ranks), len(ways) > 1))
    lines = [_line(each, *ranks.get(each.way, (len(found), False)), prices, goals, cores) for each in found]
    lines.sort(key=lambda line: (line.use is None, line.rank))
    return Answer(lines, _best_at_rest(lines), _best_in_stream(lines, prices, goals), crossings(lines, prices))


def _line(found: Found, rank: int, tied: bool, prices: Prices, goals: Goals, cores: int) -> Line:
    use = use_of(found, cores)
    stream = best_stream(found, goals)
    for_rows = for_qps = None
    if goals.rows and goals.deadline_secs and found.rate and found.start_secs:
        start_secs = found.start_secs.median
        for_rows = workers_for_deadline(goals.rows, goals.deadline_secs, found.rate.median, start_secs)
    if goals.target_qps and stream:
        for_qps = workers_for_rate(goals.target_qps, stream.load.rate)
    whole = use if use and _is_whole(found.way, use) else None
    million = per_million(whole, prices) if whole else None
    month = None
    if whole and million is not None and goals.rows_per_month:
        at_rest = million * goals.rows_per_month / 1e6
        month = at_rest if found.way.is_managed_job else monthly(fleets(whole, prices), goals.rows_per_month)
    return Line(found, rank, tied, use, million, month, stream, for_rows, for_qps)


def _is_whole(way: Way, use: Use) -> bool:
    """Whether all that a way takes is known."""
    known = use.node_us if way.is_managed_job else use.server_us
    return known is not None or not way.remote


def best_stream(found: Found, goals: Goals) -> Stream | None:
    """Returns the highest rate that a way holds, with mini-batches or without."""
    sweeps = [[each for each in found.streams if each.load.mini_batches is mini] for mini in (True, False)]
    held = [highest_rate(sweep, goals.target_p99_ms or None) for sweep in sweeps if sweep]
    return max(filter(None, held), key=lambda stream: stream.load.rate, default=None)


def _best_at_rest(lines: Sequence[Line]) -> Line | None:
    """Returns the cheapest way, or the fastest if the cost of one is not known.

    The worker, which needs no server, is taken where it ties with that, or costs hardly more.
    """
    measured = [line for line in lines if line.use]
    if not measured:
        return None
    best = min(measured, key=lambda line: line.rank)
    if all(line.million is not None for line in measured):
        best = min(measured, key=lambda line: line.million or 0.0)
    own = next((line for line in measured if not line.found.way.remote), best)
    if own.tied and own.rank == best.rank:
        return own
    near = own.million is not None and best.million is not None and own.million <= best.million * (1 + UNKNOWN_SHARE)
    return own if near else best


def _best_in_stream(lines: Sequence[Line], prices: Prices, goals: Goals) -> Line | None:
    """Returns the way that costs least at the wanted rate; without one, the way that holds the highest rate.

    A way that holds no rate is none. The others hold the wanted one with the workers that it takes of each, by the
    rate that one worker was seen to hold. What the sweep cannot tell apart is as good as each other, and the way
    without a server is taken.
    """
    held = [line for line in lines if line.stream]
    costs = {line.found.way: _hour(line, prices) for line in held} if goals.target_qps else {}
    known = [cost for cost in costs.values() if cost is not None]
    if known and len(known) == len(held):
        cheap = [line for line in held if (costs[line.found.way] or 0.0) <= RESOLUTION * min(known)]
        return min(cheap, key=lambda line: (line.found.way.remote, costs[line.found.way]))
    most = max((_rate(line) for line in held), default=0.0)
    near = [line for line in held if _rate(line) * RESOLUTION >= most]
    return min(near, key=lambda line: (line.found.way.remote, -_rate(line)), default=None)


def _hour(line: Line, prices: Prices) -> float | None:
    """Returns the price of an hour of the workers for the wanted rate; None: it is not known."""
    if line.use is None or line.million is None or line.for_qps is None:
        return None
    return hour_of_held(line.use, prices, line.for_qps.count)


def _rate(line: Line) -> float:
    return line.stream.load.rate if line.stream else 0.0


def crossings(lines: Sequence[Line], prices: Prices) -> dict[str, float | None]:
    """Returns, for each way whose server was measured, the load from which it costs less than copies in workers."""
    copies = next((line.use for line in lines if line.use and not line.found.way.remote), None)
    if copies is None:
        return {}
    own = fleets(copies, prices)
    return {
        line.found.way.name: cheaper_from(fleets(line.use, prices), own)
        for line in lines
        if line.use and line.use.server_us
    }
