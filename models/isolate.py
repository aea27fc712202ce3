"""Finds the items at fault: items that fail together are tried in halves, until each item at fault is alone."""

import math
from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

Result = TypeVar("Result")
Errors = tuple[type[Exception], ...]


class Part(NamedTuple, Generic[Result]):
    """Items [start, stop) and the outcome of trying them together.

    Attributes:
      result: what the attempt returned; None: it failed.
      error: what the attempt raised; None: it passed.
    """

    start: int
    stop: int
    result: Result | None
    error: Exception | None


def isolate(
    count: int,
    attempt: Callable[[int, int], Result],
    refused: type[Exception] | Errors,
    extra_attempts: int | None = None,
    free: type[Exception] | Errors = (),
) -> Iterator[Part[Result]]:
    """Tries items [0, count) together and, where an attempt fails, in halves.

    Among n items, k at fault cost about 2 k log2(n) more attempts than one.

    Args:
      attempt: tries items [start, stop); raises, without any effect, if one of them is at fault.
      refused: the errors that mean this. Other errors end the iteration.
      extra_attempts: how many more attempts than one may be made; None: any number. Parts that still fail then are
        yielded whole.
      free: those errors of `refused` after which halving does not count as extra attempts.

    Yields:
      Parts in order, each as soon as it is known. Together they are all the items.
    """
    attempts_left = math.inf if extra_attempts is None else extra_attempts
    left = [(0, count)] if count else []
    while left:
        start, stop = left.pop()
        try:
            yield Part(start, stop, attempt(start, stop), None)
            continue
        except refused as error:
            reason = error
        cost = 0 if isinstance(reason, free) else 2
        if stop - start == 1 or cost > attempts_left:
            yield Part(start, stop, None, reason)
            continue
        attempts_left -= cost
        middle = (start + stop) // 2
        left += [(middle, stop), (start, middle)]
