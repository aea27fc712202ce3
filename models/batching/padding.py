"""Chooses the sizes that calls are padded to: those that the user allows, or the one that the signature fixes."""

import math

from sluice.models.batching.mini_batch import padded_size
from sluice.models.errors import BatchTooLarge, CallError
from sluice.models.signature import Signature


class Padding:
    """The sizes of padded calls. Thread-safe.

    Args:
      allowed: a call is padded up to one of these; empty: any size. A batch size that the signature fixes overrides it.
    """

    def __init__(self, signature: Signature, allowed: tuple[int, ...]) -> None:
        fixed = {spec.shape[0] for spec in signature.inputs if spec.shape and spec.shape[0] is not None}
        self._fixed = tuple(sorted(size for size in fixed if size))
        self._allowed = self._fixed or allowed
        self._limit = math.inf  # the smallest padded size that was too large

    def largest(self, max_batch_size: int) -> int:
        """Returns the most rows of one call: padding exceeds `max_batch_size` only if every allowed size does."""
        fitting = [size for size in self._allowed if size <= max_batch_size]
        return max(fitting) if fitting else max_batch_size

    def size(self, rows: int) -> int:
        """Returns the size of a call with this many rows."""
        return padded_size(rows, [size for size in self._allowed if size < self._limit])

    def shrink(self, size: int, rows: int, error: BatchTooLarge) -> None:
        """Makes later calls smaller, because a call of `rows` rows padded to `size` was too large.

        Raises:
          BatchTooLarge: the call was not padded.
          CallError: the signature fixes the size.
        """
        if size in self._fixed:
            raise CallError(f"the signature fixes a call at {size} rows, which are too many: {error}") from error
        if size == rows:
            raise error
        self._limit = min(self._limit, size)
