"""Beam's portable runners, with job servers that are out of ctrl-C's reach where Beam starts them."""

import atexit
import logging
import shutil
import sys
import urllib.request
from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.flink_runner import FlinkJarJobServer, FlinkRunner
from apache_beam.runners.portability.flink_uber_jar_job_server import FlinkBeamJob, FlinkUberJarJobServer
from apache_beam.runners.portability.job_server import JobServer, StopOnExitJobServer
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.portability.prism_runner import PrismJobServer, PrismRunner
from apache_beam.runners.portability.spark_runner import SparkRunner

from sluice.models.errors import SluiceError
from sluice.pipelines.portable.kind import FLINK, PRISM, SPARK, runner_name

_CALL_SECS = 10.0

# Starts a command in a process group of its own, so that ctrl-C on the terminal does not reach it: a job has to be
# cancelled through its job server. The kernel ends the command if this process dies.
_APART = (
    "import ctypes, os, signal, sys; os.setpgrp(); ctypes.CDLL(None).prctl(1, signal.SIGTERM); "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


def apart(command: Sequence[object]) -> list[object]:
    """Returns a command that starts this one in a process group of its own, and ends with this process."""
    return [sys.executable, "-I", "-S", "-c", _APART, *command]


class _FlinkServer(FlinkJarJobServer):
    def subprocess_cmd_and_endpoint(self) -> tuple[list[object], str]:
        try:
            command, endpoint = super().subprocess_cmd_and_endpoint()
        except (OSError, RuntimeError, ValueError) as error:
            raise SluiceError(
                f"Flink's job server cannot be had: {error}; give --flink_job_server_jar PATH, or start one and give "
                "--job_endpoint HOST:PORT"
            ) from error
        return apart(command), endpoint


class _Warnings(logging.Filter):
    """Lets through what is a warning by another filter's judgement, and in a verbose run everything."""

    def __init__(self, judge: logging.Filter) -> None:
        super().__init__()
        self._judge = judge

    def filter(self, record: logging.LogRecord) -> bool:
        verbose = logging.getLogger("sluice").isEnabledFor(logging.DEBUG)
        # Prism logs the traceback of a worker as an error: the job's own error says it once.
        return bool(self._judge.filter(record)) and (verbose or record.levelno == logging.WARNING)


class _PrismServer(PrismJobServer):
    _log_filter: logging.Filter | None

    def __init__(self, options: PipelineOptions) -> None:
        super().__init__(options)
        judge: logging.Filter | None = self._log_filter
        self._log_filter = judge and _Warnings(judge)

    def subprocess_cmd_and_endpoint(self) -> tuple[list[object], str]:
        try:
            command, endpoint = super().subprocess_cmd_and_endpoint()
        except (OSError, RuntimeError, ValueError) as error:
            raise SluiceError(
                f"Prism cannot be had: {error}; give --prism_location PATH of its binary, or start it and give "
                "--job_endpoint HOST:PORT"
            ) from error
        return apart(command), endpoint


class _UberJarJob(FlinkBeamJob):
    """A job that was sent to Flink as a jar. Beam 2.77 cancels it by an address that Flink does not have."""

    def cancel(self) -> None:
        url = f"{self._master_url}/v1/jobs/{self._flink_job_id}?mode=cancel"
        with urllib.request.urlopen(urllib.request.Request(url, method="PATCH"), timeout=_CALL_SECS):
            self.delete_jar()


class _UberJar(FlinkUberJarJobServer):
    def create_beam_job(self, *arguments: object, **named: object) -> FlinkBeamJob:
        job = super().create_beam_job(*arguments, **named)
        job.__class__ = _UberJarJob  # its constructor's arguments are Beam's own
        return job


class _Flink(FlinkRunner):
    def default_job_server(self, options: PipelineOptions) -> JobServer:
        server = super().default_job_server(options)
        if isinstance(server, FlinkUberJarJobServer):
            server.__class__ = _UberJar
            atexit.register(shutil.rmtree, server._temp_dir, ignore_errors=True)  # Beam leaves it behind
            return server
        return StopOnExitJobServer(_FlinkServer(options))


class _Prism(PrismRunner):
    def default_job_server(self, options: PipelineOptions) -> JobServer:
        return StopOnExitJobServer(_PrismServer(options))


_RUNNERS: dict[str, type[PortableRunner]] = {FLINK: _Flink, PRISM: _Prism, SPARK: SparkRunner}


def portable_runner(options: PipelineOptions) -> PortableRunner:
    """Returns Beam's runner for a portable job. The job server that it starts, if it does, is out of ctrl-C's reach."""
    return _RUNNERS.get(runner_name(options), PortableRunner)()
