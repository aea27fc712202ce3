"""The time that each phase of a job takes."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

IMPORTS, PLAN, MODEL_LOAD, RUN, COMMIT = "imports", "plan", "model_load", "run", "commit"
# Of a managed job only: rows become instances, the service scores them, answers are joined to the rows.
PREPARE, SCORE, JOIN = "prepare", "score", "join"


class Phases:
    """The seconds of a job's phases, by name. Phases may overlap: a local job loads its model while it is planned.

    Args:
      clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(self, name: str, before: float = 0.0) -> Iterator[None]:
        """Times a block, however it ends.

        Args:
          before: seconds that the phase has taken so far.
        """
        started = self._clock() - before
        try:
            yield
        finally:
            self.note(name, self._clock() - started)

    def note(self, name: str, seconds: float | None) -> None:
        """Notes a phase that was timed elsewhere; None: not known."""
        if seconds is not None:
            self._seconds[name] = seconds

    def seconds(self) -> Mapping[str, float | None]:
        """Returns the seconds of every phase; None where they are not known here, or the phase did not come.

        The phases of a managed job are left out where they did not come.
        """
        managed = [name for name in (PREPARE, SCORE, JOIN) if name in self._seconds]
        return {name: self._seconds.get(name) for name in (IMPORTS, PLAN, MODEL_LOAD, *managed, RUN, COMMIT)}

    def text(self) -> str:
        """Returns the phases that are known, for the log."""
        return ", ".join(f"{name} {secs:.2f} s" for name, secs in self.seconds().items() if secs is not None)


def rounded_phases(seconds: Mapping[str, float | None]) -> dict[str, float | None]:
    """Returns the seconds of phases as a summary shows them."""
    return {name: None if secs is None else round(secs, 3) for name, secs in seconds.items()}


def process_age() -> float:
    """Returns the seconds since this process started. The format of the file is that of proc_pid_stat(5)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
