"""A job for Dataflow, on a machine where nobody is logged in."""

from pathlib import Path

import pytest

from sluice.models.endpoints.google_accounts import LookUpRequest
from sluice.models.errors import UsageError
from sluice.pipelines.cli import main
from sluice.pipelines.dataflow.login import check_login
from sluice.pipelines.dataflow.runner import beam_options
from tests.support.serving.google_tokens import NoServer, token_server

FLAGS = ["--runner=DataflowRunner", "--project=my-project", "--region=us-central1", "--temp_location=gs://bucket/tmp"]


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> NoServer:
    """The network of a machine without credentials."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    return NoServer()


def check(server: NoServer, *flags: str) -> None:
    check_login(beam_options([*FLAGS, *flags]), LookUpRequest(server, product="/nowhere"))  # type: ignore[arg-type]


def test_it_says_how_to_log_in_after_one_short_request(no_server: NoServer) -> None:
    with pytest.raises(UsageError, match="Log in with `gcloud auth application-default login`, or name a key file"):
        check(no_server)
    (timeout,) = no_server.timeouts
    assert timeout is not None and timeout <= 3


@pytest.mark.parametrize(
    "flag", ["--runner=DirectRunner", "--no_auth", "--dry_run=True", "--template_location=gs://b/t"]
)
def test_a_job_that_is_not_submitted_needs_no_login(flag: str, no_server: NoServer) -> None:
    check(no_server, flag)
    assert no_server.timeouts == []


def test_a_key_file_will_do(no_server: NoServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with token_server() as server:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", server.write_key(tmp_path))
        check(no_server)
    assert no_server.timeouts == []


@pytest.mark.parametrize("kind", ["batch", "streaming", "update"])
def test_every_job_asks_before_all_else(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    ends = {
        "batch": ["batch", "--input=gs://bucket/in.csv", "--output=gs://bucket/out.csv"],
        "streaming": [
            "streaming",
            "--input_subscription=projects/p/subscriptions/clicks",
            "--output_topic=projects/p/topics/scores",
        ],
    }
    command = ends["batch" if kind == "batch" else "streaming"]
    command += ["--failures=gs://bucket/failed", "--model=gs://bucket/model", *FLAGS]
    assert main([*command, *(["--update", "--job_name=clicks"] if kind == "update" else [])]) == 2
    told = capsys.readouterr().err
    assert "none.json was not found" in told and "gcloud auth application-default login" in told
