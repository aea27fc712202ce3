"""Lets go of the pages of a library's file that only its loading has read.

The loader reads relocations and names all over TensorFlow's library, and runs its thousands of initialisers: 290 MB of
its file are resident then, and the calls of a model use a fraction of them. They are in the page cache, from which a
page that is used again comes back by itself.
"""

import contextlib
import ctypes
import mmap
import os
import struct
from collections.abc import Iterator, Sequence

_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

# elf(5), of 64 bits: where the head of a file says where its segments are told, and the size and number of the entries.
_TABLE, _ENTRIES = 32, 54
_LOADED, _WRITABLE = 1, 2


def release_pages(paths: Sequence[str]) -> None:
    """Unmaps the pages of libraries' files that nothing writes to. Any thread may use the libraries meanwhile."""
    with contextlib.suppress(OSError):  # no Linux, or a library that is gone
        for start, stop in unwritten_parts(paths):
            _madvise(start, stop - start, mmap.MADV_DONTNEED)


def unwritten_parts(paths: Sequence[str]) -> list[tuple[int, int]]:
    """Returns the parts of memory, as (start, stop), that are parts of libraries' files which nothing ever writes to.

    What the loader has once written to, as to addresses that it relocates, is no part of the file any more, although it
    is read-only now.
    """
    begins = {(os.path.realpath(path), begin) for path in paths for begin in _unwritten_segments(path)}
    found = []
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            span, rights, begin, _, _, *path = line.rstrip("\n").split(maxsplit=5)
            if path and "w" not in rights and (path[0], int(begin, 16)) in begins:
                start, stop = (int(end, 16) for end in span.split("-"))
                found.append((start, stop))
    return found


def _unwritten_segments(path: str) -> Iterator[int]:
    """Yields where the segments of a library begin in its file that are loaded and never writable: a page's begin."""
    with open(path, "rb") as file:
        head = file.read(mmap.PAGESIZE)
    (table,) = struct.unpack_from("<Q", head, _TABLE)
    size, count = struct.unpack_from("<HH", head, _ENTRIES)
    for place in range(table, table + size * count, size):
        kind, rights, begin = struct.unpack_from("<IIQ", head, place)
        if kind == _LOADED and not rights & _WRITABLE:
            yield begin - begin % mmap.PAGESIZE
