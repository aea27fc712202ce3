"""Finds the highest rate that a stream holds, and measures latency at the rates on the way there."""

from collections.abc import Callable

from sluice.pipelines.compare.early_stopping import queries_needed
from sluice.pipelines.compare.found import Stream

# Without a target, a stream holds a rate as long as its p99 is at most so many times that at the lowest rate.
KNEE_TIMES = 5.0
# How often the gap between the highest rate that is held and the lowest that is not is halved.
_HALVINGS = 2
# Rates that are nearer to each other than this factor cannot be told apart by it.
RESOLUTION = 2 ** (0.5**_HALVINGS) * 1.001
_LEAST_RATE, _MOST_RATE = 0.5, 200_000.0
# The early stopping of p99 needs so many messages, one of which may be late.
QUERIES = queries_needed(1)


def sweep(
    measure: Callable[[float], Stream],
    start: float,
    target_p99_ms: float | None = None,
    goes_on: Callable[[], bool] = lambda: True,
) -> list[Stream]:
    """Returns the loads that were measured, in their order.

    It doubles the rate until it is not held any more, or halves it until it is, then narrows the gap.
    """
    found = [measure(start)]
    first = holds(found[0], found, target_p99_ms)
    factor, held, missed = (2.0, start, 0.0) if first else (0.5, 0.0, start)
    while _LEAST_RATE <= (rate := found[-1].load.rate * factor) <= _MOST_RATE and goes_on():
        found.append(measure(rate))
        fine = holds(found[-1], found, target_p99_ms)
        held, missed = (rate, missed) if fine else (held, rate)
        if fine != first:
            break
    for _ in range(_HALVINGS if held and missed else 0):
        if not goes_on():
            break
        rate = (held * missed) ** 0.5
        found.append(measure(rate))
        fine = holds(found[-1], found, target_p99_ms)
        held, missed = (rate, missed) if fine else (held, rate)
    return found


def holds(stream: Stream, all_of_it: list[Stream], target_p99_ms: float | None) -> bool:
    """Whether a rate is held: all messages are answered, and 99 % of them in time, as far as is known.

    Args:
      all_of_it: all loads of the same way; without a target, the lowest rate among them says what is usual.
    """
    p99 = stream.p99_sure_ms or stream.p99_ms
    if not stream.complete or p99 is None:
        return False
    if target_p99_ms is not None:
        return p99 <= target_p99_ms
    lowest = min(all_of_it, key=lambda each: each.load.rate)
    usual = lowest.p99_ms
    return lowest.complete and usual is not None and p99 <= KNEE_TIMES * usual


def highest_rate(streams: list[Stream], target_p99_ms: float | None = None) -> Stream | None:
    """Returns the highest rate that is held, below the lowest one that is not; None: none is."""
    missed = [each.load.rate for each in streams if not holds(each, streams, target_p99_ms)]
    held = [each for each in streams if each.load.rate < min(missed, default=float("inf"))]
    return max(held, key=lambda each: each.load.rate, default=None)
