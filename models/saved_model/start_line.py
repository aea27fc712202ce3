"""The line that says where and how a model runs, once it is loaded."""

import os
import sys

from sluice.models.devices import CPU
from sluice.models.interface import ModelOptions
from sluice.models.saved_model.way import Way


def start_line(name: str, version: int | None, way: Way, options: ModelOptions) -> str:
    """Returns the model's devices, what runs it, its threads, the memory of the process, and, in a job, versions."""
    found = way.devices()
    used = options.devices.devices or (_first(found),)
    devices = " and ".join(_with_memory(device, found.get(device, 0)) for device in used)
    loaded = "is loaded" if version is None else f"version {version} is loaded"
    within, across = (_threads(wanted) for wanted in (options.intra_op_threads, options.inter_op_threads))
    return (
        f"Model {name}: {loaded} on {devices} by {way.runner}; threads: {within} within an op, {across} across ops; "
        f"memory of this process: {resident_bytes() / 1e6:.0f} MB{versions()}"
    )


def served_line(name: str) -> str:
    """Returns the same of a model that is called over the network."""
    cores, memory = len(os.sched_getaffinity(0)), resident_bytes() / 1e6
    return f"Model {name}: is served; cores of this process: {cores}; its memory: {memory:.0f} MB{versions()}"


def versions() -> str:
    """Returns the versions of what runs a job, to follow other facts; "" in a process without Beam."""
    if "apache_beam" not in sys.modules:
        return ""
    import importlib.metadata  # takes a while, and a command of a few rows needs no versions

    found = []
    for name, package in (("Sluice", "sluice"), ("Apache Beam", "apache-beam")):
        try:
            found.append(f"{name} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:  # it is imported from where it lies
            continue
    return "; " + ", ".join([*found, f"Python {sys.version.split()[0]}"])


def _first(devices: dict[str, int]) -> str:
    """Returns where TensorFlow places the ops that can run there."""
    return next((name for name in devices if not name.startswith(f"{CPU}:")), f"{CPU}:0")


def _with_memory(device: str, size: int) -> str:
    """Returns the device, and its memory that TensorFlow may take; what it says of a CPU means nothing."""
    return device if device.startswith(f"{CPU}:") or not size else f"{device} ({size / 1e6:.0f} MB)"


def _threads(wanted: int) -> int:
    """Returns how many threads TensorFlow makes: 0 are as many as cores that this process may use."""
    return wanted or len(os.sched_getaffinity(0))


def resident_bytes() -> int:
    """Returns the memory that this process holds."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
