"""Searches in bytes that leave Python's lock free: `in` keeps it, and wants a copy of what is in Arrow's memory."""

import ctypes

import numpy as np

_memmem = ctypes.CDLL(None).memmem
_memmem.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)
_memmem.restype = ctypes.c_void_p


def holds(data: bytes | memoryview, text: bytes) -> bool:
    """Whether the text, which is not empty, is somewhere in the data.

    Args:
      data: a memoryview is of bytes and contiguous.
    """
    if isinstance(data, bytes):
        return _memmem(data, len(data), text, len(text)) is not None
    if not data.nbytes:
        return False
    address = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    return _memmem(address, data.nbytes, text, len(text)) is not None
