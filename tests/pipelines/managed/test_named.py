"""--vertex_job: which job a name stands for, and when a command does not fit it."""

import dataclasses
from typing import Any

import pytest

from sluice.models.errors import UsageError
from sluice.models.uri import ManagedModel
from sluice.pipelines.managed.job import Job, JobRequest, RegisteredModel, State
from sluice.pipelines.managed.named import Named, find_model, find_named, request_of_named
from sluice.pipelines.options.batch import BatchOptions
from tests.support.vertex.jobs import MACHINES

PARENT = "projects/p/locations/l"
LABEL, SECOND, FLAGS = (f"s{digit * 40}" for digit in "123")
INSTANCES = f"gs://b/t/sluice-managed/{LABEL}/20260102-1/instances/part-*-of-*.jsonl"
FIRST = Job(f"{PARENT}/batchPredictionJobs/7", State.RUNNING, LABEL, 1, "t", (INSTANCES,), version="3", flags=FLAGS)
AGAIN = dataclasses.replace(
    FIRST, name=f"{PARENT}/batchPredictionJobs/8", label=SECOND, inputs=(INSTANCES.replace("instances", "again-1"),)
)
DIRECT = dataclasses.replace(FIRST, name=f"{PARENT}/batchPredictionJobs/9", inputs=("gs://b/in/*.jsonl",))
FOREIGN = Job(f"{PARENT}/batchPredictionJobs/5", State.RUNNING)


class Jobs:
    """A project with four jobs, and a model of which version 4 is the default."""

    parent = PARENT

    def find(self, label: str) -> list[Job]:
        return [job for job in (FIRST, AGAIN) if job.label == label]

    def get(self, name: str) -> Job:
        (job,) = [job for job in (FIRST, AGAIN, DIRECT, FOREIGN) if job.name == name]
        return job

    def model(self, name: str) -> RegisteredModel:
        base, _, version = name.partition("@")
        return RegisteredModel(base, version or "4")


@pytest.mark.parametrize("text", ["7", FIRST.name, LABEL, "8", AGAIN.name])
def test_a_job_is_named_by_its_id_its_name_or_its_label_and_by_its_second_one(text: str) -> None:
    found = find_named(Jobs(), text)
    assert found == Named(text, LABEL, FLAGS, f"gs://b/t/sluice-managed/{LABEL}", "3")


@pytest.mark.parametrize(
    "text,words",
    [
        (f"s{'9' * 40}", f"{PARENT} has no job with this label"),
        ("5", "--vertex_job 5: `sluice batch` has not made this job"),
    ],
)
def test_a_name_that_stands_for_no_job_of_ours(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        find_named(Jobs(), text)


def request(**changed: Any) -> JobRequest:
    made = JobRequest("m@3", "s0", 0, "sluice m", ("gs://b/in/*.jsonl",), "gs://b/o", MACHINES, flags=FLAGS)
    return dataclasses.replace(made, **changed)


def test_a_job_whose_input_the_service_reads() -> None:
    named = find_named(Jobs(), "9")
    assert request_of_named(request(), named) == request(label=LABEL)
    with pytest.raises(UsageError, match="it has read its input itself: give --vertex_direct"):
        named.check(FLAGS, is_direct=False)
    with pytest.raises(UsageError, match="its rows were prepared: leave --vertex_direct out"):
        request_of_named(request(), find_named(Jobs(), "7"))


def test_other_flags_are_another_job() -> None:
    with pytest.raises(UsageError, match="--vertex_job 9: this job is for another model, signature or output, or was"):
        request_of_named(request(flags=f"s{'4' * 40}"), find_named(Jobs(), "9"))


@pytest.mark.parametrize(
    "version,job,wanted",
    [
        ("", "", ("vertex://projects/p/locations/l/models/m", "4")),
        ("", "7", ("vertex://projects/p/locations/l/models/m@3", "3")),
        ("default", "7", ("vertex://projects/p/locations/l/models/m@3", "3")),
        ("4", "7", ("vertex://projects/p/locations/l/models/m@4", "4")),
        ("3", "7", ("vertex://projects/p/locations/l/models/m@3", "3")),
    ],
)
def test_the_version_is_that_of_the_job_unless_the_uri_has_a_number(
    version: str, job: str, wanted: tuple[str, str]
) -> None:
    model = ManagedModel("p", "l", "m", version)
    options = BatchOptions(model=f"vertex://{model.name}", input="gs://b/i.jsonl", output="gs://b/o", vertex_job=job)
    found, registered, named = find_model(Jobs(), options, model)
    assert (found.model, registered.version, named is not None) == (*wanted, bool(job))
