"""The machine and the libraries that a report was made on."""

import importlib.metadata
import os
import platform

from sluice.pipelines.report.data import Column, Data
from sluice.pipelines.report.page import Section

_LIBRARIES = (
    "sluice",
    "apache-beam",
    "tensorflow",
    "numpy",
    "pyarrow",
    "tfx-bsl",
    "grpcio",
    "aiohttp",
    "google-cloud-pubsub",
    "google-cloud-bigquery-storage",
    "vl-convert-python",
)


def machine_section(group: str = "") -> Section:
    """Returns what this process runs on, and the versions of the libraries that matter."""
    facts = [*_machine(), *((name, _version(name)) for name in _LIBRARIES)]
    rows = tuple((name, value) for name, value in facts if value)
    data = Data((Column("name", "What"), Column("value", "Found")), rows)
    return Section("Machine and versions", "Of the process that wrote this page.", data, group=group)


def _machine() -> list[tuple[str, str]]:
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        ("Processor", processor()),
        ("Cores", str(cores)),
        ("Memory", f"{memory:.1f} GiB"),
        ("System", f"{platform.system()} {platform.release()}"),
        ("Python", platform.python_version()),
    ]


def processor() -> str:
    """Returns the name of the processor, which platform.processor() does not know on Linux."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        lines = []
    return lines[0] if lines else platform.machine()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
