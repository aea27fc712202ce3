"""`sluice streaming` as a process of its own, watched through its health port."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any, Self

from sluice.models.errors import SluiceError

_POLL_SECS = 0.1
_CALL_SECS = 20.0
_DRAIN_SECS = 30.0


class JobProcess:
    """A streaming job, which is killed at the end of the `with` block unless it was drained.

    Its process group is its own, so that ctrl-C does not reach it: its starter decides what ctrl-C means.

    Args:
      flags: of `sluice streaming`; a health port is added.
    """

    def __init__(self, flags: Sequence[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self._command = [sys.executable, "-m", "sluice", "streaming", *flags, f"--health_port={self._port}"]
        # A proxy that this machine is set up for is not asked for what is on the machine itself.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, process_group=0)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def figures(self) -> dict[str, Any]:
        """Returns the figures of the health port, see StreamFigures.to_json; {} until it answers."""
        try:
            with self._opener.open(f"http://127.0.0.1:{self._port}/figures", timeout=_CALL_SECS) as response:
                return dict(json.load(response))
        except OSError:
            return {}

    def wait_for(self, count: int, secs: float) -> None:
        """Waits until so many messages are done. Raises as `wait_until`."""
        self.wait_until(lambda figures: figures["messages"] >= count, f"{count:,} messages are done", secs)

    def wait_until(self, done: Callable[[dict[str, Any]], bool], what: str, secs: float) -> None:
        """Waits until a condition holds for the figures.

        Args:
          what: the condition in words, for an error.

        Raises:
          SluiceError: it does not hold in time, or the job has ended.
        """
        deadline = time.monotonic() + secs
        while not ((figures := self.figures()) and done(figures)):
            if self._process.poll() is not None:
                raise SluiceError(f"the job ended by itself, with exit code {self._process.returncode}")
            if time.monotonic() > deadline:
                raise SluiceError(f"gave up after waiting {secs:g} s until {what}; the job's figures: {figures}")
            time.sleep(_POLL_SECS)

    def drain(self) -> int:
        """Lets the job finish the messages in work; returns its exit code.

        Raises:
          SluiceError: it does not end.
        """
        self._process.terminate()
        try:
            return self._process.wait(_DRAIN_SECS)
        except subprocess.TimeoutExpired as error:
            raise SluiceError(f"the job still runs {_DRAIN_SECS:g} s after it was asked to stop") from error
