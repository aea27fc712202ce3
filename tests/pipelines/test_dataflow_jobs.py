"""Jobs submitted to a Dataflow service in full, and their staged graphs run where only what was staged is installed."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.stager import Stager
from packaging.requirements import Requirement

from pipelines.cli import main
from pipelines.sdist import find_setup_file
from tests.dataflow_cases import CASES, LOCALLY, REMOTELY, Places, read_file
from tests.dataflow_service import DataflowService, Job, dataflow_service
from tests.hermetic import declared, make_venv, run_worker, without
from tests.pipelines.test_batch_gcs import names, upload
from tests.servers import BigQuery, Gcs, Pubsub
from tests.streams import Ends, make_ends
from tests.transforms.bigquery_cases import load, make_births
from tests.zoo_models import ZooSample

ROOT = Path(__file__).parent.parent.parent
# A process that submits jobs, one after the other: prints their exit codes, and whether it has loaded TensorFlow.
LAUNCHER = """
import json, sys
from apache_beam.internal.gcp.auth import _Credentials
from pipelines.cli import main
_Credentials._credentials_init = True  # it has none, and need not look for them for half a minute
codes = [main(arguments) for arguments in json.loads(sys.argv[1])]
print(json.dumps([codes, "tensorflow.python._pywrap_tensorflow_internal" in sys.modules]))
"""


@pytest.fixture(scope="module")
def inputs(gcs: Gcs, zoo_samples: dict[str, ZooSample]) -> Gcs:
    """The models as version 1, and samples, in the bucket."""
    for name in ("criteo", "natality"):
        model = Path(zoo_samples[name].model)
        for path in model.rglob("*"):
            if path.is_file():
                upload(str(path), gcs.path(f"jobs/{name}/{path.relative_to(model)}"))
    for format_ in ("csv", "tfrecord"):
        upload(zoo_samples["criteo"].path(format_), gcs.path(f"jobs/in/criteo.{format_}"))
    return gcs


@pytest.fixture(scope="module")
def places(inputs: Gcs, bigquery: BigQuery) -> Places:
    return Places(inputs, bigquery, load(bigquery, make_births(300)), bigquery.make_dataset())


@pytest.fixture(scope="module")
def service() -> Iterator[DataflowService]:
    with dataflow_service() as running:
        yield running


@pytest.fixture(scope="module")
def dataflow_flags(service: DataflowService, inputs: Gcs) -> list[str]:
    return [
        "--runner=DataflowRunner",
        "--project=my-project",
        "--region=us-central1",
        f"--temp_location={inputs.path('jobs/tmp')}",
        f"--dataflow_endpoint={service.url}",
        "--no_auth",
    ]


@dataclasses.dataclass(frozen=True)
class Launched:
    """What a process has submitted.

    Attributes:
      codes: its exit codes.
      kernels: whether it has loaded TensorFlow's.
    """

    codes: list[int]
    kernels: bool
    jobs: list[Job]


@pytest.fixture(scope="module")
def launched(service: DataflowService, dataflow_flags: list[str], places: Places) -> Launched:
    """Every case, submitted."""
    before = len(service.jobs)
    commands = [["batch", *case.flags(places, REMOTELY), *dataflow_flags] for case in CASES.values()]
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, json.dumps(commands)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    codes, kernels = json.loads(done.stdout.splitlines()[-1])
    return Launched(codes, kernels, service.jobs[before:])


@pytest.fixture(scope="module")
def batch_jobs(launched: Launched) -> dict[str, Job]:
    """The job of every case."""
    assert launched.codes == [0] * len(CASES)
    return dict(zip(CASES, launched.jobs, strict=True))


@pytest.fixture(scope="module")
def ends(pubsub: Pubsub) -> Ends:
    return make_ends(pubsub)


@pytest.fixture(scope="module")
def streaming_job(service: DataflowService, dataflow_flags: list[str], inputs: Gcs, ends: Ends) -> Job:
    """Messages to a topic, and failures to files."""
    flags = [
        "--input_subscription=projects/my-project/subscriptions/messages",
        f"--output_topic={ends.output_topic}",
        f"--failures={inputs.path('jobs/streaming/failed')}",
        f"--model={inputs.path('jobs/criteo')}",
        "--id_label=id",
    ]
    assert main(["streaming", *flags, *dataflow_flags]) == 0
    return service.jobs[-1]


@pytest.fixture(scope="module")
def messages(criteo: ZooSample) -> list[bytes]:
    """50 rows of the sample as Pub/Sub's messages, and one that is no JSON."""
    payloads = [line.encode() for line in Path(criteo.path("jsonl")).read_text().splitlines()[:50]]
    made = [PubsubMessage(each, {}, f"m{number}", "") for number, each in enumerate([*payloads, b"no JSON"])]
    return [message._to_proto_str(for_publish=False) for message in made]


@pytest.fixture(scope="module")
def sdist(batch_jobs: dict[str, Job], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one that was staged."""
    path = tmp_path_factory.mktemp("sdist") / "workflow.tar.gz"
    path.write_bytes(read_file(batch_jobs["csv"].packages["workflow.tar.gz"]))
    return path


@pytest.fixture(scope="module")
def worker_python(sdist: Path) -> Iterator[Path]:
    """The python of an environment that holds the sdist, and what it declares."""
    with tempfile.TemporaryDirectory() as directory:
        yield make_venv(Path(directory), sdist)


@pytest.fixture(scope="module")
def errors(
    worker_python: Path,
    batch_jobs: dict[str, Job],
    streaming_job: Job,
    messages: list[bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """Why jobs failed that a worker has run: all of them, in one process."""
    graphs = {name: job.pipeline_url for name, job in batch_jobs.items()} | {"streaming": streaming_job.pipeline_url}
    return run_worker(worker_python, graphs, tmp_path_factory.mktemp("work"), messages)


def graph_of(job: Job) -> Any:
    return beam_runner_api_pb2.Pipeline.FromString(read_file(job.pipeline_url))


def test_a_batch_job_is_submitted_with_our_defaults(batch_jobs: dict[str, Job]) -> None:
    job = batch_jobs["csv"]
    assert (job.project, job.region, job.streaming) == ("my-project", "us-central1", False)
    assert job.name.startswith("sluice-batch-criteo-")
    assert job.labels == {"sluice-model": "criteo", "sluice-model-version": "1"}
    experiments = job.environment["experiments"]
    assert {"use_runner_v2", "no_use_multiple_sdk_containers"} <= set(experiments)
    assert "use_multiple_sdk_containers" not in experiments
    assert job.worker_pool["numThreadsPerWorker"] == 12
    assert "beam_python3" in job.worker_pool["workerHarnessContainerImage"], "Beam's own image"
    assert "workflow.tar.gz" in job.packages
    assert job.options["save_main_session"] is False
    graph = graph_of(job)
    assert {each.unique_name.split("/")[0] for each in graph.components.transforms.values()} >= {"Read", "Predict"}


def test_a_job_with_an_image_stages_no_sdist(
    service: DataflowService, dataflow_flags: list[str], inputs: Gcs, tmp_path: Path
) -> None:
    """Nor does it count what Dataflow does not: the summary is what Dataflow says."""
    flags = [f"--input={inputs.path('jobs/in/criteo.csv')}", f"--output={inputs.path('jobs/image/pred.csv')}"]
    flags += [f"--model={inputs.path('jobs/criteo')}", "--sdk_container_image=example.com/sluice:1"]
    flags += [f"--summary_file={tmp_path}/summary.json"]
    service.counters = {"rows_read": 700, "rows_predicted": 690, "rows_failed": 10}
    try:
        assert main(["batch", *flags, *dataflow_flags]) == 0
    finally:
        service.counters = {}
    job = service.jobs[-1]
    assert "workflow.tar.gz" not in job.packages
    (image,) = job.worker_pool["sdkHarnessContainerImages"]
    assert image["containerImage"] == job.worker_pool["workerHarnessContainerImage"] == "example.com/sluice:1"
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["rows_in"], summary["predictions"], summary["failures"]) == (700, 690, 10)


def test_a_launcher_loads_no_kernels(launched: Launched) -> None:
    """With the model on GCS, and for CSV as for tf.Examples."""
    assert launched.codes == [0] * len(CASES)
    assert not launched.kernels


@pytest.mark.parametrize("name", list(CASES))
def test_a_worker_with_what_is_staged_writes_what_a_local_job_writes(
    name: str, errors: dict[str, str], places: Places
) -> None:
    assert errors[name] == ""
    case = CASES[name]
    assert main(["batch", *case.flags(places, LOCALLY), "--progress=none"]) == 0
    found = case.read(places, REMOTELY)
    assert found
    assert found == case.read(places, LOCALLY)


def test_a_streaming_job_reads_with_dataflows_own_source(streaming_job: Job) -> None:
    assert streaming_job.streaming
    assert streaming_job.name.startswith("sluice-streaming-criteo-")
    assert streaming_job.labels == {"sluice-model": "criteo", "sluice-model-version": "newest"}
    assert {"enable_streaming_engine", "use_runner_v2"} <= set(streaming_job.environment["experiments"])
    transforms = graph_of(streaming_job).components.transforms.values()
    (read,) = [each for each in transforms if each.spec.urn == "beam:transform:pubsub_read:v1"]
    payload = beam_runner_api_pb2.PubSubReadPayload.FromString(read.spec.payload)
    assert payload.subscription == "projects/my-project/subscriptions/messages"
    assert (payload.id_attribute, payload.with_attributes) == ("id", True)
    assert not any("Pull" in each.unique_name for each in transforms), "our local source"


def test_a_worker_with_what_is_staged_runs_all_behind_the_source(
    errors: dict[str, str], ends: Ends, criteo: ZooSample, inputs: Gcs
) -> None:
    assert errors["streaming"] == ""
    found = {row["id"]: row["score"] for row in (json.loads(each.data) for each in ends.predictions(50))}
    expected = dict(zip(criteo.batch()["id"].to_pylist()[:50], criteo.expected()["score"][:50], strict=True))
    assert found == pytest.approx(expected, rel=1e-6)
    (failed,) = names(inputs.path("jobs/streaming/*"))
    (failure,) = [json.loads(line) for line in read_file(failed).splitlines()]
    assert (failure["stage"], failure["payload"]) == ("decode", "bm8gSlNPTg==")


def test_a_running_job_is_updated(
    service: DataflowService, dataflow_flags: list[str], streaming_job: Job, ends: Ends, inputs: Gcs
) -> None:
    flags = [
        "--input_subscription=projects/my-project/subscriptions/messages",
        f"--output_topic={ends.output_topic}",
        f"--failures={inputs.path('jobs/streaming/failed')}",
        f"--model={inputs.path('jobs/criteo')}",
    ]
    assert main(["streaming", *flags, *dataflow_flags, f"--job_name={streaming_job.name}", "--update"]) == 0
    assert service.jobs[-1].request["replaceJobId"] == streaming_job.id
    assert (streaming_job.state, service.jobs[-1].state) == ("JOB_STATE_UPDATED", "JOB_STATE_RUNNING")


def test_every_module_can_be_imported_there(errors: dict[str, str]) -> None:
    assert errors["modules"] == ""


def test_nothing_else_can_be_imported_there(worker_python: Path) -> None:
    """What the tests need is installed here, and not declared for workers."""
    script = (
        "import importlib.util as u; print([n for n in ('pytest', 'hypothesis', 'tf_keras', 'pip') if u.find_spec(n)])"
    )
    done = subprocess.run([worker_python, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_missing_dependency_is_found(sdist: Path, batch_jobs: dict[str, Job], tmp_path: Path) -> None:
    """tfx-bsl brings others, and is needed where rows are tf.Examples."""
    with tempfile.TemporaryDirectory() as directory:
        python = make_venv(Path(directory), without(sdist, "tfx-bsl", tmp_path / "workflow.tar.gz"))
        found = run_worker(python, {"tfrecord": batch_jobs["tfrecord"].pipeline_url}, tmp_path)
    for name in ("tfrecord", "modules"):
        assert "No module named 'tfx_bsl'" in found[name]


def test_an_installed_package_is_staged_as_the_checkout_is(worker_python: Path, sdist: Path, tmp_path: Path) -> None:
    """What is installed in the worker's environment makes an sdist again, with the same files and requirements."""
    (site,) = worker_python.parent.parent.glob("lib/python3*/site-packages")
    setup_file = find_setup_file(site, [str(site)])
    options = PipelineOptions([f"--setup_file={setup_file}"])
    staged = Stager.create_job_resources(options, str(tmp_path), log_submission_env_dependencies=False)
    ((path, name, _),) = Stager.extract_staging_tuple_iter(staged)
    assert name == "workflow.tar.gz"
    assert files_in(Path(path)) == files_in(sdist)
    assert {Requirement(each) for each in declared(Path(path))} == {Requirement(each) for each in declared(sdist)}


def files_in(sdist: Path) -> set[str]:
    """The files that are installed."""
    with tarfile.open(sdist) as archive:
        files = [member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()]
    return {name for name in files if name.startswith(("models/", "transforms/", "pipelines/"))}


def test_what_the_service_refuses_is_said(
    service: DataflowService, dataflow_flags: list[str], inputs: Gcs, capsys: pytest.CaptureFixture[str]
) -> None:
    service.refusal = (403, "Dataflow API has not been used in project my-project before or it is disabled")
    flags = [f"--input={inputs.path('jobs/in/criteo.csv')}", f"--output={inputs.path('jobs/refused/pred.csv')}"]
    flags += [f"--model={inputs.path('jobs/criteo')}", "--sdk_container_image=example.com/sluice:1"]
    assert main(["batch", *flags, *dataflow_flags]) == 1
    assert "Dataflow API has not been used in project my-project" in capsys.readouterr().err
