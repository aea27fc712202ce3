"""What a process takes from its start to its exit: seconds, CPU, memory."""

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from sluice.models.errors import SluiceError
from sluice.pipelines.compare import measured

_SHOWN_CHARACTERS = 3000


class ProcessFailed(SluiceError):
    """A process that is measured has failed, or has taken too long; the text has the end of what it wrote."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a process took, from its start to its exit.

    Attributes:
      peak_mb: the most memory that was resident.
    """

    secs: float
    cpu_secs: float
    peak_mb: float


def run_measured(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    directory: str | None = None,
    limit_secs: float | None = None,
) -> Cost:
    """Runs a process to its exit; returns its cost.

    Ctrl-C does not reach it: whoever waits for it decides what that means, and it is killed if the wait ends.

    Args:
      limit_secs: it is killed after that; None: never.

    Raises:
      ProcessFailed: its exit code is not 0, or it took too long.
    """
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryFile("w+") as errors:
        cost = os.path.join(place, "cost.json")
        process = subprocess.Popen(
            [sys.executable, *measured.FLAGS, measured.__file__, cost, *command],
            env=None if environment is None else dict(environment),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        try:
            code = process.wait(limit_secs)
        except subprocess.TimeoutExpired as error:
            raise ProcessFailed(f"it took longer than {limit_secs:.0f} s") from error
        finally:
            end_group(process)
        if code:
            errors.seek(0)
            raise ProcessFailed(f"failed:\n{errors.read()[-_SHOWN_CHARACTERS:]}")
        return Cost(**json.loads(Path(cost).read_text()))


def end_group(process: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> None:
    """Kills a process that leads a session, with those that it started, unless it has ended; waits for its end."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read_line(stream: IO[str], limit_secs: float) -> str | None:
    """Returns the next line that a process writes, "" at its end; None: it has written nothing for so long.

    Args:
      stream: of a process that writes a line, and then waits to be asked for another.
    """
    poll = select.poll()
    poll.register(stream, select.POLLIN | select.POLLHUP)
    return stream.readline() if poll.poll(1000 * max(0.0, limit_secs)) else None


def cpu_secs_of(pid: int) -> float:
    """Returns the seconds of CPU that a process has taken. The format of the file is that of proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int | str = "self") -> float:
    """Returns the memory of a process that is resident. The format of the file is that of proc_pid_statm(5)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
