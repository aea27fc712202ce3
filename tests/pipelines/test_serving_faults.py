"""`sluice batch` with a model server that misbehaves: every row in comes out once, as a prediction or as a failure."""

from __future__ import annotations

import contextlib
import csv
import glob
import itertools
import json
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sluice.models import cache
from sluice.models.batching.scheduler import Scheduler
from sluice.models.cache import clear_cache
from sluice.models.server.faults import Faults
from sluice.models.server.reference import ReferenceServer
from sluice.models.server.store import ModelConfig
from sluice.pipelines.cli import main
from sluice.transforms.core import metrics
from tests.support.fakes import PATIENCE_SECS
from tests.support.pubsub.streams import wait_until
from tests.support.serving.backends import GRPC, REST, uri_at
from tests.support.serving.model_servers import model_server, served
from tests.support.sizes import size

pytestmark = pytest.mark.soak
# The model takes the root of x and raises on any batch with a negative one.
ROWS = size(2000, soak=5000)
# What the job makes of an error does not depend on how the error came.
POLICIES = pytest.mark.parametrize(("backend", "policy", "code"), [(GRPC, "fail", 1), (REST, "dead_letter", 3)])
PATIENT = (f"--rpc_timeout_secs={PATIENCE_SECS}", f"--max_retry_secs={PATIENCE_SECS}")


@pytest.fixture(scope="module")
def server(cases: Callable[[str], str]) -> Iterator[ReferenceServer]:
    with model_server({"picky": cases("picky")}, seed=1) as server:
        yield server


@pytest.fixture
def faults(server: ReferenceServer) -> Iterator[Callable[..., None]]:
    """Sets what goes wrong, for one test."""

    def set_faults(**options: Any) -> None:
        server.faults = Faults(**options)

    yield set_faults
    server.faults = Faults()


def uri(server: Any, backend: str) -> str:
    return uri_at(server, backend, "picky")


class Job:
    """A batch job on so many rows, of which some are poison, and what came of it."""

    def __init__(self, directory: Path, rows: int = ROWS, poison: frozenset[int] = frozenset()) -> None:
        self.rows, self.poison = rows, poison
        self._directory = directory
        self._input = directory / "in.csv"
        lines = (f"{row},{-1.0 if row in poison else row % 100}.0" for row in range(rows))
        self._input.write_text("id,x\n" + "\n".join(lines).replace("-1.0.0", "-1.0") + "\n")

    def run(self, uri: str, *flags: str) -> int:
        output = self._directory / "out" / "pred.csv"
        paths = [f"--input={self._input}", f"--output={output}", f"--summary_file={self._directory / 'summary.json'}"]
        return main(["batch", "--progress=none", *paths, f"--model={uri}", *PATIENT, *flags])

    @property
    def predicted(self) -> list[dict[str, str]]:
        rows = []
        for path in sorted(glob.glob(f"{self._directory}/out/pred-*.csv")):
            with open(path, newline="") as file:
                rows += list(csv.DictReader(file))
        return rows

    @property
    def failures(self) -> list[dict[str, Any]]:
        paths = glob.glob(f"{self._directory}/out/pred.failures-*.jsonl")
        return [json.loads(line) for path in paths for line in Path(path).read_text().splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self._directory / "summary.json").read_text())
        return found

    def check(self, failed: int = 0) -> None:
        """Every row is predicted once, and rightly, but for those that failed, which are there too."""
        predicted = self.predicted
        ids = Counter(int(row["id"]) for row in predicted)
        assert max(ids.values(), default=1) == 1, "a row stands in the output twice"
        assert len(self.failures) == failed
        assert len(ids) + failed == self.rows
        for row in predicted:
            assert float(row["root"]) == pytest.approx((int(row["id"]) % 100) ** 0.5, rel=1e-6)
        assert self.summary["rows_in"] == self.rows == self.summary["predictions"] + self.summary["failures"]


@pytest.mark.parametrize("backend", [GRPC, REST])
def test_a_third_of_the_calls_is_refused(
    backend: str, server: ReferenceServer, faults: Callable[..., None], tmp_path: Path
) -> None:
    faults(error_rate=0.3)
    job = Job(tmp_path)
    before = server.stats.errors["UNAVAILABLE"]
    assert job.run(uri(server, backend), "--max_batch_size=50") == 0
    assert server.stats.errors["UNAVAILABLE"] > before
    job.check()


@pytest.mark.parametrize("backend", [GRPC, REST])
def test_one_poison_row_in_thousands(backend: str, server: ReferenceServer, tmp_path: Path) -> None:
    job = Job(tmp_path, poison=frozenset({1210}))
    assert job.run(uri(server, backend)) == 0
    job.check(failed=1)
    (failure,) = job.failures
    assert (failure["stage"], failure["error_type"], failure["model"]) == ("predict", "BadInput", uri(server, backend))
    assert "x must not be negative" in failure["error_message"]


@pytest.mark.parametrize("backend", [GRPC, REST])
def test_a_server_that_refuses_large_batches(
    backend: str, server: ReferenceServer, faults: Callable[..., None], tmp_path: Path
) -> None:
    faults(max_rows=100)
    before = server.stats
    job = Job(tmp_path)
    assert job.run(uri(server, backend)) == 0
    job.check()
    assert max(server.stats.batch_sizes - before.batch_sizes) <= 100
    # The ceiling is remembered: few calls are refused before it is found.
    assert server.stats.errors["INVALID_ARGUMENT"] - before.errors["INVALID_ARGUMENT"] <= 30


@POLICIES
def test_a_server_that_hangs(
    backend: str, policy: str, code: int, server: ReferenceServer, faults: Callable[..., None], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    faults(hang_rate=1.0)
    job = Job(tmp_path, rows=40)
    # Long enough to connect: a server without a connection is Unavailable, and does not time out.
    flags = ["--rpc_timeout_secs=2", "--max_retry_secs=1", f"--on_unavailable={policy}"]
    assert job.run(uri(server, backend), *flags) == code
    assert job.predicted == []
    if policy == "dead_letter":
        assert {failure["error_type"] for failure in job.failures} == {"TimedOut"}
        assert len(job.failures) == job.rows
    else:
        assert re.search(r"(gave up after|nothing was answered for).*--max_retry_secs", capsys.readouterr().err)


@POLICIES
def test_a_server_that_breaks_on_every_call(
    backend: str, policy: str, code: int, server: ReferenceServer, faults: Callable[..., None], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    clear_cache()  # or a row that has passed before would be asked
    faults(error_rate=1.0, error_code="INTERNAL")
    job = Job(tmp_path, rows=400)
    assert job.run(uri(server, backend), f"--on_unavailable={policy}") == code
    if policy == "fail":
        assert "it is so whatever the rows" in capsys.readouterr().err
    else:
        assert len(job.failures) == job.rows
        assert {failure["error_type"] for failure in job.failures} == {"ServerFault"}


def test_a_failed_job_does_not_show_what_an_earlier_one_left(
    server: ReferenceServer, faults: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Job(tmp_path, rows=100, poison=frozenset({7}))
    assert job.run(uri(server, GRPC)) == 0
    job.check(failed=1)
    faults(error_rate=1.0, error_code="PERMISSION_DENIED")
    capsys.readouterr()
    assert job.run(uri(server, GRPC), "--overwrite", "--max_retry_secs=1") == 1
    text = capsys.readouterr().err
    assert "Why rows failed" not in text and "x must not be negative" not in text
    assert "no output was published" in text and "--on_unavailable=dead_letter" in text
    assert job.summary["failure_files"] == job.summary["output_files"] == []
    assert len(job.predicted) == 99, "the earlier output is kept"


@pytest.mark.parametrize("backend", [GRPC, REST])
def test_some_calls_hang(backend: str, server: ReferenceServer, faults: Callable[..., None], tmp_path: Path) -> None:
    faults(hang_rate=0.1)
    job = Job(tmp_path, rows=1000)
    # On a busy machine other calls may pass the limit as well; all are repeated until they are answered.
    flags = ("--rpc_timeout_secs=0.5", "--max_retries=1000", "--max_batch_size=50")
    assert job.run(uri(server, backend), *flags) == 0
    job.check()


@pytest.mark.parametrize("backend", [GRPC, REST])
def test_an_answer_of_the_wrong_shape(
    backend: str, server: ReferenceServer, faults: Callable[..., None], tmp_path: Path
) -> None:
    faults(wrong_rows=True)
    job = Job(tmp_path, rows=100)
    assert job.run(uri(server, backend)) == 3
    assert job.predicted == []
    assert {failure["error_type"] for failure in job.failures} == {"BadOutput"}
    assert len(job.failures) == 100
    for failure in job.failures:
        assert re.search(r"output 'root': (\d+) rows for a batch of (\d+) rows", failure["error_message"])


@POLICIES
def test_the_version_is_removed_while_the_job_runs(
    backend: str, policy: str, code: int, cases: Callable[[str], str], tmp_path: Path
) -> None:
    base = tmp_path / "model"
    for version in ("1", "2"):
        shutil.copytree(cases("picky"), base / version)
    with model_server({"picky": ModelConfig(str(base), "all")}, faults=Faults(latency_ms=5)) as server:
        pinned = f"{uri(server, backend)}/versions/1"
        job = Job(tmp_path)

        def remove() -> None:
            shutil.rmtree(base / "1")
            server.poll()

        flags = ("--max_batch_size=10", "--max_in_flight=2", "--max_retry_secs=1", f"--on_unavailable={policy}")
        with at_call(server, 20, remove):
            assert job.run(pinned, *flags) == code
        assert job.predicted == []
        if policy == "dead_letter":  # what was predicted before is not put in place, as too much has failed
            assert {failure["error_type"] for failure in job.failures} == {"Unavailable"}
            assert 0 < len(job.failures) < job.rows
            assert job.summary["predictions"] + len(job.failures) == job.rows


def test_an_endpoint_that_is_not_pinned_goes_on_with_the_next_version(
    cases: Callable[[str], str], tmp_path: Path
) -> None:
    base = tmp_path / "model"
    shutil.copytree(cases("picky"), base / "1")
    with model_server({"picky": str(base)}, faults=Faults(latency_ms=5)) as server:
        job = Job(tmp_path)

        def replace() -> None:
            shutil.copytree(cases("picky"), base / "2")
            server.poll()

        with at_call(server, 20, replace):
            assert job.run(uri(server, GRPC), "--max_batch_size=10", "--max_in_flight=2", "--add_model_columns") == 0
        job.check()
        assert {row["_version"] for row in job.predicted} == {"1", "2"}


def test_a_server_that_is_killed_and_started_again(cases: Callable[[str], str], tmp_path: Path) -> None:
    job = Job(tmp_path, rows=600, poison=frozenset({77, 521}))
    with served({"picky": cases("picky")}, "--latency_ms=50") as server:  # so that the kill finds the job at work

        def restart() -> None:
            server.kill()
            # Time that bundles wait is counted in whole seconds.
            wait_until(lambda: any(each.throttled_secs > 1 for each in schedulers()), "calls that wait")
            server.start()

        metrics.reset_tally()
        flags = ("--max_batch_size=20", "--max_in_flight=1", "--max_retry_secs=120")
        with when(lambda: metrics.tally().get(metrics.ROWS_READ, 0) > 0, restart):
            assert job.run(uri(server, GRPC), *flags) == 0
    job.check(failed=2)
    assert job.summary["rpc_retries"] > 0
    assert job.summary["throttled_seconds"] > 0


@POLICIES
def test_a_server_that_goes_away_for_good(
    backend: str,
    policy: str,
    code: int,
    cases: Callable[[str], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = Job(tmp_path)
    with model_server({"picky": cases("picky")}, faults=Faults(latency_ms=5)) as server:
        flags = ("--max_batch_size=10", "--max_in_flight=2", "--max_retry_secs=0.5", f"--on_unavailable={policy}")
        address = uri(server, backend)
        with at_call(server, 20, server.close):
            assert job.run(address, *flags) == code
    assert job.predicted == []
    if policy == "fail":
        assert "127.0.0.1:" in capsys.readouterr().err
    else:
        assert job.summary["predictions"] + len(job.failures) == job.rows


def schedulers() -> list[Scheduler]:
    """Returns those of the models that are open in this process."""
    return list(cache._CACHE._schedulers.values())


@contextlib.contextmanager
def at_call(server: ReferenceServer, number: int, act: Callable[[], Any]) -> Iterator[None]:
    """Acts once, at the server's call of this number; that call and later ones wait for it, or for the server's end."""
    numbers = itertools.count(1)
    reached, acted = threading.Event(), threading.Event()
    admit = server._gate.call

    @contextlib.contextmanager
    def call(gone: threading.Event) -> Iterator[Faults]:
        with admit(gone) as faults:
            if next(numbers) >= number:
                reached.set()
                while not acted.is_set() and not gone.wait(0.01):
                    pass
            yield faults

    def act_once() -> None:
        act()
        acted.set()

    server._gate.call = call  # type: ignore[method-assign]
    with when(reached.is_set, act_once):
        yield


class when:
    """Acts once, on a thread of its own, when a condition holds while the block runs."""

    def __init__(self, condition: Callable[[], bool], act: Callable[[], Any]) -> None:
        self._condition, self._act = condition, act
        self._over = threading.Event()
        self._acted = False
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._over.wait(0.002):
            if self._condition():
                self._act()
                self._acted = True
                return

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(PATIENCE_SECS)
        assert self._acted, "the job was over before the fault"
