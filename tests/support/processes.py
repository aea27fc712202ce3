"""Runs our commands in new processes, forked from one that has loaded TensorFlow, Beam and the code of our jobs.

A new Python process spends 8 s of CPU on those imports, a forked one 0.1 s. The parent of the forks is Python's fork
server, a fresh process with one working thread, so a fork inherits no lock of the tests.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

import sluice as sluice_package
from tests.support.paths import ROOT
from tests.support.quick_beam import remember_arguments

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "tensorflow",
        "apache_beam",
        "apache_beam.io.gcp.pubsub",
        "apache_beam.runners.portability.fn_api_runner",
        "google.cloud.aiplatform_v1",
        "google.cloud.bigquery",
        "google.cloud.bigquery_storage_v1",
        "google.pubsub_v1",
        "grpc",
        "pyarrow.parquet",
        "pytest",
        "sluice.pipelines.batch",
        "sluice.pipelines.cli",
        "sluice.pipelines.streaming",
        "tensorflow_serving.apis.prediction_service_pb2_grpc",
    ]
)
_PR_SET_PDEATHSIG = 1


class Forked:
    """A process that runs a function, with the methods of subprocess.Popen that tests use.

    Attributes:
      stdout: a stream of what it prints, for `output="pipe"`.
    """

    def __init__(
        self,
        run: Callable[..., int | None],
        *arguments: object,
        output: str = os.devnull,
        errors: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts the process.

        Args:
          run: a function at a module's top level; it returns the exit code.
          arguments: of `run`; they are pickled.
          output: the file that standard output is appended to, or "pipe".
          errors: the file that standard error is appended to; "": as for standard output.
          environment: the variables of the process; None: those of this process.
        """
        self.stdout: IO[str] | None = None
        to: Connection | str = output
        if output == "pipe":
            reader, to = _CONTEXT.Pipe(duplex=False)
            self.stdout = os.fdopen(os.dup(reader.fileno()), encoding="utf-8")
            reader.close()
        variables = dict(os.environ if environment is None else environment)
        self._process = _CONTEXT.Process(target=_run, args=(run, arguments, to, errors, variables))
        self._process.start()
        if isinstance(to, Connection):
            to.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or minus the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Waits until the process ends; returns its exit code.

        Raises:
          TimeoutExpired: it does not end in time.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def sluice(*arguments: str, output: str = os.devnull, errors: str = "", **options: Mapping[str, str] | None) -> Forked:
    """Starts `sluice ARGUMENTS`; the options are those of Forked."""
    return Forked(run_sluice, list(arguments), output=output, errors=errors, **options)


def run_sluice(arguments: list[str]) -> None:
    """Runs `sluice ARGUMENTS` in a fork."""
    from sluice.pipelines.cli import run_process  # imported in the fork, not in the tests

    sys.argv = ["sluice", *arguments]
    run_process()


def _run(
    run: Callable[..., int | None],
    arguments: tuple[object, ...],
    output: Connection | str,
    errors: str,
    variables: dict[str, str],
) -> None:
    """Runs in the fork. It ends with its parent, the fork server, which ends with the tests.

    The garbage collector does not look at what the fork server has imported: it would find nothing, and to look at it
    makes a copy of its memory.
    """
    gc.freeze()
    assert Path(sluice_package.__file__).is_relative_to(ROOT), "the fork server has imported another checkout's code"
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _redirect(1, output)
    _redirect(2, errors or output)
    os.environ.clear()
    os.environ.update(variables)
    remember_arguments()
    sys.exit(run(*arguments))


def _redirect(descriptor: int, to: Connection | str) -> None:
    file = to.fileno() if isinstance(to, Connection) else os.open(to, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, descriptor)
