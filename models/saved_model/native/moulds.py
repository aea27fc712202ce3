"""Tensors that are made once and filled for each call of few values: to make 39 of them takes longer than a row."""

import collections
import ctypes
import math
import weakref
from collections.abc import Sequence

import numpy as np

from sluice.models.saved_model.native.entries import entries_of
from sluice.models.saved_model.native.library import STRING, Library
from sluice.models.saved_model.native.strings import STRING_SIZE
from sluice.models.saved_model.native.tensors import address_of, view_tensor
from sluice.models.tensors.strings import Tensor

# More values than this are not copied once more: the copy would take as long as what it saves.
_MOST_VALUES = 1024
# So many shapes of calls are kept, and of each so many moulds as calls may run at once.
_MOST_SHAPES, _MOST_OF_ONE = 16, 8
# What TensorFlow's kernels want, and else copy: EIGEN_MAX_ALIGN_BYTES.
_ALIGNMENT = 64


class Mould:
    """TensorFlow's tensors of some shapes over one block of memory, for one call at a time.

    Attributes:
      handles: TF_Tensor* [len(shapes)].
    """

    def __init__(
        self, library: Library, numbers: Sequence[int], dtypes: Sequence[np.dtype], shapes: tuple[tuple[int, ...], ...]
    ) -> None:
        self.shapes = shapes
        self._strings = [at for at, number in enumerate(numbers) if number == STRING]
        self._numbers = [at for at, number in enumerate(numbers) if number != STRING]
        sizes = [
            math.prod(shape) * (STRING_SIZE if number == STRING else dtype.itemsize)
            for number, dtype, shape in zip(numbers, dtypes, shapes, strict=True)
        ]
        starts, end = [0] * len(sizes), 0
        for at in self._strings:  # all their entries one after the other, as entries_of makes them
            starts[at], end = end, end + sizes[at]
        strings_end = end
        for at in self._numbers:
            starts[at] = _padded(end)
            end = starts[at] + sizes[at]
        block = _aligned(end)
        memories = [block[start : start + size] for start, size in zip(starts, sizes, strict=True)]
        self._entries = block[:strings_end].view(np.int64).reshape(-1, STRING_SIZE // 8)
        self._values = [memories[at].view(dtypes[at]).reshape(shapes[at]) for at in self._numbers]
        made = [view_tensor(library, *each) for each in zip(numbers, shapes, memories, strict=True)]
        self.handles = (ctypes.c_void_p * len(made))(*made)
        weakref.finalize(self, _delete, library, made, block).atexit = False

    def fill(self, tensors: Sequence[Tensor]) -> object:
        """Copies the values of a call; returns what the strings point into, which has to be kept meanwhile.

        Raises:
          pa.ArrowException: an object is neither bytes nor text.
        """
        for at, values in zip(self._numbers, self._values, strict=True):
            values[...] = tensors[at]
        if not self._strings:
            return None
        entries, kept = entries_of([tensors[at] for at in self._strings])
        self._entries[...] = entries
        return kept


class Moulds:
    """The moulds of a graph's feeds that are free. Thread-safe."""

    def __init__(self, library: Library, numbers: Sequence[int], dtypes: Sequence[np.dtype]) -> None:
        self._library, self._numbers, self._dtypes = library, numbers, dtypes
        self._free: dict[tuple[tuple[int, ...], ...], collections.deque[Mould]] = {}

    def take(self, tensors: Sequence[Tensor]) -> Mould | None:
        """Returns a mould of the tensors' shapes; None where they are large, or of other dtypes than the graph's."""
        if sum([tensor.size for tensor in tensors]) > _MOST_VALUES:
            return None
        if any(tensor.dtype is not dtype for tensor, dtype in zip(tensors, self._dtypes, strict=True)):
            return None
        shapes = tuple([tensor.shape for tensor in tensors])
        try:
            return self._free[shapes].pop()
        except (KeyError, IndexError):
            return Mould(self._library, self._numbers, self._dtypes, shapes)

    def give(self, mould: Mould) -> None:
        """Takes a mould back whose call has ended well."""
        if mould.shapes not in self._free and len(self._free) >= _MOST_SHAPES:
            self._free = {}
        self._free.setdefault(mould.shapes, collections.deque(maxlen=_MOST_OF_ONE)).append(mould)


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _aligned(size: int) -> np.ndarray:
    """Returns uint8 [size] that begins at a multiple of the alignment."""
    block = np.empty(size + _ALIGNMENT, np.uint8)
    skipped = -address_of(block) % _ALIGNMENT
    return block[skipped : skipped + size]


def _delete(library: Library, handles: Sequence[int], block: np.ndarray) -> None:
    """Deletes tensors; the block lives until then."""
    for handle in handles:
        library.TF_DeleteTensor(handle)
