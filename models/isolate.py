"""Finding the items at fault: what fails together is tried in halves, until each item at fault stands alone."""

from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

Result = TypeVar("Result")


class Part(NamedTuple, Generic[Result]):
    """Items [start, stop) of those that were tried, and what came of them.

    Attributes:
      result: of a part that passed; None: it failed.
      error: of a part that failed.
    """

    start: int
    stop: int
    result: Result | None
    error: Exception | None


def isolate(
    count: int,
    attempt: Callable[[int, int], Result],
    refused: type[Exception] | tuple[type[Exception], ...],
    extra_attempts: int | None = None,
) -> Iterator[Part[Result]]:
    """Tries items [0, count) together and, where that is refused, in halves.

    Among n items, k at fault cost about 2 k log2(n) attempts more than one.

    Args:
      attempt: tries items [start, stop), and raises where one of them is at fault. It has no effect then.
      refused: the errors that say so; others end the iteration.
      extra_attempts: how many attempts more than one may be made; None: any number. A part that still fails then is
        yielded whole.

    Yields:
      Parts in order; together they are all the items.
    """
    left = [(0, count)] if count else []
    while left:
        start, stop = left.pop()
        try:
            yield Part(start, stop, attempt(start, stop), None)
            continue
        except refused as error:
            reason = error
        if stop - start == 1 or (extra_attempts is not None and extra_attempts < 2):
            yield Part(start, stop, None, reason)
            continue
        extra_attempts = None if extra_attempts is None else extra_attempts - 2
        middle = (start + stop) // 2
        left += [(middle, stop), (start, middle)]
