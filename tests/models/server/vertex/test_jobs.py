"""Batch prediction jobs of the local Vertex AI, by Google's generated client."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud.aiplatform_v1 import JobServiceClient, types

from sluice.models.server.vertex.faults import VertexFaults
from sluice.models.tensors.tfrecord import write_records
from tests.support.servers import Gcs
from tests.support.serving.model_servers import RestClient
from tests.support.vertex.clients import ended, job_of, reasons, rest_client, results, write_lines
from tests.support.vertex.service import VertexService, vertex_service

KEYED: dict[str, Any] = {"instance_config": {"key_field": "key"}}
LOST = 2**53 + 1


@pytest.fixture(scope="module")
def shared_service(cases: Callable[[str], str]) -> Iterator[VertexService]:
    names = ("picky", "tf2_function", "raw_bytes")
    with vertex_service({name: cases(name) for name in names}) as service:
        yield service


@pytest.fixture
def service(shared_service: VertexService) -> VertexService:
    shared_service.server.gate.faults = VertexFaults()
    return shared_service


@pytest.fixture
def client(service: VertexService) -> JobServiceClient:
    return rest_client(JobServiceClient, service)


def created(
    client: JobServiceClient, service: VertexService, name: str, inputs: list[str], output: Path | str, **fields: Any
) -> types.BatchPredictionJob:
    job = job_of(service, name, inputs, str(output), **fields)
    return client.create_batch_prediction_job(parent=service.parent, batch_prediction_job=job)


def keyed(directory: Path, *values: float) -> str:
    """Writes values of x for the model "picky", each with its place as its key."""
    return write_lines(directory / "in.jsonl", ({"key": f"0:{row}", "x": x} for row, x in enumerate(values)))


def test_a_job_scores_and_tells_how_far_it_is(service: VertexService, client: JobServiceClient, tmp_path: Path) -> None:
    service.faults.polls = 4
    rows = [float(x * x) for x in range(200)]
    job = created(client, service, "picky", [keyed(tmp_path, *rows)], tmp_path / "out", **KEYED)
    assert job.state.name == "JOB_STATE_QUEUED"
    assert (job.model_version_id, job.display_name) == ("1", "a job")
    states = []
    while not job.end_time:
        job = client.get_batch_prediction_job(name=job.name)
        states.append(job.state.name.removeprefix("JOB_STATE_"))
    assert states == ["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"]
    assert job.output_info.gcs_output_directory.startswith(f"{tmp_path}/out/prediction-picky-")
    stats = job.completion_stats
    assert (stats.successful_count, stats.failed_count, stats.incomplete_count) == (200, 0, 0)
    found = results(job)
    assert {line["key"]: line["prediction"] for line in found} == {f"0:{x}": float(x) for x in range(200)}
    assert [line["key"] for line in found] != sorted(f"0:{x}" for x in range(200)), "shards lose the order"
    assert reasons(job) == []
    names = sorted(path.name for path in Path(job.output_info.gcs_output_directory).iterdir())
    assert names == [
        "prediction.errors_stats-00000-of-00001",
        *(f"prediction.results-{shard:05}-of-00003" for shard in range(3)),
    ]


def test_one_failing_row_takes_its_batch_with_it(
    service: VertexService, client: JobServiceClient, tmp_path: Path
) -> None:
    rows = [1.0] * 10
    rows[5] = -1.0
    tuned = {"manual_batch_tuning_parameters": {"batch_size": 4}, **KEYED}
    job = ended(client, created(client, service, "picky", [keyed(tmp_path, *rows)], tmp_path / "out", **tuned).name)
    assert job.state.name == "JOB_STATE_SUCCEEDED"
    assert (job.completion_stats.successful_count, job.completion_stats.failed_count) == (6, 4)
    assert sorted(line["key"] for line in results(job)) == ["0:0", "0:1", "0:2", "0:3", "0:8", "0:9"]
    ((text, count),) = reasons(job)
    assert "Non-OK result 400" in text and "x must not be negative" in text
    assert count == 4
    alone = {"manual_batch_tuning_parameters": {"batch_size": 1}, **KEYED}
    job = ended(client, created(client, service, "picky", [keyed(tmp_path, *rows)], tmp_path / "out", **alone).name)
    assert (job.completion_stats.successful_count, job.completion_stats.failed_count) == (9, 1)


def test_rows_that_a_test_names_fail(service: VertexService, client: JobServiceClient, tmp_path: Path) -> None:
    service.faults.is_bad = lambda instance: instance["x"] == 9.0
    job = ended(
        client, created(client, service, "picky", [keyed(tmp_path, *[9.0] * 3)], tmp_path / "out", **KEYED).name
    )
    assert job.state.name == "JOB_STATE_FAILED"
    assert (job.completion_stats.failed_count, results(job)) == (3, [])
    assert job.error.message
    assert "told to refuse" in reasons(job)[0][0]


def test_lines_without_a_key_and_lines_that_are_not_json(
    service: VertexService, client: JobServiceClient, tmp_path: Path
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"x": 4.0, "key": "a"}\n\n{"x": 4.0}\n[4.0]\n{"x": NaN, "key": "b"}\n{\n')
    job = ended(client, created(client, service, "picky", [str(path)], tmp_path / "out", **KEYED).name)
    assert results(job) == [{"key": "a", "prediction": 2.0}]
    assert job.completion_stats.failed_count == 4
    assert sum(count for _, count in reasons(job)) == 4
    service.faults.strict_json = False
    job = ended(client, created(client, service, "picky", [str(path)], tmp_path / "out", **KEYED).name)
    assert job.completion_stats.failed_count == 5, "NaN reaches the model, which refuses it with its batch"
    assert any("x must not be negative" in text for text, _ in reasons(job))


def test_integers_and_instances_come_back_as_they_were(
    service: VertexService, client: JobServiceClient, tmp_path: Path
) -> None:
    row = {"amount": 8.0, "items": LOST, "member": True, "country": "de"}
    job = ended(
        client,
        created(client, service, "tf2_function", [write_lines(tmp_path / "in.jsonl", [row])], tmp_path / "out").name,
    )
    (line,) = results(job)
    assert line["instance"] == row
    assert line["prediction"]["points"] == [LOST]


def test_chosen_fields(service: VertexService, client: JobServiceClient, tmp_path: Path) -> None:
    rows = [{"id": 1, "x": 4.0}, {"id": 2, "x": 9.0}]
    path = write_lines(tmp_path / "in.jsonl", rows)
    for config in ({"included_fields": ["x"]}, {"excluded_fields": ["id"]}, {"excluded_fields": ["id", "more"]}):
        job = ended(client, created(client, service, "picky", [path], tmp_path / "out", instance_config=config).name)
        assert sorted((line["instance"]["id"], line["prediction"]) for line in results(job)) == [(1, 2.0), (2, 3.0)]


def test_csv_becomes_arrays_and_records_become_base64(
    service: VertexService, client: JobServiceClient, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("x\n4\n9.0\n1e2\n")
    config = {"instances_format": "csv", "gcs_source": {"uris": [f"{tmp_path}/*.csv"]}}
    job = ended(client, created(client, service, "picky", [], tmp_path / "out", input_config=config).name)
    assert job.state.name == "JOB_STATE_FAILED", "x takes numbers, and the service sends arrays of one"
    assert sum(count for _, count in reasons(job)) == 3

    for form, name, opened in (("tf-record", "in.tfrecord", open), ("tf-record-gzip", "in.gz", gzip.open)):
        with opened(tmp_path / name, "wb") as file:  # type: ignore[operator]
            write_records(file, [b"\xff", b"ab"])
        config = {"instances_format": form, "gcs_source": {"uris": [f"{tmp_path}/{name}"]}}
        job = ended(client, created(client, service, "raw_bytes", [], tmp_path / "out", input_config=config).name)
        shown = {line["instance"]["b64"]: line["prediction"]["framed_bytes"]["b64"] for line in results(job)}
        assert shown == {"/w==": "/wD/gA==", "YWI=": "/wBhYoA="}

    (tmp_path / "one").write_bytes(b"\xff")
    (tmp_path / "list").write_text(f"{tmp_path}/one\n")
    config = {"instances_format": "file-list", "gcs_source": {"uris": [f"{tmp_path}/list"]}}
    job = ended(client, created(client, service, "raw_bytes", [], tmp_path / "out", input_config=config).name)
    assert [line["prediction"]["size"] for line in results(job)] == [1]


def test_files_that_cannot_be_read(service: VertexService, client: JobServiceClient, tmp_path: Path) -> None:
    good = keyed(tmp_path, 4.0)
    job = ended(client, created(client, service, "picky", [good, f"{tmp_path}/none"], tmp_path / "out", **KEYED).name)
    assert job.state.name == "JOB_STATE_SUCCEEDED"
    (partial,) = job.partial_failures
    assert "there is no such file" in partial.message
    job = ended(client, created(client, service, "picky", [f"{tmp_path}/none"], tmp_path / "out", **KEYED).name)
    assert job.state.name == "JOB_STATE_FAILED"
    assert "Cannot find any file" in job.error.message
    cut = tmp_path / "cut.tfrecord"
    with open(cut, "wb") as file:
        write_records(file, [b"a", b"b"])
    cut.write_bytes(cut.read_bytes()[:-3])
    config = {"instances_format": "tf-record", "gcs_source": {"uris": [str(cut)]}}
    job = ended(client, created(client, service, "raw_bytes", [], tmp_path / "out", input_config=config).name)
    assert job.completion_stats.successful_count == 1
    assert "cut.tfrecord" in job.partial_failures[0].message


def test_files_on_gs(service: VertexService, client: JobServiceClient, gcs: Gcs, tmp_path: Path) -> None:
    from apache_beam.io.filesystems import FileSystems

    from sluice.transforms.core.beam_files import match_files, open_binary, write_text

    write_text(gcs.path("vertex/in-0.jsonl"), '{"key": "a", "x": 4.0}\n')
    write_text(gcs.path("vertex/in-1.jsonl"), '{"key": "b", "x": 9.0}\n')
    job = ended(
        client, created(client, service, "picky", [gcs.path("vertex/in-*")], gcs.path("vertex/out/"), **KEYED).name
    )
    lines = []
    for file in match_files(f"{job.output_info.gcs_output_directory}/prediction.results-*"):
        with open_binary(file.path) as stored:
            lines += stored.read().splitlines()
    assert sorted(map(json.loads, lines), key=str) == [{"key": "a", "prediction": 2.0}, {"key": "b", "prediction": 3.0}]
    FileSystems.delete([gcs.path("vertex/")])


@pytest.mark.parametrize(
    ("state", "counts"),
    [
        ("FAILED", (4, 0, 4)),
        ("EXPIRED", (4, 0, 4)),
        ("CANCELLED", (4, 0, 4)),
        ("PARTIALLY_SUCCEEDED", (4, 4, 0)),
        ("SUCCEEDED", (8, 0, 0)),
    ],
)
def test_every_end(
    state: str, counts: tuple[int, int, int], service: VertexService, client: JobServiceClient, tmp_path: Path
) -> None:
    service.faults.end_states += [f"JOB_STATE_{state}"]
    rows = keyed(tmp_path, *[4.0] * 8)
    job = ended(client, created(client, service, "picky", [rows], tmp_path / "out", **KEYED).name)
    stats = job.completion_stats
    assert job.state.name == f"JOB_STATE_{state}"
    assert (stats.successful_count, stats.failed_count, stats.incomplete_count) == counts
    assert len(results(job)) == counts[0]
    assert bool(job.error.message) == (state in ("FAILED", "CANCELLED"))
    after = ended(client, created(client, service, "picky", [rows], tmp_path / "out", **KEYED).name)
    assert after.state.name == "JOB_STATE_SUCCEEDED", "the next job ends by itself"


def test_an_early_end_may_not_know_what_is_left(
    service: VertexService, client: JobServiceClient, tmp_path: Path
) -> None:
    service.faults.end_states += ["JOB_STATE_FAILED"]
    service.faults.unknown_incomplete = True
    job = ended(client, created(client, service, "picky", [keyed(tmp_path, 4.0)], tmp_path / "out", **KEYED).name)
    assert job.completion_stats.incomplete_count == -1


def test_a_paused_job_goes_on(service: VertexService, client: JobServiceClient, tmp_path: Path) -> None:
    service.faults.end_states += ["JOB_STATE_PAUSED"]
    name = created(client, service, "picky", [keyed(tmp_path, 4.0)], tmp_path / "out", **KEYED).name
    states = [client.get_batch_prediction_job(name=name).state.name for _ in range(4)]
    assert states == ["JOB_STATE_RUNNING", *["JOB_STATE_PAUSED"] * 3]
    service.jobs.resume(name.rpartition("/")[2])
    assert ended(client, name).state.name == "JOB_STATE_SUCCEEDED"


def test_a_held_job_runs_until_it_is_let_go(service: VertexService, client: JobServiceClient, tmp_path: Path) -> None:
    service.faults.hold_jobs = True
    name = created(client, service, "picky", [keyed(tmp_path, 4.0)], tmp_path / "out", **KEYED).name
    assert {client.get_batch_prediction_job(name=name).state.name for _ in range(5)} == {"JOB_STATE_RUNNING"}
    service.faults.hold_jobs = False
    assert ended(client, name).state.name == "JOB_STATE_SUCCEEDED"


def test_cancelling(service: VertexService, client: JobServiceClient, tmp_path: Path) -> None:
    service.faults.hold_jobs = True
    name = created(client, service, "picky", [keyed(tmp_path, 4.0)], tmp_path / "out", **KEYED).name
    client.cancel_batch_prediction_job(name=name)
    assert service.jobs.states()[name.rpartition("/")[2]] == "JOB_STATE_CANCELLING"
    job = client.get_batch_prediction_job(name=name)
    assert (job.state.name, job.error.code) == ("JOB_STATE_CANCELLED", 1)
    with pytest.raises(exceptions.BadRequest):
        client.cancel_batch_prediction_job(name=name)
    with pytest.raises(exceptions.NotFound):
        client.cancel_batch_prediction_job(name=f"{service.parent}/batchPredictionJobs/1")


def test_a_lost_shard(service: VertexService, client: JobServiceClient, tmp_path: Path) -> None:
    service.faults.lost_shard = 1
    service.faults.suffix = ".csv"
    tuned = {"manual_batch_tuning_parameters": {"batch_size": 1}, **KEYED}
    path = keyed(tmp_path, *[4.0] * 6)
    job = ended(client, created(client, service, "picky", [path], tmp_path / "out", **tuned).name)
    assert job.completion_stats.successful_count == 6
    assert sorted(line["key"] for line in results(job)) == ["0:0", "0:2", "0:3", "0:5"]
    names = {path.name for path in Path(job.output_info.gcs_output_directory).glob("*results*")}
    assert names == {"prediction.results-00000-of-00003.csv", "prediction.results-00002-of-00003.csv"}
    job = ended(client, created(client, service, "picky", [path], tmp_path / "out", **tuned).name)
    assert len(results(job)) == 6, "only one job loses it"


def test_jobs_are_listed_by_label_in_pages(service: VertexService, client: JobServiceClient, tmp_path: Path) -> None:
    path = keyed(tmp_path, 4.0)
    value = tmp_path.name.lower()[:60]
    fields = {"labels": {"sluice": value}, **KEYED}
    names = [created(client, service, "picky", [path], tmp_path / "out", **fields).name for _ in range(5)]
    label = f"labels.sluice={value}"
    request = {"parent": service.parent, "filter": label, "page_size": 2, "read_mask": "name,createTime"}
    found = list(client.list_batch_prediction_jobs(request=request))
    assert [job.name for job in found] == names[::-1]
    assert not found[0].display_name
    assert len({job.create_time for job in found}) == 5
    assert service.calls.all("listJobs")[-1].path.count("labels.sluice%3D") == 1
    first = ended(client, names[0])
    assert first.state.name == "JOB_STATE_SUCCEEDED", (first.error.message, reasons(first))
    for text, count in (
        (f'{label} AND state="JOB_STATE_SUCCEEDED"', 1),
        (f'{label} AND state!="JOB_STATE_SUCCEEDED"', 4),
        (f'{label} AND display_name="other"', 0),
        ("labels.other:*", 0),
    ):
        listed = list(client.list_batch_prediction_jobs(request={"parent": service.parent, "filter": text}))
        assert len(listed) == count, text
    for wrong in ("labels.sluice", "state=1 OR x"):
        with pytest.raises(exceptions.BadRequest):
            client.list_batch_prediction_jobs(request={"parent": service.parent, "filter": wrong})


def test_versions_of_models(service: VertexService, client: JobServiceClient, tmp_path: Path) -> None:
    path = keyed(tmp_path, 4.0)
    model = service.resources.model_name("picky")
    for version in ("@1", "@default"):
        job = created(client, service, "picky", [path], tmp_path / "out", model=f"{model}{version}", **KEYED)
        assert job.model_version_id == "1"
    with pytest.raises(exceptions.NotFound):
        created(client, service, "picky", [path], tmp_path / "out", model=f"{model}@7", **KEYED)
    with pytest.raises(exceptions.BadRequest):
        created(client, service, "picky", [path], tmp_path / "out", model="picky", **KEYED)


MACHINE = {"machine_type": "n1-standard-4"}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"display_name": ""}, "display_name"),
        ({"labels": {"Upper": "x"}}, "labels"),
        ({"labels": {"x": "y" * 65}}, "labels"),
        ({"input_config": {"instances_format": "parquet", "gcs_source": {"uris": ["x"]}}}, "instances_format"),
        ({"input_config": {"instances_format": "jsonl"}}, "gcs_source"),
        ({"output_config": {"predictions_format": "jsonl"}}, "gcs_destination"),
        ({"output_config": {"predictions_format": "parquet"}}, "predictions_format"),
        ({"instance_config": {"included_fields": ["a"], "excluded_fields": ["b"]}}, "Only one of"),
        ({"instance_config": {"instance_type": "array"}}, "order the fields"),
        ({"instance_config": {"instance_type": "list"}}, "instance_type"),
        ({"dedicated_resources": {}}, "machine_type"),
        ({"dedicated_resources": {"machine_spec": {**MACHINE, "accelerator_count": 1}}}, "accelerator_type"),
        ({"manual_batch_tuning_parameters": {"batch_size": -1}}, "batch_size"),
        (
            {
                "input_config": {"instances_format": "tf-record", "gcs_source": {"uris": ["x"]}},
                "instance_config": {"key_field": "k"},
            },
            "key_field",
        ),
    ],
)
def test_jobs_that_are_refused(
    fields: dict[str, Any], text: str, service: VertexService, client: JobServiceClient
) -> None:
    with pytest.raises(exceptions.BadRequest, match=text):
        created(client, service, "picky", ["x"], "out", **fields)
    assert service.calls.all("createJob")[-1].status == 400


def test_unknown_fields_are_refused_and_output_fields_ignored(service: VertexService, tmp_path: Path) -> None:
    http = RestClient(service.server.port)
    job = {
        "displayName": "a job",
        "model": service.resources.model_name("picky"),
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [keyed(tmp_path, 4.0)]}},
        "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": f"{tmp_path}/out"}},
        "dedicatedResources": {"machineSpec": {"machineType": "n1-standard-4"}},
        "state": "JOB_STATE_SUCCEEDED",
        "name": "mine",
    }
    response = http.request("POST", f"/v1/{service.parent}/batchPredictionJobs", job)
    assert response.status == 200
    answer = json.loads(response.data)
    assert (answer["state"], answer["name"] == "mine") == ("JOB_STATE_QUEUED", False)
    response = http.request("POST", f"/v1/{service.parent}/batchPredictionJobs", {**job, "batchSize": 3})
    assert (response.status, "batchSize" in json.loads(response.data)["error"]["message"]) == (400, True)
    path = f"/v1/{answer['name']}:cancel"
    assert http.request("POST", path, {"force": True}).status == 400
    http.close()


def test_a_lost_answer_leaves_its_job(service: VertexService, client: JobServiceClient, tmp_path: Path) -> None:
    service.faults.lost_answers += ["createJob"]
    before = len(service.jobs.states())
    with pytest.raises(Exception, match=r"(?i)connection|remote"):
        created(client, service, "picky", [keyed(tmp_path, 4.0)], tmp_path / "out", **KEYED)
    assert len(service.jobs.states()) == before + 1


def test_a_job_of_a_service_in_real_time_ends_by_itself(
    service: VertexService, client: JobServiceClient, tmp_path: Path
) -> None:
    service.faults.polls = 0
    name = created(client, service, "picky", [keyed(tmp_path, 4.0)], tmp_path / "out", **KEYED).name
    assert ended(client, name, polls=100_000).state.name == "JOB_STATE_SUCCEEDED"


@pytest.mark.parametrize(("config", "header"), [(KEYED, "key,prediction"), ({}, "x,prediction")])
def test_results_as_csv(
    config: dict[str, Any], header: str, service: VertexService, client: JobServiceClient, tmp_path: Path
) -> None:
    service.faults.shards = 1
    rows = [{"key": "4", "x": 4.0} if config else {"x": 4.0}]
    output = {"predictions_format": "csv", "gcs_destination": {"output_uri_prefix": f"{tmp_path}/out"}}
    path = write_lines(tmp_path / "in.jsonl", rows)
    job = ended(client, created(client, service, "picky", [path], "", output_config=output, **config).name)
    (written,) = Path(job.output_info.gcs_output_directory).glob("prediction.results-*")
    assert written.read_text().splitlines() == [header, "4,2.0" if config else "4.0,2.0"]
