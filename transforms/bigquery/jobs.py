"""BigQuery jobs that run once, however often the step that runs them is repeated.

A job's id is made from what the job is for. So a step that is repeated, or whose request got no answer, finds the job
that is there: https://cloud.google.com/bigquery/docs/running-jobs#generate-jobid
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias, TypeVar

from google.api_core.exceptions import Conflict, NotFound
from google.api_core.retry import exponential_sleep_generator
from google.cloud import bigquery

from sluice.models.errors import SluiceError
from sluice.transforms.bigquery.clients import TRANSIENT_REASONS, call_options
from sluice.transforms.bigquery.table import quoted
from sluice.transforms.bigquery.table_layout import key_of

_Config = TypeVar("_Config", bigquery.LoadJobConfig, bigquery.CopyJobConfig, bigquery.QueryJobConfig)
Job: TypeAlias = bigquery.LoadJob | bigquery.CopyJob | bigquery.QueryJob

# Those of jobs besides. A job that failed has changed nothing, and its id is used up.
_TRANSIENT_REASONS = TRANSIENT_REASONS | {
    "jobBackendError",
    "jobInternalError",
    "jobRateLimitExceeded",
    "tableUnavailable",
}
_TRIES = 5
# Pauses between tries, and between looks whether a job has ended: the first and the longest, half of them on average.
_TRY_SECS = (4.0, 60.0)
_POLL_SECS = (0.2, 20.0)
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


class JobRunner:
    """Runs jobs in one location, and waits for each.

    A job that fails with an error that may pass is started again, under the name's next id. Every method that runs a
    job raises JobFailed, or what the client raises for a request that is refused, or not answered in `retry_secs`.

    Args:
      location: of the tables; None: BigQuery finds it out.
      sleep: waits so many seconds.
      backoff: from the first and the longest of them, an iterator over pauses, in seconds.
    """

    def __init__(
        self,
        client: bigquery.Client,
        location: str | None,
        retry_secs: float,
        sleep: Callable[[float], None] = time.sleep,
        backoff: Callable[[float, float], Iterator[float]] = exponential_sleep_generator,
    ) -> None:
        self._client = client
        self._location = location
        self._options = call_options(retry_secs)
        self._sleep, self._backoff = sleep, backoff

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
        pauses = self._backoff(*_TRY_SECS)
        for number, job_id in enumerate(_job_ids(name)):
            if number:
                self._sleep(next(pauses))
            job = self._start_or_find(job_id, start)
            self._wait(job)
            if not job.error_result:
                return
            if job.error_result.get("reason") not in _TRANSIENT_REASONS:
                break
        raise JobFailed(job)

    def _start_or_find(self, job_id: str, start: Callable[[str], Job]) -> Job:
        try:
            return start(job_id)
        except Conflict:
            return self._client.get_job(job_id, location=self._location, **self._options)

    def _wait(self, job: Job) -> None:
        pauses = self._backoff(*_POLL_SECS)
        while job.state != "DONE":
            self._sleep(next(pauses))
            job.reload(**self._options)


def _job_ids(name: str) -> list[str]:
    return [f"{name}_{number}" for number in range(_TRIES)]


def with_key(config: _Config, table: bigquery.Table) -> _Config:
    """Returns the configuration with the encryption key of the table that the job writes.

    A job without a key takes it from a table that it replaces:
    https://cloud.google.com/bigquery/docs/customer-managed-encryption#change_to_kms
    """
    key = key_of(table)
    if key is not None:  # else it would be null in the request
        config.destination_encryption_configuration = key
    return config


def replace_rows(runner: JobRunner, name: str, source: str, table: bigquery.Table) -> None:
    """Replaces a table's rows by those of another, `source`, in one job; the table must have no REQUIRED columns.

    The job is a query and not a copy: a copy leaves out rows that BigQuery has not yet moved out of its write buffer,
    where rows of streams may be for an hour and more after their commit. A query keeps the schema as well; but its
    results are NULLABLE, so plan_table refuses tables with REQUIRED columns.
    """
    config = bigquery.QueryJobConfig(
        destination=table.reference,
        write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE_DATA,
        create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
        use_query_cache=False,
    )
    runner.query(name, f"SELECT * FROM {quoted(source)}", with_key(config, table))
