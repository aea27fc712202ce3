"""Whole jobs from BigQuery to BigQuery, with a proxy before the emulator that misbehaves."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from grpc import StatusCode

from sluice.pipelines.cli import main
from tests.support.bigquery.proxy import NEVER_SECS, BigQueryProxy
from tests.support.fakes import PATIENCE_SECS
from tests.support.processes import sluice
from tests.support.pubsub.streams import wait_until
from tests.support.saved_models.zoo import ZooSample
from tests.support.servers import BigQuery
from tests.support.sizes import size

ROWS = size(2000, soak=6000)


@pytest.fixture
def proxy(bigquery: BigQuery) -> Iterator[BigQueryProxy]:
    with contextlib.closing(BigQueryProxy(bigquery)) as server:
        server.rows_per_answer = 200
        yield server


@pytest.fixture
def dataset(bigquery: BigQuery) -> str:
    return bigquery.make_dataset()


@pytest.fixture(scope="module")
def model(zoo_samples: dict[str, ZooSample]) -> str:
    return zoo_samples["natality"].model


def flags_of(table: str, dataset: str, model: str, proxy: BigQueryProxy) -> list[str]:
    return [
        "batch",
        "--progress=none",
        f"--model={model}",
        f"--input_table={table}",
        f"--row_restriction=id < {ROWS}",
        f"--output_table={dataset}.scored",
        f"--failures_table={dataset}.failed",
        "--max_failure_rate=0.2",
        f"--bigquery_storage_endpoint={proxy.url}",
    ]


def ids_in(bigquery: BigQuery, table: str) -> list[int]:
    return sorted(row["id"] for row in bigquery.rows(table))


def check_whole(bigquery: BigQuery, dataset: str, births: pa.Table) -> None:
    """Rows in the table = rows in - failures, none twice; and each failure is there once."""
    rows = births.slice(0, ROWS)
    assert ids_in(bigquery, f"{dataset}.scored") == rows.filter(rows["gestation_weeks"].is_valid())["id"].to_pylist()
    assert len(bigquery.rows(f"{dataset}.failed")) == rows["gestation_weeks"].null_count


FAULTS = {
    "read streams are cut": [
        ("CreateReadSession", StatusCode.UNAVAILABLE, {"times": 2}),
        ("ReadRows", StatusCode.UNAVAILABLE, {"after": 3}),
        ("ReadRows", StatusCode.INTERNAL, {"after": 5}),
        ("ReadRows", StatusCode.ABORTED, {"times": 2}),
    ],
    "appends are dropped": [
        ("AppendRows", StatusCode.UNAVAILABLE, {"times": 2}),
        ("AppendRows", StatusCode.ABORTED, {}),
        ("CreateWriteStream", StatusCode.UNAVAILABLE, {"times": 2}),
    ],
    "appends are taken and not answered": [
        ("AppendRows", StatusCode.UNAVAILABLE, {"passed_on": True, "times": 2}),
        ("AppendRows", StatusCode.ABORTED, {"passed_on": True, "delay_secs": 0.2}),
    ],
    "answers hold errors": [
        ("AppendRows", StatusCode.OUT_OF_RANGE, {"in_answer": True}),
        ("AppendRows", StatusCode.ALREADY_EXISTS, {"in_answer": True, "passed_on": True}),
        ("AppendRows", StatusCode.INTERNAL, {"in_answer": True, "times": 2}),
    ],
    "answers are late": [
        ("AppendRows", None, {"delay_secs": 0.5}),
        ("ReadRows", None, {"delay_secs": 0.5}),
        ("BatchCommitWriteStreams", None, {"delay_secs": 0.5}),
    ],
    "the commit breaks": [
        ("FinalizeWriteStream", StatusCode.UNAVAILABLE, {"passed_on": True, "times": 2}),
        ("BatchCommitWriteStreams", StatusCode.UNAVAILABLE, {}),
        ("BatchCommitWriteStreams", StatusCode.ABORTED, {"passed_on": True}),
    ],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=list(FAULTS))
def test_every_row_is_there_once(
    bigquery: BigQuery,
    proxy: BigQueryProxy,
    births: pa.Table,
    births_table: str,
    model: str,
    dataset: str,
    faults: list[tuple[str, StatusCode | None, dict]],
) -> None:
    for method, status, options in faults:
        proxy.fail(method, status, **options)
    assert main(flags_of(births_table, dataset, model, proxy)) == 0
    assert proxy.happened == sum(options.get("times", 1) for _, _, options in faults)
    check_whole(bigquery, dataset, births)


@pytest.mark.parametrize(
    "method", ["CreateWriteStream", "AppendRows", "FinalizeWriteStream", "BatchCommitWriteStreams"]
)
def test_a_job_that_may_not_write_leaves_nothing(
    bigquery: BigQuery,
    proxy: BigQueryProxy,
    births_table: str,
    model: str,
    dataset: str,
    method: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    proxy.fail_always(method, StatusCode.PERMISSION_DENIED, message="you may not")
    assert main(flags_of(births_table, dataset, model, proxy)) == 1
    assert "you may not" in capsys.readouterr().err
    assert bigquery.rows(f"{dataset}.scored") == bigquery.rows(f"{dataset}.failed") == []


def test_a_table_that_may_not_be_read_is_told_at_launch(
    proxy: BigQueryProxy, births_table: str, model: str, dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy.fail_always("CreateReadSession", StatusCode.PERMISSION_DENIED, message="you may not")
    assert main(flags_of(births_table, dataset, model, proxy)) == 2
    assert "bigquery.dataViewer on the table, and bigquery.readSessionUser" in capsys.readouterr().err


def test_a_job_that_is_killed_leaves_nothing_and_can_be_run_again(
    bigquery: BigQuery, proxy: BigQueryProxy, births: pa.Table, births_table: str, model: str, dataset: str
) -> None:
    """It is killed when all its rows are appended, and before the commit."""
    proxy.fail("BatchCommitWriteStreams", None, delay_secs=NEVER_SECS)
    flags = flags_of(births_table, dataset, model, proxy)
    job = sluice(*flags)
    wait_until(lambda: bool(proxy.requests["BatchCommitWriteStreams"]) or job.poll() is not None, "the commit")
    assert job.poll() is None
    job.kill()
    job.wait()
    assert proxy.requests["AppendRows"]
    assert bigquery.rows(f"{dataset}.scored") == bigquery.rows(f"{dataset}.failed") == []
    with contextlib.closing(BigQueryProxy(bigquery)) as another:
        assert main(flags_of(births_table, dataset, model, another)) == 0
    check_whole(bigquery, dataset, births)


def interrupt_when(condition: Callable[[], bool]) -> None:
    """Sends this process a SIGINT once the condition holds."""
    wait_until(condition, "what is to be interrupted")
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("times", [1, 2])
def test_a_job_that_is_interrupted_as_it_commits_says_what_becomes_of_its_rows(
    bigquery: BigQuery,
    proxy: BigQueryProxy,
    births: pa.Table,
    births_table: str,
    model: str,
    dataset: str,
    tmp_path: Path,
    times: int,
) -> None:
    """The first SIGINT waits for the rows, which are then there; the second does not."""
    proxy.fail("BatchCommitWriteStreams", None)  # of the failures
    proxy.fail("BatchCommitWriteStreams", None, delay_secs=NEVER_SECS)

    errors = tmp_path / "errors"  # read by another thread meanwhile

    def interrupt() -> None:
        interrupt_when(lambda: len(proxy.requests["BatchCommitWriteStreams"]) == 2)
        wait_until(lambda: "waiting until the output is published" in errors.read_text(), "what the first does")
        if times == 1:
            proxy.go_on()
        else:
            os.kill(os.getpid(), signal.SIGINT)

    with ThreadPoolExecutor(1) as pool, errors.open("w", buffering=1) as file, contextlib.redirect_stderr(file):
        interrupting = pool.submit(interrupt)
        code = main(flags_of(births_table, dataset, model, proxy))
        interrupting.result(PATIENCE_SECS)
    said = errors.read_text()
    if times == 1:
        assert code == 0
        check_whole(bigquery, dataset, births)
    else:
        assert code == 130
        assert f"check what {dataset}.scored holds before you run it again" in said


def test_a_job_that_is_interrupted_before_it_commits_writes_nothing(
    bigquery: BigQuery,
    proxy: BigQueryProxy,
    births_table: str,
    model: str,
    dataset: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    proxy.fail("AppendRows", None, delay_secs=NEVER_SECS)
    with ThreadPoolExecutor(1) as pool:
        interrupting = pool.submit(interrupt_when, lambda: bool(proxy.requests["AppendRows"]))
        code = main(flags_of(births_table, dataset, model, proxy))
        interrupting.result(PATIENCE_SECS)
    assert code == 130
    assert "interrupted; no output was published" in capsys.readouterr().err
    assert bigquery.rows(f"{dataset}.scored") == []
