"""Jobs of a Flink cluster by its REST API, whose answers are given here."""

from typing import Any

import pytest

from sluice.models.errors import UsageError
from sluice.pipelines.portable import flink_rest
from sluice.pipelines.portable.flink_rest import cancel_jobs, check_name

MASTER = "http://flink:8081"
JOBS = [
    {"jid": "1", "name": "mine", "state": "CANCELED"},
    {"jid": "2", "name": "mine", "state": "RUNNING"},
    {"jid": "3", "name": "other", "state": "RUNNING"},
    {"jid": "4", "name": "ended", "state": "FINISHED"},
]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    calls: list[tuple[str, str]] = []

    def call(url: str, method: str) -> dict[str, Any]:
        calls.append((url, method))
        return {"jobs": JOBS} if url == f"{MASTER}/jobs/overview" else {}

    monkeypatch.setattr(flink_rest, "_call", call)
    return calls


def test_the_jobs_of_a_name_that_live_are_cancelled(calls: list[tuple[str, str]]) -> None:
    assert cancel_jobs(MASTER, "mine") == ["2"]
    assert calls[1:] == [(f"{MASTER}/jobs/2?mode=cancel", "PATCH")]


def test_a_name_is_refused_whose_job_lives(calls: list[tuple[str, str]]) -> None:
    with pytest.raises(UsageError, match="runs a job of this name"):
        check_name(MASTER, "mine")
    check_name(MASTER, "ended")
    check_name(MASTER, "new")
    check_name("", "mine")


def test_a_flink_that_does_not_tell_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(url: str, method: str) -> dict[str, Any]:
        raise ConnectionRefusedError

    monkeypatch.setattr(flink_rest, "_call", call)
    check_name(MASTER, "mine")
