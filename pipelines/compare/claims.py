"""What the measurements say to four claims that are often made of the ways to serve a model."""

import dataclasses
import itertools

from sluice.pipelines.compare.answer import Answer, Line
from sluice.pipelines.compare.found import Found, Stream
from sluice.pipelines.compare.spread import Spread
from sluice.pipelines.compare.sweep import RESOLUTION

HOLDS, PARTLY, FAILS = "holds", "holds as far as it was measured", "does not hold"
TIED, UNKNOWN = "cannot be told apart", "not measured"


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim, and what was found.

    Attributes:
      verdict: one of the words above, for this model on this machine.
      reason: with the figures.
    """

    text: str
    verdict: str
    reason: str


def claims(answer: Answer) -> list[Claim]:
    """Returns the claims."""
    return [_at_rest(answer), _lowest_latency(answer), _gap(answer), _copies(answer)]


def _by_kind(answer: Answer) -> tuple[Line | None, list[Line]]:
    worker = next((line for line in answer.lines if not line.found.way.remote), None)
    served = [line for line in answer.lines if line.found.way.remote and not line.found.way.is_managed_job]
    return worker, served


def _at_rest(answer: Answer) -> Claim:
    text = "At rest the managed job is fastest, then the model in the worker, then the endpoint"
    worker, served = _by_kind(answer)
    fastest = _fastest(served)
    if worker is None or worker.found.rate is None or fastest is None:
        return Claim(text, UNKNOWN, "it needs both the worker and an endpoint")
    mine, (title, other) = worker.found.rate, fastest
    managed = _fastest([line for line in answer.lines if line.found.way.is_managed_job])
    reason = f"{mine.median:,.0f} rows/s in the worker, {other.median:,.0f} from the {title}"
    reason += f"; {managed[1].median:,.0f} from the managed job" if managed else "; the managed job was not measured"
    order = [*([managed[1]] if managed else []), mine, other]
    if any(one.overlaps(next_) for one, next_ in itertools.pairwise(order)):
        return Claim(text, TIED, reason)
    if any(one.median < next_.median for one, next_ in itertools.pairwise(order)):
        return Claim(text, FAILS, reason)
    return Claim(text, HOLDS if managed else PARTLY, reason)


def _fastest(lines: list[Line]) -> tuple[str, Spread] | None:
    """Returns the title and the rows a second of the fastest way."""
    rates = [(line.found.way.title, line.found.rate) for line in lines]
    return max(((title, rate) for title, rate in rates if rate), key=lambda pair: pair[1].median, default=None)


def _lowest_latency(answer: Answer) -> Claim:
    text = "In a stream the model in the worker has the lowest latency"
    worker, served = _by_kind(answer)
    pairs = [_same_rate(worker.found, line.found, True) for line in served] if worker else []
    found = [pair for pair in pairs if pair]
    if not found:
        return Claim(text, UNKNOWN, "it needs both the worker and an endpoint")
    mine, other = min(found, key=lambda pair: pair[1].p50_ms or 0.0)
    reason = f"p50 {mine.p50_ms:.2f} ms in the worker, {other.p50_ms:.2f} ms behind the endpoint"
    reason += f" at {mine.load.rate:,.0f} messages a second; p99 {mine.p99_ms:.2f} and {other.p99_ms:.2f} ms"
    one, two = Spread((mine.p50_ms or 0.0,)), Spread((other.p50_ms or 0.0,))
    if one.overlaps(two):
        return Claim(text, TIED, reason)
    return Claim(text, HOLDS if one.median < two.median else FAILS, reason)


def _gap(answer: Answer) -> Claim:
    text = "Mini-batches narrow the gap between the worker and the endpoint"
    worker, served = _by_kind(answer)
    if worker is None:
        return Claim(text, UNKNOWN, "it needs the worker")
    for line in served:
        rates = [_held(found, mini) for mini in (False, True) for found in (worker.found, line.found)]
        if all(rates):
            alone, together = rates[0] / rates[1], rates[2] / rates[3]
            reason = f"the worker holds {alone:.1f} times the {line.found.way.title}'s rate one message a call, "
            reason += f"and {together:.1f} times with mini-batches"
            if max(together, alone) <= RESOLUTION**2 * min(together, alone):  # each is a quotient of two rates
                return Claim(text, TIED, reason)
            return Claim(text, HOLDS if together < alone else FAILS, reason)
    return Claim(text, UNKNOWN, "it needs the rates that both hold, with mini-batches and without")


def _held(found: Found, mini_batches: bool) -> float:
    """Returns the highest rate at which all messages were answered."""
    streams = [each for each in found.streams if each.load.mini_batches is mini_batches and each.complete]
    return max((each.load.rate for each in streams), default=0.0)


def _same_rate(one: Found, other: Found, mini_batches: bool) -> tuple[Stream, Stream] | None:
    """Returns the loads of the lowest rate that both have held."""

    def held(found: Found) -> dict[float, Stream]:
        streams = (each for each in found.streams if each.complete and each.load.mini_batches is mini_batches)
        return {each.load.rate: each for each in streams}

    mine, theirs = held(one), held(other)
    common = sorted(mine.keys() & theirs.keys())
    return (mine[common[0]], theirs[common[0]]) if common else None


def _copies(answer: Answer) -> Claim:
    text = "Past some rate a copy in every worker is no longer practicable"
    worker, _ = _by_kind(answer)
    if worker is None or worker.found.loaded is None or not answer.crossings:
        return Claim(text, UNKNOWN, "it needs the worker and the reference server, whose CPU can be counted")
    loaded = worker.found.loaded
    copy = f"a copy takes {loaded.copy_mb:,.0f} MB and {loaded.secs:.1f} s to open"
    loads = {name: load for name, load in answer.crossings.items() if load is not None}
    if not loads:
        return Claim(text, FAILS, f"{copy}, and at no rate does an endpoint of its own cost less than copies")
    name, load = min(loads.items(), key=lambda item: item[1])
    return Claim(text, HOLDS, f"{copy}; from {load:,.0f} rows a second on, {name} costs less than copies")
