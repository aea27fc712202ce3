"""States of jobs, and their order."""

import pytest

from sluice.pipelines.managed.job import Job, RegisteredModel, State

RESULTS = {State.SUCCEEDED, State.PARTIALLY_SUCCEEDED}
ENDED = RESULTS | {State.FAILED, State.CANCELLED, State.EXPIRED}


@pytest.mark.parametrize("state", State)
def test_what_a_state_means(state: State) -> None:
    job = Job("n", state)
    assert job.is_ended == (state in ENDED)
    assert job.has_results == (state in RESULTS)
    assert job.is_live == (state not in ENDED | {State.CANCELLING})


def test_a_state_of_a_later_service_is_unspecified_and_live() -> None:
    assert State(99) is State.UNSPECIFIED
    assert Job("n", State(99)).is_live


def test_the_oldest_is_first_and_the_name_decides_between_twins() -> None:
    jobs = [Job("b", State.RUNNING, created=2), Job("c", State.RUNNING, created=1), Job("a", State.RUNNING, created=2)]
    assert [job.name for job in sorted(jobs, key=lambda job: job.age_order)] == ["c", "a", "b"]


def test_names() -> None:
    assert Job("projects/p/locations/l/batchPredictionJobs/7", State.QUEUED).short_name == "7"
    assert RegisteredModel("projects/p/locations/l/models/m", "3").versioned_name == "projects/p/locations/l/models/m@3"
    assert RegisteredModel("projects/p/locations/l/models/m", "").versioned_name == "projects/p/locations/l/models/m"
