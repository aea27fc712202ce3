"""Mini-batches and their outcomes: merge, slice, pad, measure."""

import dataclasses
from collections.abc import Hashable, Sequence

import numpy as np

from sluice.models.errors import CallError, SluiceError
from sluice.models.interface import Outputs
from sluice.models.tensors.binding import Feeds
from sluice.models.tensors.strings import Strings, Tensor, concatenate, repeat_last
from sluice.models.wording import text_of


@dataclasses.dataclass(frozen=True)
class RowFailure:
    """Why a row has no prediction.

    Attributes:
      type: the exception's class, e.g. "BadInput".
      proven: False: no row has ever passed, so the model may be at fault instead.
      version: of the model that failed on the row; None: the error does not tell.
    """

    type: str
    message: str
    proven: bool = dataclasses.field(default=True, compare=False)
    version: int | None = dataclasses.field(default=None, compare=False)

    @classmethod
    def of(cls, error: BaseException) -> "RowFailure":
        return cls(
            type(error).__name__, text_of(error), version=error.version if isinstance(error, CallError) else None
        )


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
