"""The arithmetic of mini-batches, without threads: merge, pad, call, and find the rows at fault."""

import dataclasses
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from models.binding import Feeds
from models.errors import BadInput, BatchTooLarge, Cancelled, ServerFault, SluiceError
from models.interface import Outputs


@dataclasses.dataclass(frozen=True)
class RowFailure:
    """Why a row has no prediction.

    Attributes:
      type: the exception's class, e.g. "BadInput".
    """

    type: str
    message: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of rows [start, stop) of a call: an answer, one failure for all, or what kept them from it."""

    start: int
    stop: int
    result: Outputs | RowFailure | SluiceError


def merge_key(feeds: Feeds) -> Hashable:
    """Returns what two requests must share to go into one call: names, dtypes and inner shapes."""
    return tuple((name, array.dtype, array.shape[1:]) for name, array in sorted(feeds.items()))


def row_count(feeds: Feeds) -> int:
    """Returns the number of rows."""
    return len(next(iter(feeds.values())))


def byte_count(feeds: Feeds) -> int:
    """Returns the bytes that the tensors hold; of strings an estimate, with the objects around them."""
    return sum(_string_bytes(array) if array.dtype == object else array.nbytes for array in feeds.values())


# Strings are measured on this many entries of an array: measuring all would cost as much as binding them.
_STRING_SAMPLE = 16
# A bytes object's own size in CPython, and its reference in the array.
_STRING_OVERHEAD = 33 + 8


def _string_bytes(array: np.ndarray) -> int:
    flat = array.reshape(-1)
    if not flat.size:
        return 0
    sample = flat[:: max(1, flat.size // _STRING_SAMPLE)].tolist()
    return int(flat.size * (sum(map(len, sample)) / len(sample) + _STRING_OVERHEAD))


def slice_feeds(feeds: Feeds, start: int, stop: int) -> Feeds:
    """Returns rows [start, stop), without a copy."""
    return {name: array[start:stop] for name, array in feeds.items()}


def merge(parts: Sequence[Feeds]) -> Feeds:
    """Returns the rows of all parts, one after the other; a single part is not copied."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def padded_size(rows: int, allowed: Sequence[int]) -> int:
    """Returns the smallest allowed size that holds the rows; `rows` itself if none is set or none is large enough."""
    return min((size for size in allowed if size >= rows), default=rows)


def pad(feeds: Feeds, size: int) -> Feeds:
    """Returns the feeds with the last row repeated up to `size` rows."""
    extra = size - row_count(feeds)
    if extra <= 0:
        return feeds
    return {name: np.concatenate([array, np.repeat(array[-1:], extra, axis=0)]) for name, array in feeds.items()}


class Isolation:
    """Calls the model on a batch and, where it raises, on ever smaller parts, until each row has its outcome.

    Args:
      call: answers feeds, or raises.
      max_extra_calls: how many calls more than one a batch may cost before the parts still in doubt fail as they are.
      on_ceiling: told how many rows a call may have, where more were too many. A row that is too large by itself says
        nothing about the others.
      raised: errors that are not about rows; `run` raises them.
    """

    def __init__(
        self,
        call: Callable[[Feeds], Outputs],
        max_extra_calls: int,
        on_ceiling: Callable[[int], None],
        raised: tuple[type[SluiceError], ...] = (),
    ) -> None:
        self._call = call
        self._extra_calls = max_extra_calls
        self._on_ceiling = on_ceiling
        self._raised: tuple[type[Exception], ...] = (*raised, Cancelled)
        self._rows_too_large = 0

    def run(self, feeds: Feeds) -> list[Outcome]:
        """Returns outcomes that cover every row once, in order."""
        return self._run(feeds, 0, row_count(feeds))

    def _run(self, feeds: Feeds, start: int, stop: int) -> list[Outcome]:
        try:
            return [Outcome(start, stop, self._call(slice_feeds(feeds, start, stop)))]
        except BatchTooLarge as error:
            before = self._rows_too_large
            self._rows_too_large += stop - start == 1
            outcomes = self._halves(feeds, start, stop, error, free=True)
            if self._rows_too_large == before:
                self._on_ceiling(stop - (start + stop) // 2)  # the larger half
            return outcomes
        except (BadInput, ServerFault) as error:
            return self._halves(feeds, start, stop, error, free=False)
        except self._raised:
            raise
        except SluiceError as error:
            return [Outcome(start, stop, RowFailure(type(error).__name__, str(error)))]
        except Exception as error:  # noqa: BLE001  what a model raises is the model's; its rows get it as their reason
            return self._halves(feeds, start, stop, error, free=False)

    def _halves(self, feeds: Feeds, start: int, stop: int, error: Exception, free: bool) -> list[Outcome]:
        failure = RowFailure(type(error).__name__, str(error))
        if stop - start == 1:
            return [Outcome(start, stop, failure)]
        if not free:
            if self._extra_calls < 2:
                note = f"not isolated: one or more of {stop - start} rows called together; {failure.message}"
                return [Outcome(start, stop, RowFailure(failure.type, note))]
            self._extra_calls -= 2
        middle = (start + stop) // 2
        return [*self._run(feeds, start, middle), *self._run(feeds, middle, stop)]
