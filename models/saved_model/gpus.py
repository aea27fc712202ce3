"""GPUs that this machine has and TensorFlow does not use, and why: TensorFlow itself only logs it."""

import functools
import glob
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping

from sluice.models.saved_model.native.preload import library_files

_LOG = logging.getLogger(__name__)

_NVIDIA = "0x10de"
_DISPLAY_CLASS = "0x03"  # of PCI: display controllers
_SECS = 120.0

# What TensorFlow logs of a GPU that it does not use, in cudart_stub.cc, gpu_device.cc, cuda_diagnostics.cc and
# dso_loader.cc; the most telling first.
_REASONS = tuple(
    map(
        re.compile,
        (
            r"Could not load dynamic library.*",
            r"Ignoring visible gpu device.*",
            r"Cannot dlopen some GPU libraries.*",
            r"kernel driver does not appear to be running.*",
            r"kernel version \S+ does not match DSO version.*",
            r"failed call to cuInit.*",
            r"Could not find cuda drivers.*",
            r"No supported cuda devices.*",
        ),
    )
)


def gpus_here(root: str = "/") -> int:
    """Returns how many of NVIDIA's GPUs this machine has, whether or not their driver is there."""
    driven = glob.glob(os.path.join(root, "dev/nvidia[0-9]*"))
    known = glob.glob(os.path.join(root, "proc/driver/nvidia/gpus/*"))
    return max(len(driven), len(known)) or sum(map(_is_gpu, glob.glob(os.path.join(root, "sys/bus/pci/devices/*"))))


def _is_gpu(device: str) -> bool:
    try:
        vendor, kind = (_read(os.path.join(device, name)) for name in ("vendor", "class"))
    except OSError:
        return False
    return vendor == _NVIDIA and kind.startswith(_DISPLAY_CLASS)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def shown_gpus(here: int, environment: Mapping[str, str]) -> int:
    """Returns how many of the machine's GPUs the user lets CUDA see."""
    shown = environment.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return here
    names = [name.strip() for name in shown.split(",")]
    stop = next((at for at, name in enumerate(names) if name in ("", "-1")), len(names))
    return min(here, stop)


def gpu_trouble(used: int, here: int, explain: Callable[[], str]) -> str:
    """Returns a warning of GPUs that TensorFlow does not use; "" if it uses all.

    Args:
      used: how many devices of type GPU TensorFlow lists.
      here: how many it could have.
      explain: returns what TensorFlow logs when it looks for GPUs.
    """
    if used >= here:
        return ""
    found = (
        f"TensorFlow uses {used} of this machine's {here} GPU(s)" if used else "TensorFlow uses no GPU of this machine"
    )
    return f"{found}: {reason_in(explain())}"


def reason_in(log: str) -> str:
    """Returns why TensorFlow uses no GPU, from what it has logged."""
    for pattern in _REASONS:
        if match := pattern.search(log):
            return match.group().strip()
    return "it does not say why; a TensorFlow without CUDA, or a container without the GPU's driver, says nothing"


@functools.cache
def warn_of_unused_gpus(used: int, root: str = "/") -> None:
    """Logs why TensorFlow does not use a GPU of this machine, once in a process."""
    if trouble := gpu_trouble(used, shown_gpus(gpus_here(root), os.environ), tensorflow_log):
        _LOG.warning("%s. --device CPU:0 says that none is wanted", trouble)


# Makes a session, with TensorFlow's log on. This process has its log off, and cannot turn it on any more.
_SESSION = """
import ctypes, sys
handles = [ctypes.CDLL(path, ctypes.RTLD_GLOBAL) for path in sys.argv[1:]]
for name in ("TF_NewStatus", "TF_NewGraph", "TF_NewSessionOptions", "TF_NewSession"):
    getattr(handles[0], name).restype = ctypes.c_void_p
void = ctypes.c_void_p
handles[0].TF_NewSession(
    void(handles[0].TF_NewGraph()), void(handles[0].TF_NewSessionOptions()), void(handles[0].TF_NewStatus())
)
"""


def tensorflow_log() -> str:
    """Returns what TensorFlow logs when it looks for devices, in a process of its own."""
    command = [sys.executable, "-c", _SESSION, *library_files()]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "0"}
    try:
        done = subprocess.run(command, capture_output=True, env=environment, timeout=_SECS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stderr.decode("utf-8", "replace")
