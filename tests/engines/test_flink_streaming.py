"""Streams on a real Flink: workers and TaskManagers are killed, and no message is without its outcome in the end."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.engines import flink
from tests.support.engines.job_service import work, worker_pool
from tests.support.processes import Forked, sluice
from tests.support.pubsub.streams import Ends, make_ends, shorten_leases, wait_until
from tests.support.saved_models.zoo import ZooSample
from tests.support.servers import Pubsub

COUNT = 20_000
# A worker or a TaskManager that is killed costs a restart of the job, and the leases of what was in work.
_SECS = 600.0
_FLAGS = ["--max_bundle_messages=500", "--checkpointing_interval=2000"]


class Launched:
    """A launcher, and what it has printed."""

    def __init__(self, process: Forked, log: str) -> None:
        self.process = process
        self._log = log

    def log(self) -> str:
        return Path(self._log).read_text(encoding="utf-8")

    def wait_for(self, words: str) -> None:
        wait_until(lambda: words in self.log() or self.process.poll() is not None, words, _SECS)
        assert words in self.log(), self.log()

    def drain(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_SECS)


@contextmanager
def launched(flags: Sequence[str]) -> Iterator[Launched]:
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        process = sluice("streaming", *_FLAGS, *flags, output=log.name)
        try:
            yield Launched(process, log.name)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            print(Path(log.name).read_text(encoding="utf-8"))


class Outcomes:
    """What a stream has written, by the ids of its messages."""

    def __init__(self, ends: Ends) -> None:
        self.predicted: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._ends = ends

    def wait_for(self, count: int, job: Launched) -> None:
        """Reads until so many ids have an outcome."""
        wait_until(lambda: self._read() >= count or job.process.poll() is not None, f"{count} outcomes", _SECS)
        assert len(self.predicted) + len(self.failed) >= count, job.log()

    def _read(self) -> int:
        self.predicted.update(each.attributes["id"] for each in self._ends.predictions(1000, secs=0.5))
        self.failed.update(each["attributes"]["id"] for each in self._ends.failed(100, secs=0.1))
        return len(self.predicted) + len(self.failed)

    def duplicates(self) -> int:
        """How many outcomes there are more than messages, with those that were left to read."""
        before = -1
        while self._total() > before:
            before = self._total()
            self._read()
        return self._total() - len(self.predicted) - len(self.failed)

    def _total(self) -> int:
        return sum(self.predicted.values()) + sum(self.failed.values())


def publish(ends: Ends, sample: ZooSample, numbers: range) -> None:
    """Publishes rows with ids; every 1,000th is no JSON."""
    lines = Path(sample.path("jsonl")).read_bytes().splitlines()
    payloads = [b"poison" if number % 1000 == 999 else lines[number % len(lines)] for number in numbers]
    ends.publish(payloads, [{"id": str(number)} for number in numbers])


def check(outcomes: Outcomes, count: int) -> None:
    """Every id has one kind of outcome, at least once; says how many came twice."""
    poison = {str(number) for number in range(999, count, 1000)}
    missing = {str(number) for number in range(count)} - outcomes.predicted.keys() - outcomes.failed.keys()
    print(json.dumps({"messages": count, "missing": len(missing), "duplicates": outcomes.duplicates()}))
    assert not missing
    assert set(outcomes.failed) == poison
    assert not poison & outcomes.predicted.keys()


# Where the workers of a test note their process ids.
_PIDS = "SLUICE_TEST_PIDS"


def work_by_name(control: str, worker: str) -> None:
    """Works as a worker whose process id is known."""
    shorten_leases()
    Path(os.environ[_PIDS], str(os.getpid())).touch()
    work(control, worker)


def kill_a_worker(directory: Path) -> None:
    """Kills a worker, as the kernel does that runs out of memory."""
    pids = [int(path.name) for path in directory.iterdir() if Path("/proc", path.name).exists()]
    os.kill(pids[0], signal.SIGKILL)


def states(master: str) -> set[str]:
    """Returns the states of all jobs of a cluster."""
    with urllib.request.urlopen(f"http://{master}/jobs/overview", timeout=10) as answer:
        return {job["state"] for job in json.load(answer)["jobs"]}


def test_a_stream_outlives_a_worker_and_a_task_manager_and_drains(
    pubsub: Pubsub, criteo: ZooSample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()
    monkeypatch.setenv(_PIDS, str(pids))
    with (
        flink.cluster() as cluster,
        flink.job_server(cluster.master) as endpoint,
        worker_pool(work_by_name) as pool,
    ):
        flags = [f"--job_endpoint={endpoint}", f"--environment_config={pool}", f"--temp_location={tmp_path}"]
        run_and_kill(pubsub, criteo, cluster, pids, flags)


def run_and_kill(pubsub: Pubsub, criteo: ZooSample, cluster: flink.Cluster, pids: Path, flags: list[str]) -> None:
    ends, quarter = make_ends(pubsub), COUNT // 4
    flags = [
        *flags,
        "--runner=PortableRunner",
        f"--flink_master={cluster.master}",
        "--environment_type=EXTERNAL",
        "--readers=2",
        f"--model={criteo.model}",
        *ends.flags,
    ]
    outcomes = Outcomes(ends)
    publish(ends, criteo, range(quarter))
    with launched(flags) as job:
        job.wait_for("the stream runs")
        outcomes.wait_for(quarter // 2, job)
        kill_a_worker(pids)
        publish(ends, criteo, range(quarter, 2 * quarter))
        outcomes.wait_for(2 * quarter, job)
        publish(ends, criteo, range(2 * quarter, 3 * quarter))
        os.kill(cluster.task_managers[0], signal.SIGKILL)
        outcomes.wait_for(3 * quarter, job)
        publish(ends, criteo, range(3 * quarter, COUNT))
        outcomes.wait_for(COUNT - quarter // 2, job)
        code = job.drain()
        drained = job.log()
    with launched(flags) as rest:  # what the drain left unread
        rest.wait_for("the stream runs")
        outcomes.wait_for(COUNT, rest)
        assert rest.drain() == 0
    assert code == 0, drained
    assert "drained:" in drained
    wait_until(lambda: states(cluster.master) == {"CANCELED"}, "the end of the jobs", _SECS)
    check(outcomes, COUNT)


def test_a_stream_on_the_job_servers_own_flink_with_workers_in_the_launcher(pubsub: Pubsub, criteo: ZooSample) -> None:
    ends, count = make_ends(pubsub), 3000
    flags = ["--runner=FlinkRunner", "--environment_type=LOOPBACK", f"--model={criteo.model}", *ends.flags]
    outcomes = Outcomes(ends)
    publish(ends, criteo, range(count))
    with flink.job_server() as endpoint, launched([*flags, f"--job_endpoint={endpoint}"]) as job:
        outcomes.wait_for(count, job)
        assert job.drain() == 0
        assert f"drained: {count:,} messages are done, and 0 were given back, by 1 worker(s)" in job.log()
    check(outcomes, count)
    assert outcomes.duplicates() == 0
