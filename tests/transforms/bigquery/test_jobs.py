"""`JobRunner` on the emulator, and on a proxy that answers in its place."""

import itertools
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from google.cloud import bigquery as google

from sluice.models.errors import SluiceError
from sluice.transforms.bigquery.clients import open_client
from sluice.transforms.bigquery.jobs import JobFailed, JobRunner, with_key
from tests.support.servers import BigQuery
from tests.support.serving.http_proxy import Proxy

FIELDS = [{"name": "n", "type": "INTEGER"}]


@pytest.fixture
def table(bigquery: BigQuery) -> str:
    return bigquery.make_table(FIELDS)


@pytest.fixture
def name() -> str:
    return f"sluice_{uuid.uuid4().hex}"


@pytest.fixture
def proxy(bigquery: BigQuery) -> Iterator[Proxy]:
    with closing(Proxy(bigquery.url)) as server:
        yield server


def doubling(first: float, longest: float) -> Iterator[float]:
    """Pauses without jitter."""
    return (min(first * 2.0**tries, longest) for tries in itertools.count())


class Jobs:
    """Runs an INSERT without pausing.

    Attributes:
      pauses: between tries, in seconds.
    """

    def __init__(self, proxy: Proxy, table: str) -> None:
        self.pauses: list[float] = []
        self._client = open_client(table.partition(".")[0], proxy.url)
        self.runner = JobRunner(self._client, "US", 5.0, self._pause, doubling)
        self._text = f"INSERT INTO `{table}` (n) VALUES (1)"

    def insert(self, name: str) -> None:
        self.runner.query(name, self._text, google.QueryJobConfig(use_query_cache=False))

    def _pause(self, secs: float) -> None:
        if secs >= 4:
            self.pauses.append(secs)


@pytest.fixture
def jobs(proxy: Proxy, table: str) -> Jobs:
    return Jobs(proxy, table)


def failed(name: str, number: int, *reasons: str) -> tuple[int, dict[str, Any]]:
    """BigQuery's answer to a job that has failed at once."""
    errors = [{"reason": reason, "message": f"because of {reason}"} for reason in reasons]
    return 200, {
        "jobReference": {"projectId": "proj1", "jobId": f"{name}_{number}", "location": "US"},
        "configuration": {"query": {"query": "SELECT 1"}},
        "status": {"state": "DONE", "errorResult": errors[0], "errors": errors},
    }


def asked(proxy: Proxy) -> list[str]:
    return [each["jobReference"]["jobId"].rsplit("_", 1)[1] for each in proxy.posted]


def test_a_job_leaves_a_table_its_key() -> None:
    key = "projects/p/locations/us/keyRings/r/cryptoKeys/k"
    table = google.Table("p.d.t")
    assert "destinationEncryptionConfiguration" not in with_key(google.CopyJobConfig(), table).to_api_repr()["copy"]
    table.encryption_configuration = google.EncryptionConfiguration(f"{key}/cryptoKeyVersions/1")
    for config in (google.CopyJobConfig(), google.LoadJobConfig(), google.QueryJobConfig()):
        assert with_key(config, table).destination_encryption_configuration.kms_key_name == key


def test_a_job_runs_once_under_its_name(bigquery: BigQuery, table: str, jobs: Jobs, name: str) -> None:
    assert not jobs.runner.has_run(name)
    for _ in range(2):
        jobs.insert(name)
        assert jobs.runner.has_run(name)
    assert bigquery.rows(table) == [{"n": 1}]
    jobs.insert(f"{name}_another")
    assert len(bigquery.rows(table)) == 2
    assert jobs.pauses == []


def test_an_error_that_may_have_passed_is_tried_again_under_another_id(
    bigquery: BigQuery, table: str, jobs: Jobs, proxy: Proxy, name: str
) -> None:
    proxy.answers = [failed(name, 0, "backendError"), failed(name, 1, "jobRateLimitExceeded")]
    jobs.insert(name)
    assert (asked(proxy), jobs.pauses) == (["0", "1", "2"], [4.0, 8.0])
    assert bigquery.rows(table) == [{"n": 1}]


def test_a_step_that_is_tried_again_goes_on_where_a_job_failed(
    bigquery: BigQuery, table: str, jobs: Jobs, name: str
) -> None:
    """A job that failed for good has the first id: it is not started again."""
    client = bigquery.client
    client.query(f"SELECT n FROM `{table}_gone`", job_id=f"{name}_0", job_retry=None)
    with pytest.raises(JobFailed, match=rf"^job proj1:US.{name}_0 failed: .*{table.rsplit('.')[-1]}_gone") as info:
        jobs.insert(name)
    assert info.value.reason == "notFound"
    assert not jobs.runner.has_run(name)
    assert bigquery.rows(table) == []


def test_an_error_that_stays_is_reported(bigquery: BigQuery, table: str, jobs: Jobs, proxy: Proxy, name: str) -> None:
    proxy.answers = [failed(name, number, "backendError", "tableUnavailable") for number in range(5)]
    with pytest.raises(SluiceError, match=f"{name}_4 failed: because of backendError; because of tableUnavailable$"):
        jobs.insert(name)
    assert jobs.pauses == [4.0, 8.0, 16.0, 32.0]
    proxy.answers = [failed(name, 0, "invalid", *[f"reason{number}" for number in range(9)])]
    with pytest.raises(JobFailed, match=r"_0 failed: because of invalid; because of reason0; .* of reason3$"):
        jobs.insert(name)
    assert len(proxy.posted) == 6
    assert bigquery.rows(table) == []


def test_a_job_that_takes_its_time_is_waited_for(
    bigquery: BigQuery, table: str, jobs: Jobs, proxy: Proxy, name: str
) -> None:
    """The job runs when it is started, and has failed at the next look."""
    status, answer = failed(name, 0, "backendError")
    proxy.answers = [(status, {**answer, "status": {"state": "RUNNING"}})]
    bigquery.client.query(f"SELECT n FROM `{table}_gone`", job_id=f"{name}_0", job_retry=None)
    with pytest.raises(JobFailed, match=f"{name}_0 failed: .*_gone"):
        jobs.insert(name)
    assert asked(proxy) == ["0"]
