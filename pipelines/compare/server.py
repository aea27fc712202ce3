"""The reference server, started for a measurement in a process of its own."""

import contextlib
import dataclasses
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from sluice.models.errors import SluiceError
from sluice.pipelines.compare.costs import cpu_secs_of, end_group, read_line, resident_mb

NAME = "model"
# A large model takes a while to load.
_START_SECS = 900.0


@dataclasses.dataclass(frozen=True)
class Server:
    """A server that runs."""

    grpc_port: int
    rest_port: int
    pid: int

    @property
    def grpc_uri(self) -> str:
        return f"grpc://127.0.0.1:{self.grpc_port}/{NAME}"

    @property
    def rest_uri(self) -> str:
        return f"http://127.0.0.1:{self.rest_port}/v1/models/{NAME}"

    @property
    def cpu_secs(self) -> float:
        """The CPU that it has taken so far."""
        return cpu_secs_of(self.pid)

    @property
    def resident_mb(self) -> float:
        return resident_mb(self.pid)


@contextlib.contextmanager
def serve(model: str, *flags: str) -> Iterator[Server]:
    """Runs `sluice serve` on free ports while the block runs; ctrl-C does not reach it.

    Raises:
      SluiceError: it does not start; the text is its own.
    """
    command = [sys.executable, "-m", "sluice", "serve", "--model", model, "--name", NAME]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*command, "--grpc_port", "0", "--rest_port", "0", "--poll_secs", "0", *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            line = read_line(process.stdout, _START_SECS)
            if line is None:
                raise SluiceError(f"the reference server has not started within {_START_SECS:.0f} s")
            ports = re.findall(r"127\.0\.0\.1:(\d+)", line)
            if len(ports) != 2:
                process.wait()
                errors.seek(0)
                raise SluiceError(f"the reference server does not start: {errors.read().strip()}")
            yield Server(int(ports[0]), int(ports[1]), process.pid)
        finally:
            end_group(process)
            process.stdout.close()
