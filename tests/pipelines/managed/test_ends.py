"""What users are told at each end of a job, and how they go on."""

import logging

import pytest

from sluice.models.wording import told
from sluice.pipelines.managed.ends import JobEnded, check_end, detached_text, resume_command
from sluice.pipelines.managed.job import Job, State

NAME = "projects/p/locations/l/batchPredictionJobs/7"
AGENT = "service-PROJECT_NUMBER@gcp-sa-aiplatform.iam.gserviceaccount.com"


@pytest.mark.parametrize(
    "job,words",
    [
        (Job(NAME, State.FAILED, error="why."), f"batch prediction job {NAME} failed: why.. The same command makes"),
        (Job(NAME, State.FAILED), f"{NAME} failed. The same command makes a new job, once the cause is mended"),
        (Job(NAME, State.CANCELLED), f"{NAME} was cancelled. The same command makes a new job"),
        (Job(NAME, State.EXPIRED), "expired: it ran for longer than the service allows. The same command makes a new"),
        (Job(NAME, State.EXPIRED), "more --vertex_replicas"),
        (Job(NAME, State.FAILED, partial_failures=("a", "b", "a", "c", "d")), "failed: a; b; c (and 1 more)"),
        (Job(NAME, State.FAILED, error="lacks storage.objects.get access"), AGENT),
        (Job(NAME, State.FAILED, error="needs bigquery.tables.get"), "roles/bigquery.dataEditor"),
        (Job(NAME, State.FAILED, error="Quota exceeded for T4"), "--vertex_machine_type, --vertex_replicas"),
        (Job(NAME, State.FAILED, error="Model server ran out of memory"), "smaller --vertex_batch_size"),
    ],
)
def test_ends_without_results(job: Job, words: str) -> None:
    with pytest.raises(JobEnded) as error:
        check_end(job)
    assert words in str(error.value)


def test_ends_with_results(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        check_end(Job(NAME, State.SUCCEEDED))
        assert not caplog.records
        check_end(Job(NAME, State.PARTIALLY_SUCCEEDED, partial_failures=("gs://b/x is damaged",)))
    assert f"batch prediction job {NAME} succeeded in part only: gs://b/x is damaged" in caplog.text


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED, State.EXPIRED])
def test_of_an_end_all_but_the_words_of_the_service_is_told_where_rows_are_private(state: State) -> None:
    with pytest.raises(JobEnded) as error:
        check_end(Job(NAME, state, error="quota exceeded by the row Ann"), private=True)
    text = told(error.value, private=True)
    assert "Ann" not in text and "Ann" in told(error.value, private=False)
    assert NAME in text and "The same command makes a new job" in text and "--vertex_machine_type" in text


def test_what_a_job_left_out_is_logged_without_words_that_may_quote_rows(caplog: pytest.LogCaptureFixture) -> None:
    check_end(Job(NAME, State.PARTIALLY_SUCCEEDED, partial_failures=("bad row Ann",)), private=True)
    assert f"batch prediction job {NAME} succeeded in part only[withheld]" in caplog.text
    assert "Ann" not in caplog.text


@pytest.mark.parametrize(
    "argv,command",
    [
        (["/opt/bin/sluice", "batch", "--detach", "--input", "a b"], "sluice batch --input 'a b'"),
        (["sluice", "batch", "--detach=true", "--x"], "sluice batch --x"),
        (["sluice", "batch", "--detach", "true", "--x"], "sluice batch --x"),
        (["sluice", "batch", "--x", "--detach"], "sluice batch --x"),
        (["/venv/sluice/__main__.py", "batch"], "python -m sluice batch"),
        (["sluice", "batch", "--config=j.yaml", "--detach"], "sluice batch --config=j.yaml --detach=false"),
        (["sluice", "batch", "--rpc_headers=a=s3cret", "--x"], "sluice batch --x"),
        (["sluice", "batch", "--detach", "--rpc_headers", "a=s3cret", "--x"], "sluice batch --x"),
    ],
)
def test_the_command_that_resumes(argv: list[str], command: str) -> None:
    assert resume_command(argv) == command


@pytest.mark.parametrize(
    "flag", ["--s3_secret_access_key", "--s3_session_token", "--azure_connection_string", "--gbek", "--rpc_headers"]
)
def test_the_command_that_resumes_holds_no_secret(flag: str) -> None:
    assert resume_command(["sluice", "batch", flag, "s3cret", "--x"]) == "sluice batch --x"
    assert resume_command(["sluice", "batch", f"{flag}=s3cret", "--x"]) == "sluice batch --x"


@pytest.mark.parametrize("before", [[], ["--vertex_job", "6"], ["--vertex_job=6"]])
def test_the_command_that_resumes_names_its_job(before: list[str]) -> None:
    assert resume_command(["sluice", "batch", *before, "--x"], job="7") == "sluice batch --x --vertex_job=7"
    assert resume_command(["sluice", "batch", "--vertex_job", "6"]) == "sluice batch --vertex_job 6"


@pytest.mark.parametrize("given", [["--overwrite"], ["--overwrite=true"], ["--overwrite", "true"]])
def test_the_command_that_resumes_a_job_of_overwrite_asks_for_no_other(given: list[str]) -> None:
    argv = ["sluice", "batch", *given, "--x"]
    assert resume_command(argv, overwrites=False) == "sluice batch --x"
    assert "--overwrite" in resume_command(argv)


def test_what_detach_says() -> None:
    text = detached_text(Job(NAME, State.QUEUED), "sluice batch --x", "https://l-aiplatform.googleapis.com")
    assert NAME in text and "https://console.cloud.google.com/" in text and text.endswith(": sluice batch --x")
    assert "console" not in detached_text(Job(NAME, State.QUEUED), "sluice batch --x", "http://127.0.0.1:1")
