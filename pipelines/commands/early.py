"""What a command of a few rows begins before its own imports: to open TensorFlow's library takes longer than they."""

import contextlib
import importlib
from collections.abc import Sequence

from sluice.models.errors import UsageError
from sluice.models.uri import parse_model_uri
from sluice.pipelines.options.typed import typed_value

_MODEL = "--model"
_HELP = {"--help", "-h"}
# The modules in native code that the command imports: none can be imported while another library is opened.
_NATIVE = (
    *("_bisect", "_blake2", "_bz2", "_ctypes", "_datetime", "_decimal", "_hashlib", "_json", "_lzma", "_pickle"),
    *("_posixsubprocess", "_queue", "_random", "_sha2", "_sha512", "_socket", "_statistics", "_uuid", "array"),
    *("binascii", "fcntl", "math", "mmap", "select", "zlib"),
    *("numpy", "pyarrow", "pyarrow._compute", "pyarrow._json"),
    *("google._upb._message", "google_crc32c._crc32c", "ml_dtypes", "orjson"),
)


def begin_early(words: Sequence[str]) -> None:
    """Opens TensorFlow's library beside the imports that come, if the command line names a model in this process.

    Help needs no model, and the process would not end before the library is open.
    """
    if _HELP & set(words) or not _is_here(words):
        return
    for name in _NATIVE:
        with contextlib.suppress(ImportError):  # not each build of Python, or of a package, has all of them
            importlib.import_module(name)
    from sluice.models.saved_model.native.preload import begin_to_open

    begin_to_open()


def _is_here(words: Sequence[str]) -> bool:
    model = typed_value(words, _MODEL)
    try:
        return model is not None and parse_model_uri(model).is_here
    except UsageError:  # the command will say so
        return False
