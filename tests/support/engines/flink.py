"""A real Flink: Beam's job server for it, with a Flink of its own or over a cluster of processes of this machine."""

import contextlib
import glob
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fakes import PATIENCE_SECS
from tests.support.servers import answers, free_port, running

EMBEDDED = "[local]"
# Java 17 hides from Flink what it looks into.
_OPENED = ("lang", "util", "net", "io", "nio", "time", "util.concurrent")
_JAVA = ["java", *(f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in _OPENED)]
_JAVA += ["--add-opens=java.base/sun.nio.ch=ALL-UNNAMED"]
_SLOTS = 2
_SETTINGS = """\
jobmanager.rpc.address: localhost
jobmanager.rpc.port: {rpc}
jobmanager.memory.process.size: 1100m
rest.address: localhost
rest.port: {rest}
rest.bind-port: {rest}
taskmanager.host: localhost
taskmanager.numberOfTaskSlots: {slots}
io.tmp.dirs: {directory}
"""
# Flink works these out of the process's size in a script of its distribution, which a job server's jar does not have.
_TASK_MANAGER = {
    "taskmanager.cpu.cores": "1.0",
    "taskmanager.memory.task.heap.size": "300m",
    "taskmanager.memory.task.off-heap.size": "64m",
    "taskmanager.memory.framework.heap.size": "128m",
    "taskmanager.memory.framework.off-heap.size": "128m",
    "taskmanager.memory.managed.size": "64m",
    "taskmanager.memory.network.min": "192m",
    "taskmanager.memory.network.max": "192m",
    "taskmanager.memory.jvm-metaspace.size": "256m",
    "taskmanager.memory.jvm-overhead.min": "192m",
    "taskmanager.memory.jvm-overhead.max": "192m",
    "taskmanager.memory.process.size": "1400m",
}


def class_path() -> str:
    """Returns what FLINK_JOB_SERVER_JAR names: the jar of a job server, or a class path. Skips the test without it."""
    path = os.environ.get("FLINK_JOB_SERVER_JAR", "")
    if not path:
        pytest.skip(
            "FLINK_JOB_SERVER_JAR names no job server: mvn dependency:copy "
            "-Dartifact=org.apache.beam:beam-runners-flink-1.19-job-server:2.77.0 -DoutputDirectory=."
        )
    if not glob.glob(path):
        pytest.fail(f"FLINK_JOB_SERVER_JAR={path}: there is no such file", pytrace=False)
    if not shutil.which("java"):
        pytest.fail("java is not found: install Java 11 or later", pytrace=False)
    return path


@contextlib.contextmanager
def job_server(master: str = EMBEDDED) -> Iterator[str]:
    """Runs a job server while the block runs; yields its HOST:PORT.

    Args:
      master: HOST:PORT of a cluster's REST interface, or EMBEDDED.
    """
    port, artifacts = free_port(), free_port()
    flags = [f"--job-port={port}", f"--artifact-port={artifacts}", "--expansion-port=0", f"--flink-master={master}"]
    with tempfile.TemporaryDirectory() as staged:
        main = ["-Xmx1g", "-cp", class_path(), "org.apache.beam.runners.flink.FlinkJobServerDriver"]
        command = [*_JAVA, *main, *flags, f"--artifacts-dir={staged}"]
        with running(command, lambda: _listens(port), PATIENCE_SECS):
            yield f"localhost:{port}"


def _listens(port: int) -> bool:
    from sluice.models.errors import UsageError
    from sluice.pipelines.portable.job_server import ask_options

    try:
        return bool(ask_options(f"localhost:{port}", 1.0))
    except UsageError:
        return False


class Cluster:
    """A JobManager and two TaskManagers.

    Attributes:
      master: HOST:PORT of its REST interface.
      task_managers: their process ids.
    """

    def __init__(self, master: str, task_managers: tuple[int, ...]) -> None:
        self.master, self.task_managers = master, task_managers


@contextlib.contextmanager
def cluster(task_managers: int = 2) -> Iterator[Cluster]:
    """Runs a cluster of processes while the block runs."""
    rest = free_port()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        conf = Path(directory, "conf")
        conf.mkdir()
        settings = _SETTINGS.format(rpc=free_port(), rest=rest, slots=_SLOTS, directory=directory)
        for name in ("flink-conf.yaml", "config.yaml"):  # before Flink 2, and since
            (conf / name).write_text(settings)
        base = [*_JAVA, "-Xmx500m", "-cp", class_path()]
        manager = [*base, "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"]
        url = f"http://localhost:{rest}/overview"
        stack.enter_context(running([*manager, f"--configDir={conf}"], lambda: answers(url), PATIENCE_SECS))
        worker = [*base, "org.apache.flink.runtime.taskexecutor.TaskManagerRunner", f"--configDir={conf}"]
        worker += [part for name, value in _TASK_MANAGER.items() for part in ("-D", f"{name}={value}")]
        pids = []
        for number in range(1, task_managers + 1):
            there = f'"taskmanagers":{number},'
            pids.append(stack.enter_context(running(worker, lambda text=there: text in _read(url), PATIENCE_SECS)))
        yield Cluster(f"localhost:{rest}", tuple(pids))


def _read(url: str) -> str:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as response:
        return str(response.read().decode())
    return ""
