"""Real servers on loopback, started for the tests that need them and stopped by process id.

Each has a context manager here and a fixture in tests/conftest.py.
"""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TypeVar

import pytest

Found = TypeVar("Found")

_START_SECS = 30.0
_POLL_SECS = 0.05
_STOP_SECS = 10.0


def require(server: Found | None, reason: str) -> Found:
    """Returns what was found of a server; without it the test is skipped, or fails where REQUIRE_SERVERS=1.

    Args:
      server: whatever names it (a path, a command); None or empty if it is not there.
      reason: which server is missing and what to install.
    """
    if server:
        return server
    if os.environ.get("REQUIRE_SERVERS") == "1":
        pytest.fail(f"REQUIRE_SERVERS=1: {reason}", pytrace=False)
    pytest.skip(reason)


def free_port() -> int:
    """Returns a port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    """Whether a GET of the URL succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(200 <= response.status < 300)
    except OSError:
        return False


@contextlib.contextmanager
def running(command: Sequence[str], is_up: Callable[[], bool], start_secs: float = _START_SECS) -> Iterator[int]:
    """Runs a server while the block runs; gives its process id.

    Args:
      is_up: whether it answers; asked until it does.

    Raises:
      RuntimeError: it ended, or does not answer in time; the text has what it printed.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _wait_until_up(process, is_up, start_secs, log)
            yield process.pid
        finally:
            _stop(process)


def _wait_until_up(process: "subprocess.Popen[bytes]", is_up: Callable[[], bool], secs: float, log: IO[bytes]) -> None:
    for _ in range(int(secs / _POLL_SECS)):
        if is_up():
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(_POLL_SECS)
            raise RuntimeError(f"{process.args!r} ended with code {code}: {_printed(log)}")
    raise RuntimeError(f"{process.args!r} does not answer after {secs:g} s: {_printed(log)}")


def _printed(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")[-2000:]


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Gcs:
    """An emulator of Google Cloud Storage with one bucket.

    Attributes:
      url: http://127.0.0.1:PORT, as STORAGE_EMULATOR_HOST takes it.
    """

    url: str
    bucket: str

    def path(self, name: str) -> str:
        """Returns the gs:// path of an object, or of a directory, in the bucket."""
        return f"gs://{self.bucket}/{name}"


@contextlib.contextmanager
def gcs_emulator(bucket: str = "bkt") -> Iterator[Gcs]:
    """Runs gcp-storage-emulator, in memory, with an empty bucket."""
    require(
        importlib.util.find_spec("gcp_storage_emulator"),
        "the GCS emulator is not installed: pip install gcp-storage-emulator",
    )
    port = free_port()
    gcs = Gcs(f"http://127.0.0.1:{port}", bucket)
    arguments = ["start", "--host=127.0.0.1", f"--port={port}", "--in-memory", f"--default-bucket={bucket}", "--quiet"]
    with running(
        [sys.executable, "-m", "gcp_storage_emulator", *arguments],
        lambda: answers(f"{gcs.url}/storage/v1/b/{bucket}"),
    ):
        yield gcs


@contextlib.contextmanager
def beam_uses(gcs: Gcs) -> Iterator[None]:
    """Sends gs:// of this process, and of those it starts, to the emulator while the block runs.

    Where a machine has no credentials Beam looks for them again and again, for some 20 s and once per process; here it
    is told that it has found none, which makes its client anonymous. A process that is started does look.
    """
    from apache_beam.internal.gcp.auth import _Credentials

    patch = pytest.MonkeyPatch()
    patch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    patch.setattr(_Credentials, "_credentials_init", True)
    patch.setattr(_Credentials, "_credentials", None)
    try:
        yield
    finally:
        patch.undo()
