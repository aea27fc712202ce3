"""TensorFlow's C API: its functions, declared, and whether the installed library is one that is known to work.

The declarations follow tensorflow/c/c_api.h, tf_tensor.h, tf_tstring.h and, for TF_OpIsStateful, c_api_experimental.h.
"""

import contextlib
import ctypes
import functools
import logging
import os
import threading
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from typing import Any

import numpy as np
import pyarrow as pa

from sluice.models.saved_model.native.entries import entries_of
from sluice.models.saved_model.native.pages import release_pages
from sluice.models.saved_model.native.preload import library_files, open_libraries, tensorflow_directory
from sluice.models.saved_model.native.strings import STRING_SIZE, read_strings
from sluice.models.saved_model.reasons import TensorFlowError
from sluice.models.tensors.strings import Strings

_LOG = logging.getLogger(__name__)

# tensorflow/core/framework/types.proto
STRING = 7
# sizeof(TF_TString): tensorflow/core/platform/ctstring_internal.h


class Output(ctypes.Structure):
    """TF_Output: one output of an operation."""

    _fields_ = (("operation", c_void_p), ("index", c_int))


class Buffer(ctypes.Structure):
    """TF_Buffer."""

    _fields_ = (("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p))


_Outputs, _Tensors, _Dims = POINTER(Output), POINTER(c_void_p), POINTER(c_int64)

# Name: what it returns, then its arguments. Tensors, statuses, graphs and sessions are void*.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "TF_Version": (c_char_p,),
    "TF_NewStatus": (c_void_p,),
    "TF_DeleteStatus": (None, c_void_p),
    "TF_GetCode": (c_int, c_void_p),
    "TF_Message": (c_char_p, c_void_p),
    "TF_NewBuffer": (POINTER(Buffer),),
    "TF_NewBufferFromString": (POINTER(Buffer), c_char_p, c_size_t),
    "TF_DeleteBuffer": (None, POINTER(Buffer)),
    "TF_NewTensor": (c_void_p, c_int, _Dims, c_int, c_void_p, c_size_t, c_void_p, c_void_p),
    "TF_AllocateTensor": (c_void_p, c_int, _Dims, c_int, c_size_t),
    "TF_DeleteTensor": (None, c_void_p),
    "TF_TensorType": (c_int, c_void_p),
    "TF_NumDims": (c_int, c_void_p),
    "TF_Dim": (c_int64, c_void_p, c_int),
    "TF_TensorData": (c_void_p, c_void_p),
    "TF_TensorByteSize": (c_size_t, c_void_p),
    "TF_StringCopy": (None, c_void_p, c_char_p, c_size_t),
    "TF_StringGetDataPointer": (c_void_p, c_void_p),
    "TF_StringGetSize": (c_size_t, c_void_p),
    "TF_NewGraph": (c_void_p,),
    "TF_DeleteGraph": (None, c_void_p),
    "TF_GraphOperationByName": (c_void_p, c_void_p, c_char_p),
    "TF_OperationNumOutputs": (c_int, c_void_p),
    "TF_OperationOutputType": (c_int, Output),
    "TF_OpIsStateful": (c_int, c_char_p, c_void_p),
    "TF_NewImportGraphDefOptions": (c_void_p,),
    "TF_DeleteImportGraphDefOptions": (None, c_void_p),
    "TF_GraphImportGraphDef": (None, c_void_p, POINTER(Buffer), c_void_p, c_void_p),
    "TF_NewSessionOptions": (c_void_p,),
    "TF_DeleteSessionOptions": (None, c_void_p),
    "TF_SetConfig": (None, c_void_p, c_char_p, c_size_t, c_void_p),
    "TF_NewSession": (c_void_p, c_void_p, c_void_p, c_void_p),
    "TF_LoadSessionFromSavedModel": (
        *(c_void_p, c_void_p, POINTER(Buffer), c_char_p, POINTER(c_char_p), c_int),
        *(c_void_p, POINTER(Buffer), c_void_p),
    ),
    "TF_SessionRun": (
        *(None, c_void_p, POINTER(Buffer), _Outputs, _Tensors, c_int, _Outputs, _Tensors, c_int),
        *(POINTER(c_void_p), c_int, POINTER(Buffer), c_void_p),
    ),
    "TF_SessionListDevices": (c_void_p, c_void_p, c_void_p),
    "TF_DeviceListCount": (c_int, c_void_p),
    "TF_DeviceListName": (c_char_p, c_void_p, c_int, c_void_p),
    "TF_DeviceListMemoryBytes": (c_int64, c_void_p, c_int, c_void_p),
    "TF_DeleteDeviceList": (None, c_void_p),
    "TF_CloseSession": (None, c_void_p, c_void_p),
    "TF_DeleteSession": (None, c_void_p, c_void_p),
    "TF_LoadLibrary": (c_void_p, c_char_p, c_void_p),
}

# Functions that take less than a microsecond keep Python's lock. A call of the model makes some 150 of them, and after
# each one that let it go, the thread could wait for 5 ms (sys.getswitchinterval) behind another that computes.
_SHORT = frozenset(
    (
        *("TF_NewStatus", "TF_DeleteStatus", "TF_GetCode", "TF_Message", "TF_NewBufferFromString", "TF_DeleteBuffer"),
        *("TF_NewTensor", "TF_DeleteTensor", "TF_TensorType", "TF_NumDims", "TF_Dim", "TF_TensorData"),
        *("TF_TensorByteSize", "TF_StringGetDataPointer", "TF_StringGetSize", "TF_OperationOutputType"),
    )
)


class Library:
    """The functions of TensorFlow's C API under their own names. Calls leave Python's lock free, but for short ones.

    Attributes:
      version: TF_Version.
      no_op: the address of a native function that ignores its arguments and does nothing: the deallocator of memory
        that Python owns. A Python function in its place would take Python's lock, on TensorFlow's threads.
    """

    def __init__(self, directory: str) -> None:
        handles = open_libraries(directory)
        for name, (result, *arguments) in _FUNCTIONS.items():
            function = _function(handles, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        self.version: str = self.TF_Version().decode()
        self.no_op = ctypes.cast(ctypes.CDLL(None).getpid, c_void_p)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AttributeError(name)

    def checked(self, call: Callable[[int], Any]) -> Any:
        """Returns what `call` returns, given a status to fill.

        Raises:
          TensorFlowError: the status says so.
        """
        status = self.TF_NewStatus()
        try:
            result = call(status)
            if code := self.TF_GetCode(status):
                raise TensorFlowError(code, self.TF_Message(status).decode("utf-8", "replace"))
            return result
        finally:
            self.TF_DeleteStatus(status)

    def is_stateful(self, op: str) -> bool | None:
        """Whether an op has state, or uses some; None if no op of this name is registered."""
        try:
            return bool(self.checked(lambda status: self.TF_OpIsStateful(op.encode(), status)))
        except TensorFlowError:
            return None

    def load_ops(self, path: str) -> None:
        """Registers the ops of a shared library.

        Raises:
          TensorFlowError: it cannot be loaded.
        """
        self.checked(lambda status: self.TF_LoadLibrary(os.fsencode(path), status))


def _function(handles: list[int], name: str) -> Any:
    make = ctypes.PyDLL if name in _SHORT else ctypes.CDLL
    first, second = (make(None, handle=handle) for handle in handles)
    return getattr(first, name, None) or getattr(second, name)


_load_lock = threading.Lock()


def load_library() -> Library | None:
    """Returns the library of the installed TensorFlow; None if there is none that is known to work, which is logged.

    The first call loads it, which takes most of a second; others wait for it.
    """
    with _load_lock:
        return _load_library()


def begin_to_load() -> threading.Thread:
    """Loads the library in a thread, which is returned; an error is met again by `load_library`."""

    def load() -> None:
        with contextlib.suppress(Exception):
            load_library()

    # No daemon: the process must not end in the middle of it.
    thread = threading.Thread(target=load, name="sluice-library", daemon=False)
    thread.start()
    return thread


@functools.cache
def _load_library() -> Library | None:
    library = open_library(tensorflow_directory())
    release_pages(library_files())
    return library


def open_library(directory: str, make: Callable[[str], Library] = Library) -> Library | None:
    """Returns the library in a directory; None if it is not one that is known to work, which is logged."""
    try:
        library = make(directory)
        problem = _what_is_wrong(library)
    except (OSError, AttributeError, ValueError, pa.ArrowException) as error:
        problem = str(error)
    if problem:
        _LOG.warning("TensorFlow's C API is not used, and its Python API is, which is slower: %s", problem)
        return None
    return library


# Strings as TensorFlow stores them: none, the longest within 24 bytes, the shortest beside them, and a long one.
_TEST_SIZES = (0, 22, 23, 1000)


def _what_is_wrong(library: Library) -> str:
    """Returns why the library is not one that we know; "" if it is. Strings have a layout that no header promises."""
    if not library.version.startswith("2."):
        return f"its version is {library.version}, and 2 is known"
    wanted = [(b"0123456789" * 100)[:size] for size in _TEST_SIZES]
    entries = np.zeros((len(wanted), STRING_SIZE), np.uint8)
    address = entries.__array_interface__["data"][0]
    for number, value in enumerate(wanted):
        library.TF_StringCopy(address + STRING_SIZE * number, value, len(value))
    if read_strings(address, len(wanted)).to_pylist() != wanted:
        return f"strings of version {library.version} have another layout"
    strings = Strings.of(pa.array(wanted, pa.binary()))  # of an array of NumPy's, pyarrow would import numpy.ma
    views, _ = entries_of([strings])
    for number, value in enumerate(wanted):
        view = views.__array_interface__["data"][0] + STRING_SIZE * number
        size, data = library.TF_StringGetSize(view), library.TF_StringGetDataPointer(view)
        if size != len(value) or ctypes.string_at(data, size) != value:
            return f"views of strings of version {library.version} have another layout"
    return ""
