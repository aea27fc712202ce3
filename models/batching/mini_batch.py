"""Operations on mini-batches, without threads: merge, slice, pad, call, and find the rows at fault."""

import dataclasses
import functools
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
from sluice.models.isolate import Part, isolate
from sluice.models.tensors.binding import Feeds
from sluice.models.tensors.strings import Strings, Tensor, concatenate, repeat_last


@dataclasses.dataclass(frozen=True)
class RowFailure:
    """Why a row has no prediction.

    Attributes:
      type: the exception's class, e.g. "BadInput".
    """

    type: str
    message: str

    @classmethod
    def of(cls, error: BaseException) -> "RowFailure":
        return cls(type(error).__name__, str(error))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of rows [start, stop) of a call: outputs, one failure for all, or an error that is not about rows."""

    start: int
    stop: int
    result: Outputs | RowFailure | SluiceError


def merge_key(feeds: Feeds) -> Hashable:
    """Returns what requests must share to go into one call: names, dtypes and inner shapes."""
    return tuple((name, array.dtype, array.shape[1:]) for name, array in sorted(feeds.items()))


def row_count(feeds: Feeds) -> int:
    """Returns the number of rows."""
    return len(next(iter(feeds.values())))


def byte_count(feeds: Feeds, exact: bool = False) -> int:
    """Returns the bytes of the tensors; strings count with what each costs besides.

    Args:
      exact: measure every string. Otherwise a sample: measuring all costs as much as binding them.
    """
    return sum(_byte_count(tensor, exact) for tensor in feeds.values())


def _byte_count(tensor: Tensor, exact: bool) -> int:
    if isinstance(tensor, Strings) or tensor.dtype != object:
        return tensor.nbytes
    return _string_bytes(tensor, exact)


# How many strings of an array are measured.
_STRING_SAMPLE = 16
_SHORT_STRING = 64
# The size of an empty bytes object in CPython, and of its reference in the array.
_STRING_OVERHEAD = 33 + 8


def _string_bytes(array: np.ndarray, exact: bool) -> int:
    flat = array.reshape(-1)
    if not flat.size:
        return 0
    sample = flat[:: max(1, flat.size // _STRING_SAMPLE)].tolist()
    mean = sum(map(len, sample)) / len(sample)
    if exact:
        values = flat.tolist()  # joining short strings and measuring once is faster than measuring each
        mean = (len(b"".join(values)) if mean <= _SHORT_STRING else sum(map(len, values))) / flat.size
    return int(flat.size * (mean + _STRING_OVERHEAD))


def slice_feeds(feeds: Feeds, start: int, stop: int) -> Feeds:
    """Returns rows [start, stop), without a copy."""
    return {name: array[start:stop] for name, array in feeds.items()}


def merge(parts: Sequence[Feeds]) -> Feeds:
    """Returns the rows of all parts in order; a single part is not copied."""
    if len(parts) == 1:
        return parts[0]
    return {name: concatenate([part[name] for part in parts]) for name in parts[0]}


def padded_size(rows: int, allowed: Sequence[int]) -> int:
    """Returns the smallest allowed size that is at least `rows`; `rows` itself if there is none."""
    return min((size for size in allowed if size >= rows), default=rows)


def pad(feeds: Feeds, size: int) -> Feeds:
    """Returns the feeds with the last row repeated up to `size` rows."""
    extra = size - row_count(feeds)
    if extra <= 0:
        return feeds
    return {name: concatenate([array, repeat_last(array, extra)]) for name, array in feeds.items()}


class _AllBreak(SluiceError):
    """The model breaks on every row."""


class _ModelError(Exception):
    """Wraps (as its cause) an exception that is not Sluice's own: only the model's code can have raised it."""


class Isolation:
    """Calls the model on a batch and, where it raises, on halves, until each row has its outcome. For one batch.

    Args:
      call: answers feeds, or raises.
      max_extra_calls: how many more calls than one a batch may cost. Then the parts still in doubt fail whole. Halving
        a batch that is too large does not count.
      on_ceiling: receives an error of too many rows, and rows that a call may have. A row that is too large by itself
        says nothing about the others.
      raised: errors that are not about rows; `run` raises them.
      others_pass: whether the model answers other calls meanwhile; receives the number of rows. If it does not, and the
        model breaks on every call of this batch, then no row is at fault.
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
        self._max_extra_calls = max_extra_calls
        self._on_ceiling = on_ceiling
        self._raised: tuple[type[Exception], ...] = (*raised, Cancelled, _AllBreak)
        self._fails_job = Unavailable in raised
        self._others_pass = others_pass
        self._too_large: list[tuple[int, int, BatchTooLarge]] = []  # parts of which some rows have no outcome yet
        self._last_huge_row = -1  # too large by itself
        self._passed = False  # some part was answered
        self._broken = 0  # single rows that the server broke on

    def run(self, feeds: Feeds) -> list[Outcome]:
        """Returns outcomes that cover every row once, in order.

        Raises:
          SluiceError: one of `raised`; Unavailable if the model breaks on every row and Unavailable is in `raised`.
        """
        rows = row_count(feeds)
        refused = (BatchTooLarge, BadInput, ServerFault, _ModelError)
        attempt = functools.partial(self._attempt, feeds)
        outcomes = []
        try:
            for part in isolate(rows, attempt, refused, self._max_extra_calls, free=BatchTooLarge):
                outcomes.append(_outcome(part))
                self._note_ceilings(feeds, part.stop)
        except _AllBreak as error:
            if self._fails_job:
                raise Unavailable(str(error)) from error
            return [Outcome(0, rows, RowFailure("ServerFault", str(error)))]
        return outcomes

    def _attempt(self, feeds: Feeds, start: int, stop: int) -> Outputs | RowFailure:
        """Calls the model on rows [start, stop). Returns one failure for all of them if halves would fail alike."""
        try:
            outputs = self._call(slice_feeds(feeds, start, stop))
        except BatchTooLarge as error:
            if stop - start == 1:
                self._last_huge_row = start
            else:
                self._too_large.append((start, stop, error))
            raise
        except BadInput:
            self._passed = True  # the model is there, and looks at rows
            raise
        except ServerFault as error:
            self._broken += stop - start == 1
            self._check_all_break(error, row_count(feeds))
            raise
        except self._raised:
            raise
        except SluiceError as error:
            return RowFailure.of(error)
        except Exception as error:
            raise _ModelError from error
        self._passed = True
        return outputs

    def _check_all_break(self, error: ServerFault, rows: int) -> None:
        """Raises _AllBreak once two single rows, or the only one, broke the server and nothing was answered."""
        if self._broken >= min(2, rows) and not self._passed and not self._others_pass(rows):
            raise _AllBreak(f"{error}; it is so whatever the rows") from error

    def _note_ceilings(self, feeds: Feeds, done: int) -> None:
        """Reports the parts that were too large and of which all rows, up to `done`, have their outcome now."""
        while self._too_large and self._too_large[-1][1] <= done:
            start, stop, error = self._too_large.pop()
            if self._last_huge_row < start:
                self._on_ceiling(error, _larger_half(error, slice_feeds(feeds, start, stop)))


def _outcome(part: Part[Outputs | RowFailure]) -> Outcome:
    if part.error is None:
        assert part.result is not None
        return Outcome(part.start, part.stop, part.result)
    cause = part.error.__cause__ if isinstance(part.error, _ModelError) else None
    failure = RowFailure.of(cause or part.error)
    rows = part.stop - part.start
    if rows > 1:
        note = f"not isolated: one or more of {rows} rows called together; {failure.message}"
        failure = RowFailure(failure.type, note)
    return Outcome(part.start, part.stop, failure)


def _larger_half(error: BatchTooLarge, feeds: Feeds) -> Feeds:
    """Returns the half with more of what was too much: rows or bytes."""
    rows = row_count(feeds)
    halves = slice_feeds(feeds, 0, rows // 2), slice_feeds(feeds, rows // 2, rows)
    if isinstance(error, MessageTooLarge):
        return max(halves, key=lambda half: byte_count(half, exact=True))
    return halves[1]
