"""What a Flex Template's launcher does: it runs the script with the parameters as flags and takes the job it writes.

The flags besides the parameters are those that Dataflow's launcher gives; `--template_location` has Beam write the job
to GCS, where the service finds it, instead of asking the service to start it.
"""

import json
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apache_beam.io.filesystems import FileSystems

from sluice.transforms.core.beam_files import open_binary, write_text
from tests.support.paths import ROOT
from tests.support.servers import Gcs, Pubsub
from tests.support.vertex.service import vertex_service

DEPLOY = ROOT / "deploy"


def upload(directory: str, target: str) -> str:
    """Copies a SavedModel to GCS; returns where it is."""
    for path in Path(directory).rglob("*"):
        if path.is_file():
            with FileSystems.create(f"{target}/{path.relative_to(directory)}") as file:
                file.write(path.read_bytes())
    return target


def launch(
    pipeline: str, place: str, parameters: dict[str, str], patch: pytest.MonkeyPatch
) -> tuple[Any, dict[str, Any]]:
    """Returns the script's exit code and the job."""
    job = f"{place}/template_launches/job_object"
    arguments = {
        "job_name": "a-job",
        "machine_type": "n2-standard-4",
        "network": "default",
        "project": "my-project",
        "region": "us-central1",
        "runner": "DataflowRunner",
        "sdk_container_image": "example/image:1",
        "service_account_email": "sa@my-project.iam.gserviceaccount.com",
        "staging_location": f"{place}/staging",
        "subnetwork": "regions/us-central1/subnetworks/default",
        "temp_location": f"{place}/tmp",
        "template_location": job,
    } | parameters
    script = str(DEPLOY / f"launch_{pipeline}.py")
    patch.setattr(sys, "argv", [script, *(f"--{name}={text}" for name, text in arguments.items())])
    patch.setattr(sys, "path", [str(DEPLOY), *sys.path])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(script, run_name="__main__")
    with open_binary(job) as file:
        return end.value.code, json.loads(file.read())


def check_job(job: dict[str, Any], kind: str) -> None:
    assert (job["name"], job["type"]) == ("a-job", kind)
    (pool,) = job["environment"]["workerPools"]
    assert pool["workerHarnessContainerImage"] == "example/image:1"
    packages = {each["name"] for each in pool.get("packages", ())}
    assert not [name for name in packages if name.endswith((".tar.gz", ".whl"))], (
        "the image holds all that workers need"
    )


def test_a_batch_template(gcs: Gcs, cases: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    place = gcs.path("template_batch")
    write_text(f"{place}/in.csv", "x\n1\n2\n")
    parameters = {
        "model": upload(cases("picky"), f"{place}/model"),
        "input": f"{place}/in.csv",
        "output": f"{place}/out/pred.csv",
        "max_failure_rate": "",
        "overwrite": "true",
    }
    code, job = launch("batch", place, parameters, monkeypatch)
    assert code == 0
    check_job(job, "JOB_TYPE_BATCH")


def test_a_streaming_template(
    gcs: Gcs, pubsub: Pubsub, cases: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = gcs.path("template_streaming")
    parameters = {
        "model": upload(cases("picky"), f"{place}/model"),
        "input_subscription": pubsub.make_subscription(pubsub.make_topic()),
        "output_topic": pubsub.make_topic(),
        "failures": f"{place}/failed",
        "input_format": "",
    }
    code, job = launch("streaming", place, parameters, monkeypatch)
    assert code == 0
    check_job(job, "JOB_TYPE_STREAMING")


@pytest.fixture
def on_vertex(cases: Callable[[str], str]) -> Iterator[dict[str, str]]:
    """The parameters of a model behind an endpoint. 0.0.0.0 is this machine, which the launch check does not know."""
    with vertex_service({"picky": cases("picky")}) as service:
        yield {"model": service.endpoint_uri("picky"), "vertex_endpoint": f"http://0.0.0.0:{service.server.port}"}
        assert service.calls.statuses() == {200: 2}, "the launcher looks up endpoint and model, once"


def test_a_batch_template_with_an_endpoint_of_vertex(
    gcs: Gcs, on_vertex: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = gcs.path("template_batch_vertex")
    write_text(f"{place}/in.csv", "x\n1\n2\n")
    parameters = on_vertex | {"input": f"{place}/in.csv", "output": f"{place}/out/pred.csv"}
    code, job = launch("batch", place, parameters, monkeypatch)
    assert code == 0
    check_job(job, "JOB_TYPE_BATCH")


def test_a_streaming_template_with_an_endpoint_of_vertex(
    gcs: Gcs, pubsub: Pubsub, on_vertex: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = gcs.path("template_streaming_vertex")
    parameters = on_vertex | {
        "input_subscription": pubsub.make_subscription(pubsub.make_topic()),
        "output_topic": pubsub.make_topic(),
        "failures": f"{place}/failed",
    }
    code, job = launch("streaming", place, parameters, monkeypatch)
    assert code == 0
    check_job(job, "JOB_TYPE_STREAMING")
