"""Jobs that run_dataflow.sh submits to a Dataflow service in full, and their staged graphs, run where only what was
staged is installed."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.stager import Stager
from packaging.requirements import Requirement

from sluice.pipelines.cli import main
from sluice.pipelines.dataflow.sdist import find_setup_file
from tests.pipelines.test_batch_gcs import names, upload
from tests.support.bigquery.cases import load, make_births
from tests.support.dataflow.cases import CASES, LOCALLY, REMOTELY, Places, read_file
from tests.support.dataflow.hermetic import Worker, declared, make_venv, undeclared
from tests.support.dataflow.service import DataflowService, Job, dataflow_service
from tests.support.paths import ROOT
from tests.support.pubsub.streams import Ends, make_ends
from tests.support.saved_models.zoo import ZooSample
from tests.support.servers import BigQuery, Gcs, Pubsub
from tests.support.vertex.service import vertex_service

IMAGE = "example.com/sluice:1"
# What run_dataflow.sh runs instead of `sluice`: it does so for each list of arguments, the script's own or those of a
# file, and says after each whether TensorFlow is loaded.
SLUICE = f"""#!{sys.executable}
import json, sys
from apache_beam.internal.gcp.auth import _Credentials
from sluice.pipelines.cli import main
_Credentials._credentials_init = True  # there are none, and Beam need not look for them for half a minute
given = sys.argv[1:]
for arguments in json.load(open(given[1])) if given[0] == "--each" else [given]:
    if code := main(arguments):
        sys.exit(code)
    print("kernels:", "tensorflow.python._pywrap_tensorflow_internal" in sys.modules)
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
def places(inputs: Gcs, bigquery: BigQuery, criteo: ZooSample) -> Iterator[Places]:
    with vertex_service({"criteo": criteo.model}) as vertex:
        yield Places(inputs, bigquery, load(bigquery, make_births(300)), bigquery.make_dataset(), vertex)


@pytest.fixture(scope="module")
def service() -> Iterator[DataflowService]:
    with dataflow_service() as running:
        yield running


@pytest.fixture(scope="module")
def endpoint_flags(service: DataflowService) -> list[str]:
    """What sends a job to the service of these tests."""
    return [f"--dataflow_endpoint={service.url}", "--no_auth"]


@pytest.fixture(scope="module")
def dataflow_flags(endpoint_flags: list[str], inputs: Gcs) -> list[str]:
    """Of jobs that are submitted in this process, which has everything loaded."""
    location = f"--temp_location={inputs.path('jobs/tmp')}"
    return ["--runner=DataflowRunner", "--project=my-project", "--region=us-central1", location, *endpoint_flags]


@pytest.fixture(scope="module")
def ends(pubsub: Pubsub) -> Ends:
    return make_ends(pubsub)


@pytest.fixture(scope="module")
def streaming_flags(inputs: Gcs, ends: Ends) -> list[str]:
    """Messages to a topic, and failures to files."""
    return [
        f"--input_subscription={ends.subscription}",
        f"--output_topic={ends.output_topic}",
        f"--failures={inputs.path('jobs/streaming/failed')}",
        f"--model={inputs.path('jobs/criteo')}",
    ]


@dataclasses.dataclass(frozen=True)
class Launched:
    """A job that run_dataflow.sh has submitted, or would have with the same arguments.

    Attributes:
      flags: of Sluice's, that the script was given.
      printed: what the program printed at the end.
    """

    flags: list[str]
    printed: str
    job: Job


@pytest.fixture(scope="module")
def launched(
    service: DataflowService,
    endpoint_flags: list[str],
    places: Places,
    streaming_flags: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Launched]:
    """Every case, and a streaming job, by name.

    The script itself runs `csv`, which stages an sdist. One process launches all others, with the arguments that the
    script shows, since each start takes seconds; they run an image, since to make an sdist takes seconds too.
    """
    program = tmp_path_factory.mktemp("program") / "sluice"
    program.write_text(SLUICE)
    program.chmod(0o755)
    flags = {name: case.flags(places, REMOTELY) for name, case in CASES.items()}
    flags["streaming"] = [*streaming_flags, "--id_label=id"]
    env = os.environ | {"SLUICE": str(program), "REGION": "us-central1", "BUCKET": places.gcs.bucket}

    def run(command: list[str], **settings: str) -> str:
        done = subprocess.run(command, env=env | settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def script(name: str, *more: str) -> str:
        more += ("--resource_hint=min_ram=8GB",) if name == "csv" else (f"--sdk_container_image={IMAGE}",)
        kind = "streaming" if name == "streaming" else "batch"
        command = [str(ROOT / "run_dataflow.sh"), kind, *flags[name], *more, *endpoint_flags]
        return run(command, PROJECT=f"my-{name}-project")

    others = [name for name in flags if name != "csv"]
    shown = program.with_name("each.json")
    shown.write_text(json.dumps([shlex.split(script(name, "--dry_run").replace("\\\n", ""))[1:] for name in others]))
    with ThreadPoolExecutor(max_workers=2) as pool:
        parts = [pool.submit(script, "csv"), pool.submit(run, [str(program), "--each", str(shown)])]
    printed = dict(zip(("csv", *others), "".join(part.result() for part in parts).splitlines(), strict=True))
    jobs = {job.project: job for job in service.jobs}
    return {name: Launched(flags[name], printed[name], jobs[f"my-{name}-project"]) for name in flags}


@pytest.fixture(scope="module")
def batch_jobs(launched: dict[str, Launched]) -> dict[str, Job]:
    """The job of every case."""
    return {name: launched[name].job for name in CASES}


@pytest.fixture(scope="module")
def streaming_job(launched: dict[str, Launched]) -> Job:
    return launched["streaming"].job


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
def worker(worker_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with Worker(worker_python, tmp_path_factory.mktemp("work")) as running:
        yield running


@pytest.fixture(scope="module")
def errors(worker: Worker, batch_jobs: dict[str, Job], streaming_job: Job, messages: list[bytes]) -> dict[str, str]:
    """Why jobs failed that the worker has run."""
    graphs = {name: job.pipeline_url for name, job in batch_jobs.items()} | {"streaming": streaming_job.pipeline_url}
    return worker.run(graphs, messages)


def graph_of(job: Job) -> Any:
    return beam_runner_api_pb2.Pipeline.FromString(read_file(job.pipeline_url))


def test_a_batch_job_is_submitted_with_our_defaults(batch_jobs: dict[str, Job]) -> None:
    job = batch_jobs["csv"]
    assert (job.project, job.region, job.streaming) == ("my-csv-project", "us-central1", False)
    assert job.name.startswith("sluice-batch-criteo-")
    assert job.labels == {"sluice-model": "criteo", "sluice-model-version": "1"}
    experiments = job.environment["experiments"]
    assert {"use_runner_v2", "no_use_multiple_sdk_containers"} <= set(experiments)
    assert "use_multiple_sdk_containers" not in experiments
    assert job.worker_pool["numThreadsPerWorker"] == 12
    assert job.worker_pool["machineType"] == "n2-standard-4"
    assert job.worker_pool["autoscalingSettings"]["maxNumWorkers"] == 10
    assert "beam_python3" in job.worker_pool["workerHarnessContainerImage"], "Beam's own image"
    assert "workflow.tar.gz" in job.packages
    assert job.options["save_main_session"] is False
    graph = graph_of(job).components
    steps = [each for each in graph.transforms.values() if each.environment_id]
    assert {each.unique_name.split("/")[0] for each in steps} >= {"Read", "Predict"}
    hints = [graph.environments[each.environment_id].resource_hints for each in steps]
    assert all(each["beam:resources:min_ram_bytes:v1"] == b"8000000000" for each in hints)


@pytest.mark.parametrize("name", [*CASES, "streaming"])
def test_a_job_tells_the_flags_it_was_launched_with(name: str, launched: dict[str, Launched]) -> None:
    """In the options that workers get, and in those that the console shows."""
    run = launched[name]
    given = dict(flag.removeprefix("--").split("=", 1) for flag in run.flags)
    assert json.loads(run.job.options["sluice_options"]) == given
    (shown,) = [each for each in run.job.display_data if each["key"] == "sluice_options"]
    assert json.loads(shown["value"]) == given


def test_a_job_with_an_image_stages_no_sdist(
    service: DataflowService, dataflow_flags: list[str], inputs: Gcs, tmp_path: Path
) -> None:
    """Nor does it count what Dataflow does not: the summary is what Dataflow says."""
    flags = [f"--input={inputs.path('jobs/in/criteo.csv')}", f"--output={inputs.path('jobs/image/pred.csv')}"]
    flags += [f"--model={inputs.path('jobs/criteo')}", f"--sdk_container_image={IMAGE}"]
    flags += [f"--summary_file={tmp_path}/summary.json"]
    service.counters = {"rows_read": 700, "rows_predicted": 690, "rows_failed": 10}
    try:
        assert main(["batch", *flags, *dataflow_flags]) == 0
    finally:
        service.counters = {}
    job = service.jobs[-1]
    assert "workflow.tar.gz" not in job.packages
    (image,) = job.worker_pool["sdkHarnessContainerImages"]
    assert image["containerImage"] == job.worker_pool["workerHarnessContainerImage"] == IMAGE
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["rows_in"], summary["predictions"], summary["failures"]) == (700, 690, 10)


@pytest.mark.parametrize("name", [*CASES, "streaming"])
def test_a_launcher_loads_no_kernels(name: str, launched: dict[str, Launched]) -> None:
    """With the model on GCS: for CSV, tf.Examples, BigQuery and Pub/Sub."""
    assert launched[name].printed == "kernels: False"


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


def test_a_managed_job_runs_on_workers_stage_by_stage(
    service: DataflowService,
    worker: Worker,
    dataflow_flags: list[str],
    places: Places,
    criteo: ZooSample,
    tmp_path: Path,
) -> None:
    errors: dict[str, str] = {}

    def run(job: Job) -> bool:
        errors[job.name] = worker.run({"graph": job.pipeline_url})["graph"]
        return not errors[job.name]

    path, summary = places.gcs.path, tmp_path / "summary.json"
    vertex = [f"--model={places.vertex.model_uri('criteo')}", f"--vertex_endpoint={places.vertex.url}"]
    flags = [*vertex, f"--input={path('jobs/in/criteo.csv')}", f"--output={path('jobs/managed/pred.jsonl')}"]
    flags += ["--job_name=managed", f"--summary_file={summary}", f"--sdk_container_image={IMAGE}"]
    service.on_create = run
    try:
        code = main(["batch", *flags, *dataflow_flags])
    finally:
        service.on_create = None
    assert errors == dict.fromkeys(["managed-prepare", "managed-find", "managed-join"], "")
    assert code == 0
    rows = [json.loads(line) for name in names(path("jobs/managed/*")) for line in read_file(name).splitlines()]
    found = {row["id"]: row["score"] for row in rows}
    expected = dict(zip(criteo.batch()["id"].to_pylist(), criteo.expected()["score"], strict=True))
    assert len(rows) == criteo.rows and found == pytest.approx(expected, rel=1e-6)
    assert names(path("jobs/tmp/sluice-managed/**")) == [], "its files under way are gone"


def test_a_streaming_job_reads_with_dataflows_own_source(streaming_job: Job, ends: Ends) -> None:
    assert streaming_job.streaming
    assert streaming_job.name.startswith("sluice-streaming-criteo-")
    assert streaming_job.labels == {"sluice-model": "criteo", "sluice-model-version": "newest"}
    assert {"enable_streaming_engine", "use_runner_v2"} <= set(streaming_job.environment["experiments"])
    transforms = graph_of(streaming_job).components.transforms.values()
    (read,) = [each for each in transforms if each.spec.urn == "beam:transform:pubsub_read:v1"]
    payload = beam_runner_api_pb2.PubSubReadPayload.FromString(read.spec.payload)
    assert payload.subscription == ends.subscription
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
    assert (failure["stage"], failure["payload_text"]) == ("decode", "no JSON")


def test_a_running_job_is_updated(
    service: DataflowService, dataflow_flags: list[str], streaming_job: Job, streaming_flags: list[str]
) -> None:
    flags = [f"--project={streaming_job.project}", f"--job_name={streaming_job.name}", "--update"]
    assert main(["streaming", *streaming_flags, *dataflow_flags, *flags]) == 0
    assert service.jobs[-1].request["replaceJobId"] == streaming_job.id
    assert (streaming_job.state, service.jobs[-1].state) == ("JOB_STATE_UPDATED", "JOB_STATE_RUNNING")


def test_every_module_can_be_imported_there(worker: Worker) -> None:
    assert worker.import_all() == ""


def test_nothing_else_can_be_imported_there(worker_python: Path) -> None:
    """What the tests need is installed here, and not declared for workers."""
    script = (
        "import importlib.util as u; print([n for n in ('pytest', 'hypothesis', 'tf_keras', 'pip') if u.find_spec(n)])"
    )
    done = subprocess.run([worker_python, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_missing_dependency_is_found(
    sdist: Path, worker_python: Path, batch_jobs: dict[str, Job], tmp_path: Path
) -> None:
    """tfx-bsl brings others, and is needed where rows are tf.Examples."""
    with undeclared("tfx-bsl", sdist, worker_python), Worker(worker_python, tmp_path) as lacking:
        found = lacking.run({"tfrecord": batch_jobs["tfrecord"].pipeline_url})
        found["modules"] = lacking.import_all()
    for name in ("tfrecord", "modules"):
        assert "No module named 'tfx_bsl'" in found[name]


def test_an_installed_package_is_staged_as_the_checkout_is(worker_python: Path, sdist: Path, tmp_path: Path) -> None:
    """What is installed in the worker's environment makes an sdist again, with the same files and requirements."""
    (site,) = worker_python.parent.parent.glob("lib/python3*/site-packages")
    setup_file = find_setup_file(site, (str(site),))
    options = PipelineOptions([f"--setup_file={setup_file}"])
    staged = Stager.create_job_resources(options, str(tmp_path), log_submission_env_dependencies=False)
    ((path, name, _),) = Stager.extract_staging_tuple_iter(staged)
    assert name == "workflow.tar.gz"
    assert files_in(Path(path)) == files_in(sdist)
    assert {Requirement(each) for each in declared(Path(path))} == {Requirement(each) for each in declared(sdist)}


def test_workers_install_the_versions_that_the_launcher_has(sdist: Path) -> None:
    """Of all that they need: the next release of a library reaches no job that was not launched with it."""
    requirements = [Requirement(text) for text in declared(sdist)]
    installed = {each.name: importlib.metadata.version(each.name) for each in requirements}
    assert {each.name: str(each.specifier) for each in requirements} == {
        name: f"=={version}" for name, version in installed.items()
    }
    assert {"apache-beam", "tensorflow", "numpy", "keras"} <= installed.keys(), "keras is TensorFlow's requirement"


def files_in(sdist: Path) -> set[str]:
    """The files that are installed."""
    with tarfile.open(sdist) as archive:
        files = [member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()]
    return {name for name in files if name.startswith("sluice/")}


def test_what_the_service_refuses_is_said(
    service: DataflowService, dataflow_flags: list[str], inputs: Gcs, capsys: pytest.CaptureFixture[str]
) -> None:
    service.refusal = (403, "Dataflow API has not been used in project my-project before or it is disabled")
    flags = [f"--input={inputs.path('jobs/in/criteo.csv')}", f"--output={inputs.path('jobs/refused/pred.csv')}"]
    flags += [f"--model={inputs.path('jobs/criteo')}", f"--sdk_container_image={IMAGE}"]
    assert main(["batch", *flags, *dataflow_flags]) == 1
    assert "Dataflow API has not been used in project my-project" in capsys.readouterr().err


@pytest.mark.parametrize(
    "refusal", [None, (409, "There is already an active job named clicks. Set another --job_name")]
)
def test_the_second_launch_of_a_name_is_refused(
    service: DataflowService,
    streaming_flags: list[str],
    dataflow_flags: list[str],
    refusal: tuple[int, str] | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing that looks for the name before could tell: two launches may both find it free."""
    flags = [*streaming_flags, *dataflow_flags, f"--sdk_container_image={IMAGE}", "--job_name=clicks"]
    before = len(service.jobs)
    assert main(["streaming", *flags]) == 0
    service.refusal = refusal
    assert main(["streaming", *flags]) == 2
    (job,) = service.jobs[before:]
    job.state = "JOB_STATE_CANCELLED"  # the name is free again
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("sluice streaming: --job_name clicks: the job clicks in us-central1 of my-project runs ")
    assert "drain or cancel that one" in told
    assert (refusal[1] if refusal else job.id) in told


def test_a_batch_job_of_a_taken_name_is_refused(
    service: DataflowService, dataflow_flags: list[str], inputs: Gcs, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [f"--input={inputs.path('jobs/in/criteo.csv')}", f"--output={inputs.path('jobs/taken/pred.csv')}"]
    flags += [f"--model={inputs.path('jobs/criteo')}", f"--sdk_container_image={IMAGE}", "--job_name=taken"]
    assert main(["batch", *flags, *dataflow_flags]) == 0
    job = service.jobs[-1]
    job.state = "JOB_STATE_RUNNING"
    assert main(["batch", *flags, *dataflow_flags]) == 2
    job.state = "JOB_STATE_DONE"
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("sluice batch: --job_name taken: the job taken in us-central1 of my-project runs already")
    assert job.id in told
