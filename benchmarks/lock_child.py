"""A process that runs `sluice batch` whenever it is told to, for benchmarks.lock. Runs in any checkout of Sluice.

It imports nothing of benchmarks: it is run as a file, and the checkout that PYTHONPATH names has its own.
"""

import contextlib
import importlib.util
import sys
import time
from collections.abc import Callable

# Before the packages had one import name, the second one.
_CLI = "sluice.pipelines.cli" if importlib.util.find_spec("sluice") else "pipelines.cli"

# How long to hold the lock, to see whether the sampler counts all of it.
_SPIN_SECS = 2.0


def _spin() -> float:
    ends = time.perf_counter() + _SPIN_SECS
    while time.perf_counter() < ends:
        pass
    return _SPIN_SECS


def _batch(arguments: list[str]) -> float:
    started = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        code = importlib.import_module(_CLI).main(["batch", *arguments])
    if code:
        raise SystemExit(f"sluice batch ended with {code}")
    return time.perf_counter() - started


def serve() -> None:
    """Answers each line of standard input, once it is done, with the seconds that it took."""
    for line in sys.stdin:
        kind, *arguments = line.rstrip("\n").split("\t")
        work: Callable[[], float] = _spin if kind == "spin" else lambda: _batch(arguments)  # noqa: B023
        print(work(), flush=True)


if __name__ == "__main__":
    serve()
