"""Opens TensorFlow's shared libraries: in a thread too, beside imports, for which this module imports little."""

import contextlib
import ctypes
import importlib.util
import os
import threading
from ctypes import c_char_p, c_int, c_void_p

from sluice.models.saved_model.tensorflow_import import quiet_stderr

_FILES = ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")

_lock = threading.Lock()
_opened: dict[str, list[int]] = {}


def tensorflow_directory() -> str:
    """Returns where the installed TensorFlow is; "" if there is none."""
    spec = importlib.util.find_spec("tensorflow")
    places = (spec.submodule_search_locations if spec else None) or [""]
    return places[0]


def library_files() -> list[str]:
    """Returns the paths of the installed TensorFlow's libraries; [] if there is none."""
    directory = tensorflow_directory()
    return [os.path.join(directory, name) for name in _FILES] if directory else []


def open_libraries(directory: str) -> list[int]:
    """Returns the handles of TensorFlow's libraries in a directory. The first call takes most of a second.

    Raises:
      OSError: one cannot be opened.
    """
    with _lock:
        if directory not in _opened:
            # Start-up lines of TensorFlow's C++ side drown the progress line, and no log level silences the first.
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
            with quiet_stderr():
                _opened[directory] = [_open(os.path.join(directory, name)) for name in _FILES]
        return _opened[directory]


def begin_to_open() -> None:
    """Opens the installed TensorFlow's libraries in a thread. An error is met again by `open_libraries`.

    Modules in native code that are imported meanwhile wait for it, so the caller imports those first.
    """

    def run() -> None:
        with contextlib.suppress(OSError):
            open_libraries(tensorflow_directory())

    # No daemon: the process must not end in the middle of it.
    threading.Thread(target=run, name="sluice-library", daemon=False).start()


def _open(path: str) -> int:
    """Loads a shared library.

    ctypes.CDLL alone keeps Python's lock meanwhile, and binds every function at once, which takes half as long again.

    Raises:
      OSError: it cannot be loaded.
    """
    loader = ctypes.CDLL(None)
    loader.dlopen.restype, loader.dlopen.argtypes = c_void_p, (c_char_p, c_int)
    loader.dlerror.restype, loader.dlerror.argtypes = c_char_p, ()
    handle = loader.dlopen(os.fsencode(path), os.RTLD_LAZY)
    if not handle:
        raise OSError((loader.dlerror() or b"").decode("utf-8", "replace") or f"{path} cannot be loaded")
    return int(handle)
