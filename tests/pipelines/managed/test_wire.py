"""Jobs and models in the form of the published protos, and back."""

import dataclasses
import json
from typing import Any

import pytest
from google.cloud.aiplatform_v1 import types
from google.protobuf import json_format

from sluice.models.errors import UsageError
from sluice.pipelines.managed.job import JobRequest, Machines, State, Stats
from sluice.pipelines.managed.wire import check_accelerator, job_of, job_proto, model_of

NAME = "projects/p/locations/l/batchPredictionJobs/7"
REQUEST = JobRequest(
    model="projects/p/locations/l/models/m@3",
    label="s1",
    attempt=2,
    display_name="sluice m",
    inputs=("gs://b/a.jsonl", "gs://b/b.jsonl"),
    output="gs://b/out",
    machines=Machines("n1-standard-4", 3, "NVIDIA_TESLA_T4", 2, 128, "a@p.iam.gserviceaccount.com"),
    key_field="_sluice_key",
    flags="s2",
)


def wire(**changes: Any) -> dict[str, Any]:
    message = job_proto(dataclasses.replace(REQUEST, **changes), "token")
    found: dict[str, Any] = types.BatchPredictionJob.to_dict(message, always_print_fields_with_no_presence=False)
    return found


def test_a_job_over_files() -> None:
    assert wire() == {
        "display_name": "sluice m",
        "model": "projects/p/locations/l/models/m@3",
        "input_config": {
            "instances_format": "jsonl",
            "gcs_source": {"uris": ["gs://b/a.jsonl", "gs://b/b.jsonl"]},
        },
        "instance_config": {"key_field": "_sluice_key"},
        "output_config": {"predictions_format": "jsonl", "gcs_destination": {"output_uri_prefix": "gs://b/out"}},
        "dedicated_resources": {
            "machine_spec": {
                "machine_type": "n1-standard-4",
                "accelerator_type": types.AcceleratorType.NVIDIA_TESLA_T4.value,
                "accelerator_count": 2,
            },
            "starting_replica_count": 3,
            "max_replica_count": 3,
        },
        "manual_batch_tuning_parameters": {"batch_size": 128},
        "service_account": "a@p.iam.gserviceaccount.com",
        "labels": {"sluice_job": "s1", "sluice_attempt": "2", "sluice_command": "token", "sluice_flags": "s2"},
    }


def test_what_is_not_asked_for_is_left_to_the_service() -> None:
    found = wire(machines=Machines("n1-standard-4"), key_field="")
    assert not {"instance_config", "manual_batch_tuning_parameters", "service_account"} & set(found)
    assert found["dedicated_resources"]["machine_spec"] == {"machine_type": "n1-standard-4"}


def test_a_job_over_a_table() -> None:
    found = wire(
        inputs=("bq://p.d.t",), input_format="bigquery", output="bq://p.d.o", output_format="bigquery", key_field="",
        instance_type="object", fields=("x", "y"),
    )  # fmt: skip
    assert found["input_config"] == {"instances_format": "bigquery", "bigquery_source": {"input_uri": "bq://p.d.t"}}
    assert found["output_config"] == {
        "predictions_format": "bigquery",
        "bigquery_destination": {"output_uri": "bq://p.d.o"},
    }
    assert found["instance_config"] == {"instance_type": "object", "included_fields": ["x", "y"]}


def answer(fields: dict[str, Any]) -> types.BatchPredictionJob:
    message = types.BatchPredictionJob()
    json_format.Parse(json.dumps(fields), types.BatchPredictionJob.pb(message), ignore_unknown_fields=True)
    return message


def test_what_the_service_says_of_a_job() -> None:
    job = job_of(
        answer(
            {
                "name": NAME,
                "state": 11,
                "labels": {"sluice_job": "s1", "sluice_attempt": "2", "sluice_command": "t", "sluice_flags": "s2"},
                "inputConfig": {"gcsSource": {"uris": ["gs://b/a.jsonl"]}},
                "outputInfo": {"gcsOutputDirectory": "gs://b/out/prediction-m-1/"},
                "completionStats": {"successfulCount": "10", "failedCount": "2", "incompleteCount": "-1"},
                "partialFailures": [{"code": 3, "message": "a file"}, {"code": 5}],
                "error": {"code": 9, "message": "why"},
                "createTime": "2026-01-02T03:04:05.000000006Z",
                "modelVersionId": "3",
                "newField": {"of": "a later service"},
            }
        )
    )
    assert (job.name, job.state, job.label, job.attempt, job.token) == (NAME, State.PARTIALLY_SUCCEEDED, "s1", 2, "t")
    assert job.inputs == ("gs://b/a.jsonl",)
    assert job.output_directory == "gs://b/out/prediction-m-1"
    assert job.stats == Stats(10, 2, None)
    assert (job.error, job.partial_failures) == ("why", ("a file", "code 5"))
    assert job.created % 1_000_000_000 == 6
    assert (job.version, job.flags) == ("3", "s2")


@pytest.mark.parametrize("state,found", [(0, State.UNSPECIFIED), (77, State.UNSPECIFIED), (8, State.PAUSED)])
def test_states_by_number(state: int, found: State) -> None:
    assert job_of(answer({"name": NAME, "state": state})).state is found


def test_what_is_not_known_yet() -> None:
    job = job_of(answer({"name": NAME, "labels": {"sluice_attempt": "many"}}))
    assert (job.stats, job.error, job.output_directory, job.attempt) == (Stats(None, None, None), "", "", 0)
    assert job_of(answer({"name": NAME, "completionStats": {}})).stats == Stats(0, 0, 0)


def test_the_output_of_a_table() -> None:
    info = {"bigqueryOutputDataset": "bq://p.d", "bigqueryOutputTable": "predictions_1"}
    job = job_of(
        answer({"name": NAME, "outputInfo": info, "inputConfig": {"bigquerySource": {"inputUri": "bq://p.d.t"}}})
    )
    assert (job.output_table, job.inputs) == ("p.d.predictions_1", ("bq://p.d.t",))


def test_a_model() -> None:
    model = model_of(
        types.Model(
            name="projects/p/locations/l/models/m@3",
            version_id="3",
            artifact_uri="gs://b/m",
            display_name="shown",
            supported_input_storage_formats=["jsonl"],
        )
    )
    assert model.versioned_name == "projects/p/locations/l/models/m@3"
    assert (model.display_name, model.artifact_uri, model.input_formats, model.output_formats) == (
        "shown",
        "gs://b/m",
        ("jsonl",),
        (),
    )


def test_accelerators() -> None:
    check_accelerator("")
    check_accelerator("NVIDIA_L4")
    with pytest.raises(UsageError, match=r"no such accelerator; it has .*NVIDIA_TESLA_T4"):
        check_accelerator("NVIDIA_T4")
