"""Jobs through an online endpoint of the local Vertex AI: full, gone, expired, split, and with rows at the limits."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sluice.models.cache import clear_cache
from sluice.pipelines.cli import main
from sluice.transforms.pubsub.clients import EMULATOR_VARIABLE
from tests.support.fakes import PATIENCE_SECS
from tests.support.pubsub.proxy import PubsubProxy
from tests.support.pubsub.streams import LocalJob, ProcessJob, make_ends, wait_until
from tests.support.saved_models.by_hand import FLOAT, INT64, STRING, HandMade
from tests.support.servers import Pubsub
from tests.support.serving.google_tokens import token_server
from tests.support.sizes import SOAK, size
from tests.support.vertex.service import VertexService, vertex_service

pytestmark = pytest.mark.soak
# So that no busy machine makes a call late.
PATIENT = (f"--rpc_timeout_secs={PATIENCE_SECS}", f"--max_retry_secs={PATIENCE_SECS}")
EXACT = 2**53


def identity(directory: Path) -> str:
    """Writes a model that gives back a number, a float and bytes; returns its directory."""
    made = HandMade()
    for name, dtype in (("n", INT64), ("f", FLOAT), ("s_bytes", STRING)):
        made.node(name, "Placeholder", dtype=dtype, shape=[-1]).node(f"same_{name}", "Identity", name, T=dtype)
    inputs = {name: (dtype, f"{name}:0", [-1]) for name, dtype in (("n", INT64), ("f", FLOAT), ("s_bytes", STRING))}
    outputs = {f"same_{name}": (dtype, f"same_{name}:0", [-1]) for name, (dtype, _, _) in inputs.items()}
    return made.signature(inputs, outputs).write(directory)


@pytest.fixture(scope="module")
def service(cases: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[VertexService]:
    base = tmp_path_factory.mktemp("models")
    for version in ("1", "2"):
        shutil.copytree(cases("picky"), base / "picky" / version)
    with vertex_service({"picky": str(base / "picky"), "identity": identity(base / "identity")}) as running:
        yield running


@pytest.fixture(autouse=True)
def no_faults(service: VertexService) -> Iterator[None]:
    """Takes back what a test has changed."""
    before = vars(service.faults).copy()
    service.calls.clear()
    clear_cache()  # another test's client has another token, or another split
    yield
    vars(service.faults).update(before)


class Job:
    """`sluice batch` with so many numbers, and what came of it. The model takes roots, of no negative number."""

    def __init__(self, service: VertexService, directory: Path, rows: int, poison: tuple[int, ...] = ()) -> None:
        self._service, self._directory = service, directory
        self._rows, self._poison = rows, set(poison)
        lines = (f"{row},{-1 if row in poison else row % 100}.0\n" for row in range(rows))
        (directory / "in.csv").write_text("id,x\n" + "".join(lines))

    def run(self, *flags: str, query: str = "") -> int:
        paths = [f"--input={self._directory}/in.csv", f"--output={self._directory}/out.csv"]
        model = [f"--model={self._service.endpoint_uri('picky', query)}", f"--vertex_endpoint={self._service.url}"]
        summary = f"--summary_file={self._directory}/summary.json"
        return main(["batch", "--progress=none", "--add_model_columns", *paths, *model, summary, *PATIENT, *flags])

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self._directory / "summary.json").read_text())
        return found

    def check(self) -> Counter[str]:
        """Every row is there once, and right, or a failure; returns how many rows each version has answered."""
        lines = (self._directory / "out-00000-of-00001.csv").read_text().splitlines()
        header = lines[0].split(",")
        rows = [dict(zip(header, line.split(","), strict=True)) for line in lines[1:]]
        failed = list(self._directory.glob("out.failures-*"))
        failures = [json.loads(line) for path in failed for line in path.read_text().splitlines()]
        assert {int(row["id"]) for row in rows} == set(range(self._rows)) - self._poison
        assert len(rows) + len(failures) == self._rows and len(failures) == len(self._poison)
        for row in rows:
            assert float(row["root"]) == pytest.approx((int(row["id"]) % 100) ** 0.5, rel=1e-6)
        assert all("x must not be negative" in failure["error_message"] for failure in failures)
        versions = Counter(row["_version"] for row in rows)
        assert self.summary["versions"] == versions
        return versions


def test_a_full_and_unavailable_endpoint_costs_calls_and_no_row(service: VertexService, tmp_path: Path) -> None:
    service.faults.full_rate, service.faults.unavailable_rate = 0.3, 0.1
    job = Job(service, tmp_path, size(2000, soak=20_000))
    assert job.run("--max_batch_size=20") == 0
    job.check()
    statuses = service.calls.statuses("rawPredict")
    assert statuses[429] and statuses[503]
    # 1 / 0.6 is the floor, where each call is tried until it passes. The faults' seed is fixed.
    assert sum(statuses.values()) <= 2 * statuses[200], statuses
    assert job.summary["rpc_retries"] == statuses[429] + statuses[503]


def test_a_service_that_says_when_to_come_again(service: VertexService, tmp_path: Path) -> None:
    service.faults.next_errors = ["RESOURCE_EXHAUSTED"]  # of UNAVAILABLE see tests/models/endpoints/test_vertex.py
    service.faults.retry_after = "1"
    job = Job(service, tmp_path, 100)
    assert job.run() == 0
    job.check()
    assert job.summary["throttled_seconds"] >= 1, "it was waited for"
    assert service.calls.count("rawPredict", 429) == 1


@pytest.mark.parametrize("query", ["", "?method=predict"])
def test_rows_at_fault_fail_alone(service: VertexService, query: str, tmp_path: Path) -> None:
    job = Job(service, tmp_path, 600, poison=(7, 512))
    assert job.run(query=query) == 0
    assert job.check() == {"2": 598}
    assert service.calls.count("predict" if query else "rawPredict") > 2


def test_a_token_that_expires_fails_no_row(
    service: VertexService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.faults.token_calls = 10
    with token_server() as tokens:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", tokens.write_key(tmp_path))
        job = Job(service, tmp_path, 1000)
        assert job.run("--max_batch_size=20", "--rpc_google_auth") == 0
        job.check()
        expired = service.calls.count("rawPredict", 401)
        assert expired >= 3 and tokens.given >= 4
        assert all(call.authorization.startswith("Bearer token-") for call in service.calls.all())


def test_an_endpoint_that_is_gone_for_a_while_is_waited_for(service: VertexService, tmp_path: Path) -> None:
    gone_secs = 20 if SOAK else 0.3
    service.faults.latency_ms = 5
    job = Job(service, tmp_path, 2000)

    def be_gone() -> None:
        assert service.calls.wait(5, "rawPredict", PATIENCE_SECS)
        with service.gone():
            threading.Event().wait(gone_secs)

    thread = threading.Thread(target=be_gone)
    thread.start()
    code = job.run("--max_batch_size=10", "--max_in_flight=2")
    thread.join(PATIENCE_SECS)
    assert code == 0
    job.check()
    assert job.summary["rpc_retries"] > 0, "it was gone while the job ran"


def test_a_traffic_split_shows_in_rows_and_summary(service: VertexService, tmp_path: Path) -> None:
    service.resources.split("picky", {"picky@1": 80, "picky@2": 20})
    try:
        job = Job(service, tmp_path, 1000)
        assert job.run("--max_batch_size=20") == 0
        versions = job.check()
        assert versions["1"] > versions["2"] > 0 and sum(versions.values()) == 1000
        assert job.summary["version"] is None, "either may answer"
    finally:
        service.resources.split("picky", {"picky@2": 100})


def test_a_model_that_is_deployed_while_a_job_runs_shows_too(service: VertexService, tmp_path: Path) -> None:
    service.faults.latency_ms = 5
    job = Job(service, tmp_path, size(1000, soak=2000))

    def deploy() -> None:
        assert service.calls.wait(5, "rawPredict", PATIENCE_SECS)
        service.resources.split("picky", {"picky@1": 100})

    thread = threading.Thread(target=deploy)
    thread.start()
    try:
        assert job.run("--max_batch_size=10", "--max_in_flight=1") == 0
    finally:
        thread.join(PATIENCE_SECS)
        service.resources.split("picky", {"picky@2": 100})
    versions = job.check()
    assert set(versions) == {"1", "2"}


def score(service: VertexService, directory: Path, table: pa.Table, *flags: str, query: str = "") -> tuple[Any, Any]:
    """Returns the rows that came through the model of identity, and the failures."""
    pq.write_table(table, directory / "in.parquet")
    paths = [f"--input={directory}/in.parquet", f"--output={directory}/out.parquet", "--max_failure_rate=1"]
    model = [f"--model={service.endpoint_uri('identity', query)}", f"--vertex_endpoint={service.url}"]
    assert main(["batch", "--progress=none", *paths, *model, *PATIENT, *flags]) == 0
    failed = [path.read_text().splitlines() for path in directory.glob("out.failures-*")]
    return pq.read_table(directory / "out-00000-of-00001.parquet").to_pylist(), [
        json.loads(line) for lines in failed for line in lines
    ]


def table(*rows: tuple[int, float, bytes]) -> pa.Table:
    numbers, floats, texts = zip(*rows, strict=True)
    return pa.table(
        {"n": pa.array(numbers), "f": pa.array(floats, pa.float32()), "s_bytes": pa.array(texts, pa.binary())}
    )


HARD = table((EXACT + 1, 0.5, b""), (-EXACT - 1, math.inf, b"\xff\x00"), (1, math.nan, b"\xc3\xa4"), (2, -0.0, b'"\\'))


def test_what_json_hardly_holds_comes_through_a_raw_call(service: VertexService, tmp_path: Path) -> None:
    rows, failures = score(service, tmp_path, HARD)
    assert failures == []
    assert [row["same_n"] for row in rows] == [EXACT + 1, -EXACT - 1, 1, 2]
    assert [row["same_s_bytes"] for row in rows] == [b"", b"\xff\x00", b"\xc3\xa4", b'"\\']
    assert [str(row["same_f"]) for row in rows] == ["0.5", "inf", "nan", "-0.0"]


def test_predict_refuses_rows_that_it_would_change(service: VertexService, tmp_path: Path) -> None:
    rows, failures = score(service, tmp_path, HARD, query="?method=predict")
    assert [(row["same_n"], row["same_s_bytes"]) for row in rows] == [(2, b'"\\')]
    texts = sorted(failure["error_message"] for failure in failures)
    assert [text.split(";")[0] for text in texts] == [
        "input 'f': inf has no form in JSON, which predict is",
        "input 'f': nan has no form in JSON, which predict is",
        f"input 'n': {EXACT + 1} is not exact as a double, and predict carries numbers as doubles",
    ]


def test_rows_up_to_the_limit_pass_and_one_above_it_says_why(service: VertexService, tmp_path: Path) -> None:
    count = size(4, soak=64)  # of 1 MB each, which is 1.33 MB in base64
    large = table(*((row, 0.0, bytes([row]) * 1_000_000) for row in range(count)), (count, 0.0, b"\xff" * 2_000_000))
    rows, (failure,) = score(service, tmp_path, large)
    assert [row["same_n"] for row in rows] == list(range(count))
    assert all(row["same_s_bytes"] == row["s_bytes"] for row in rows)
    assert failure["error_type"] == "MessageTooLarge"
    assert "the request has 2666" in failure["error_message"] and "takes 1500000" in failure["error_message"]
    assert service.calls.statuses("rawPredict")[400] == 0, "nothing was sent that the endpoint refuses"


def test_an_answer_over_the_limit_halves(service: VertexService, tmp_path: Path) -> None:
    service.faults.max_answer_bytes = 3000
    large = table(*((row, 0.0, b"\xff" * (3000 if row == 70 else 300)) for row in range(100)))
    rows, (failure,) = score(service, tmp_path, large)
    assert [row["same_n"] for row in rows] == [row for row in range(100) if row != 70]
    assert failure["error_type"] == "BatchTooLarge"
    assert "the answer is too large: Response size too large. Received at least" in failure["error_message"]


# Streams.

MESSAGES = size(300, soak=5000)
KILLED_AT = (1000, 1500) if SOAK else (50,)


def test_a_stream_that_is_killed_misses_nothing(service: VertexService, pubsub: Pubsub, tmp_path: Path) -> None:
    ends = make_ends(pubsub)
    ids = [str(number) for number in range(MESSAGES)]
    ends.publish(
        [json.dumps({"x": float(number)}).encode() for number in range(MESSAGES)], [{"id": each} for each in ids]
    )
    model = [f"--model={service.endpoint_uri('picky')}", f"--vertex_endpoint={service.url}"]
    flags = [*model, *ends.flags, "--max_bundle_messages=20", *PATIENT]
    with contextlib.closing(PubsubProxy(pubsub)) as proxy:
        for done in KILLED_AT:
            with ProcessJob(flags, {EMULATOR_VARIABLE: proxy.host}) as job:
                job.wait_for(done)
                job.kill()
            proxy.give_back(ends.subscription)
    found: Counter[str] = Counter()

    def complete() -> bool:
        found.update(message.attributes["id"] for message in ends.predictions(MESSAGES, secs=0.5))
        return len(found) >= MESSAGES

    with ProcessJob(flags) as job:
        wait_until(complete, "predictions")
        assert job.stop() == 0
    assert set(found) == set(ids)
    assert service.calls.count("rawPredict", 200) > 0


def test_the_versions_of_a_stream_are_in_its_summary(service: VertexService, pubsub: Pubsub) -> None:
    ends = make_ends(pubsub)
    ends.publish([b'{"x": 4}'] * 10, [{}] * 10)
    model = [f"--model={service.endpoint_uri('picky')}", f"--vertex_endpoint={service.url}"]
    with LocalJob([*model, *ends.flags]) as job:
        messages = ends.predictions(10)
        assert job.stop() == 0
    assert {message.attributes["sluice_version"] for message in messages} == {"2"}
    assert job.summary["versions"]["2"] >= 10


# Before a job.


def test_a_managed_model_is_no_model_of_a_stream(service: VertexService, capsys: pytest.CaptureFixture[str]) -> None:
    ends = ["--input_subscription=projects/p/subscriptions/sub", "--output_topic=projects/p/topics/out"]
    flags = [f"--model={service.model_uri('picky')}", *ends, "--failures_topic=projects/p/topics/failed"]
    assert main(["streaming", *flags]) == 2
    assert "a managed model scores data at rest, by `sluice batch`; deploy it" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["endpoint", "model"])
def test_inspect_shows_a_model_of_vertex(service: VertexService, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    uri = service.endpoint_uri("picky") if kind == "endpoint" else service.model_uri("picky")
    assert main(["inspect", f"--model={uri}", f"--vertex_endpoint={service.url}", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["uri"], shown["version"], shown["directory"]) == (uri, 2, None)
    assert [column["name"] for column in shown["columns"]] == ["x"]


def test_dataflow_does_not_reach_a_local_service(service: VertexService, capsys: pytest.CaptureFixture[str]) -> None:
    paths = ["--input=gs://b/in.csv", "--output=gs://b/out.csv", "--runner=DataflowRunner", "--project=p"]
    model = [f"--model={service.endpoint_uri('picky')}", f"--vertex_endpoint={service.url}"]
    assert main(["batch", *paths, *model, "--region=r"]) == 2
    assert f"--vertex_endpoint {service.url} is on this machine" in capsys.readouterr().err
