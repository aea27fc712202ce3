"""The arithmetic of mini-batches, without threads: merge, pad, call, and find the rows at fault."""

import dataclasses
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from sluice.models.errors import (
    BadInput,
    BatchTooLarge,
    Cancelled,
    MessageTooLarge,
    ServerFault,
    SluiceError,
    Unavailable,
)
from sluice.models.interface import Outputs
from sluice.models.tensors.binding import Feeds


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


def byte_count(feeds: Feeds, exact: bool = False) -> int:
    """Returns the bytes that the tensors hold; of strings with the objects around them.

    Args:
      exact: measure every string. Otherwise some of them: measuring all would cost as much as binding them.
    """
    return sum(_string_bytes(array, exact) if array.dtype == object else array.nbytes for array in feeds.values())


# Strings are measured on this many entries of an array.
_STRING_SAMPLE = 16
_SHORT_STRING = 64
# A bytes object's own size in CPython, and its reference in the array.
_STRING_OVERHEAD = 33 + 8


def _string_bytes(array: np.ndarray, exact: bool) -> int:
    flat = array.reshape(-1)
    if not flat.size:
        return 0
    sample = flat[:: max(1, flat.size // _STRING_SAMPLE)].tolist()
    mean = sum(map(len, sample)) / len(sample)
    if exact:
        values = flat.tolist()  # short ones are joined and measured sooner than each by itself
        mean = (len(b"".join(values)) if mean <= _SHORT_STRING else sum(map(len, values))) / flat.size
    return int(flat.size * (mean + _STRING_OVERHEAD))


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


class _AllBreak(SluiceError):
    """The model breaks on every row."""


class Isolation:
    """Calls the model on a batch and, where it raises, on ever smaller parts, until each row has its outcome.

    Args:
      call: answers feeds, or raises.
      max_extra_calls: how many calls more than one a batch may cost before the parts still in doubt fail as they are.
      on_ceiling: told of an error and of rows that a call may have, where more were too many. A row that is too large
        by itself says nothing about the others.
      raised: errors that are not about rows; `run` raises them.
      others_pass: whether the model answers other calls meanwhile: if it does not, and breaks on whatever it is called
        with, then no row is at fault. Given the number of rows.
    """

    def __init__(
        self,
        call: Callable[[Feeds], Outputs],
        max_extra_calls: int,
        on_ceiling: Callable[[BatchTooLarge, Feeds], None],
        raised: tuple[type[SluiceError], ...] = (),
        others_pass: Callable[[int], bool] = lambda rows: False,
    ) -> None:
        self._call = call
        self._extra_calls = max_extra_calls
        self._on_ceiling = on_ceiling
        self._raised: tuple[type[Exception], ...] = (*raised, Cancelled, _AllBreak)
        self._fails_job = Unavailable in raised
        self._others_pass = others_pass
        self._rows_too_large = 0
        self._passed = False  # some part was answered
        self._broken = 0  # single rows that the server broke on

    def run(self, feeds: Feeds) -> list[Outcome]:
        """Returns outcomes that cover every row once, in order.

        Raises:
          SluiceError: one of `raised`; Unavailable where the model breaks on every row, if that is one of them.
        """
        rows = row_count(feeds)
        try:
            return self._run(feeds, 0, rows)
        except _AllBreak as error:
            if self._fails_job:
                raise Unavailable(str(error)) from error
            return [Outcome(0, rows, RowFailure("ServerFault", str(error)))]

    def _run(self, feeds: Feeds, start: int, stop: int) -> list[Outcome]:
        try:
            outputs = self._call(slice_feeds(feeds, start, stop))
            self._passed = True
            return [Outcome(start, stop, outputs)]
        except BatchTooLarge as error:
            before = self._rows_too_large
            self._rows_too_large += stop - start == 1
            outcomes = self._halves(feeds, start, stop, error, free=True)
            if self._rows_too_large == before:
                self._on_ceiling(error, _larger_half(error, slice_feeds(feeds, start, stop)))
            return outcomes
        except BadInput as error:
            self._passed = True  # the model is there, and looks at rows
            return self._halves(feeds, start, stop, error, free=False)
        except ServerFault as error:
            self._broken += stop - start == 1
            alone = row_count(feeds) == 1
            if self._broken >= (1 if alone else 2) and not self._passed and not self._others_pass(row_count(feeds)):
                raise _AllBreak(f"{error}; it is so whatever the rows") from error
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


def _larger_half(error: BatchTooLarge, feeds: Feeds) -> Feeds:
    """The half with more of what was too much: rows, or bytes."""
    rows = row_count(feeds)
    halves = slice_feeds(feeds, 0, rows // 2), slice_feeds(feeds, rows // 2, rows)
    if isinstance(error, MessageTooLarge):
        return max(halves, key=lambda half: byte_count(half, exact=True))
    return halves[1]
