"""Jobs of BigQuery that are run once, however often the step that runs them is tried.

A job's id is made from what the job is for, so a step that is tried again, or whose request was answered by nobody,
finds the job that is there: https://cloud.google.com/bigquery/docs/running-jobs#generate-jobid
"""

import time
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

from google.api_core.exceptions import Conflict, NotFound
from google.cloud import bigquery

from sluice.models.errors import SluiceError
from sluice.transforms.bigquery.table_layout import key_of

_Config = TypeVar("_Config", bigquery.LoadJobConfig, bigquery.CopyJobConfig, bigquery.QueryJobConfig)
Job: TypeAlias = bigquery.LoadJob | bigquery.CopyJob | bigquery.QueryJob

# https://cloud.google.com/bigquery/docs/error-messages: "try again", or "may have passed". A job that failed has
# changed nothing, and its id is used up.
_PASSING = frozenset(
    {
        "backendError",
        "internalError",
        "jobBackendError",
        "jobInternalError",
        "jobRateLimitExceeded",
        "rateLimitExceeded",
        "tableUnavailable",
    }
)
_TRIES = 5
_CALL_SECS = 60.0
# A job is asked after this often: at first, and at most.
_FIRST_POLL_SECS = 0.1
_LAST_POLL_SECS = 10.0
_SHOWN_ERRORS = 5


class JobFailed(SluiceError):
    """A job ended with an error; the text has the job's name and BigQuery's own messages.

    Attributes:
      reason: BigQuery's, of the error that ended it: "invalid", "duplicate", ...
    """

    def __init__(self, job: Job) -> None:
        errors = [job.error_result, *(job.errors or [])]
        texts = dict.fromkeys(str(error.get("message") or error.get("reason")) for error in errors)
        shown = "; ".join(list(texts)[:_SHOWN_ERRORS])
        super().__init__(f"job {job.project}:{job.location}.{job.job_id} failed: {shown}")
        self.reason = str(job.error_result.get("reason"))


def with_key(config: _Config, table: bigquery.Table) -> _Config:
    """Returns it with the key of the table that the job writes: a table that a job without one replaces has none then.

    https://cloud.google.com/bigquery/docs/customer-managed-encryption#change_to_kms
    """
    key = key_of(table)
    if key is not None:  # else it would be null in the request
        config.destination_encryption_configuration = key
    return config


class JobRunner:
    """Runs jobs in one location, and waits for each.

    A job whose error may have passed is started again, under the name's next id. Every method that runs one raises
    JobFailed, or what the client raises for a request that is refused, or not answered in `retry_secs`.

    Args:
      location: of the tables; None: BigQuery finds it out.
    """

    def __init__(
        self,
        client: bigquery.Client,
        location: str | None,
        retry_secs: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._location = location
        self._options = {"retry": bigquery.DEFAULT_RETRY.with_timeout(retry_secs), "timeout": _CALL_SECS}
        self._sleep = sleep

    def load(self, name: str, uris: Sequence[str], table: str, config: bigquery.LoadJobConfig) -> None:
        """Loads files."""
        self._run(
            name,
            lambda job_id: self._client.load_table_from_uri(
                uris, table, job_id, location=self._location, job_config=config, **self._options
            ),
        )

    def copy(self, name: str, source: str, table: str, config: bigquery.CopyJobConfig) -> None:
        """Copies a table's rows."""
        self._run(
            name,
            lambda job_id: self._client.copy_table(
                source, table, job_id, location=self._location, job_config=config, **self._options
            ),
        )

    def query(self, name: str, text: str, config: bigquery.QueryJobConfig) -> None:
        """Runs a query."""
        self._run(
            name,
            lambda job_id: self._client.query(
                text, config, job_id, location=self._location, job_retry=None, **self._options
            ),
        )

    def has_run(self, name: str) -> bool:
        """Whether a job of that name has succeeded."""
        for job_id in _job_ids(name):
            try:
                job = self._client.get_job(job_id, location=self._location, **self._options)
            except NotFound:
                return False
            if job.state == "DONE" and not job.error_result:
                return True
        return False

    def _run(self, name: str, start: Callable[[str], Job]) -> None:
        for number, job_id in enumerate(_job_ids(name)):
            if number:
                self._sleep(2.0**number)
            job = self._start_or_find(job_id, start)
            self._wait(job)
            if not job.error_result:
                return
            if job.error_result.get("reason") not in _PASSING:
                break
        raise JobFailed(job)

    def _start_or_find(self, job_id: str, start: Callable[[str], Job]) -> Job:
        try:
            return start(job_id)
        except Conflict:
            return self._client.get_job(job_id, location=self._location, **self._options)

    def _wait(self, job: Job) -> None:
        pause = _FIRST_POLL_SECS
        while job.state != "DONE":
            self._sleep(pause)
            pause = min(2 * pause, _LAST_POLL_SECS)
            job.reload(**self._options)


def _job_ids(name: str) -> list[str]:
    return [f"{name}_{number}" for number in range(_TRIES)]
