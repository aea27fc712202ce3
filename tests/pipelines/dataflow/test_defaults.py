"""What a job on Dataflow gets where the user does not say otherwise."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
)
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.cache import ModelRecipe
from sluice.models.errors import UsageError
from sluice.models.interface import ModelOptions
from sluice.models.uri import ModelSpec, parse_model_uri
from sluice.pipelines.dataflow.defaults import check_settings, job_name, label_value, model_name, set_defaults
from sluice.pipelines.dataflow.runner import beam_options, make_pipeline
from sluice.pipelines.dataflow.sdist import find_setup_file
from sluice.pipelines.options.batch import BatchOptions
from tests.support.dataflow.service import dataflow_service

NEEDED = {"project": "my-project", "region": "us-central1", "temp_location": "gs://bucket/tmp"}
IN_WORKER, SERVED = "gs://bucket/models/criteo", "grpc://host:8500/criteo/versions/3"
ON_VERTEX = "vertex://projects/p/locations/l/endpoints/42"


def options_of(*flags: str, **needed: str) -> PipelineOptions:
    """Beam's options of these flags, with those that a job needs unless they are given as ""."""
    given = {name: value for name, value in (NEEDED | needed).items() if value}
    return beam_options(["--runner=DataflowRunner", *(f"--{name}={value}" for name, value in given.items()), *flags])


def job_of(model: str, **others: Any) -> BatchOptions:
    return BatchOptions(**{"model": model, "input": "gs://bucket/in.csv", "output": "gs://bucket/out.csv"} | others)


def completed(model: str, *flags: str, version: int | None = 1, poll_secs: float = 0.0) -> PipelineOptions:
    options = options_of(*flags)
    check_settings(options)
    recipe = ModelRecipe(parse_model_uri(model), ModelOptions(poll_secs=poll_secs))
    set_defaults(options, job_of(model), recipe, version)
    return options


def threads_and_experiments(options: PipelineOptions) -> tuple[int | None, list[str]]:
    debug = options.view_as(DebugOptions)
    return debug.number_of_worker_harness_threads, debug.experiments or []


def labels_of(options: PipelineOptions) -> list[str]:
    return options.view_as(GoogleCloudOptions).labels


@pytest.mark.parametrize(
    ("flags", "needed", "text"),
    [
        ([], {"project": ""}, "--project is missing: give the ID"),
        ([], {"temp_location": ""}, "--temp_location is missing: give gs://BUCKET/DIRECTORY"),
        ([], {"temp_location": "here/tmp"}, "--temp_location here/tmp: Dataflow keeps its files on GCS"),
        (["--staging_location=/tmp/s"], {}, "--staging_location /tmp/s: Dataflow keeps its files on GCS"),
        (["--update"], {}, "--update replaces a running job of the same name: give --job_name"),
        (
            ["--resource_hint=min_ram=8GB", "--dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1"],
            {},
            "--resource_hints and --dataflow_service_options worker_accelerator=... exclude each other",
        ),
    ],
)
def test_what_makes_no_job_is_refused(flags: list[str], needed: dict[str, str], text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(text)):
        check_settings(options_of(*flags, **needed))


def test_a_region_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no gcloud, whose configuration may name one
    monkeypatch.delenv("CLOUDSDK_COMPUTE_REGION", raising=False)
    with pytest.raises(UsageError, match="--region is missing"):
        check_settings(options_of(region=""))
    monkeypatch.setenv("CLOUDSDK_COMPUTE_REGION", "europe-west4")
    options = options_of(region="")
    check_settings(options)
    assert options.view_as(GoogleCloudOptions).region == "europe-west4"


def test_a_staging_location_does_for_both() -> None:
    options = options_of("--staging_location=gs://bucket/staging", temp_location="")
    check_settings(options)
    set_defaults(options, job_of(IN_WORKER), ModelRecipe(parse_model_uri(IN_WORKER)), 1)
    assert options.view_as(GoogleCloudOptions).temp_location == "gs://bucket/staging"


def test_only_a_job_that_runs_is_updated() -> None:
    """Beam itself would look for one that does not for ever."""
    with dataflow_service() as service:
        flags = [f"--dataflow_endpoint={service.url}", "--no_auth", "--update"]
        service.answer("POST", "/v1b3/projects/my-project/locations/us-central1/jobs", {"name": "scores", "type": 2})
        check_settings(options_of("--job_name=scores", *flags))
        with pytest.raises(UsageError, match="--update: no job named other runs in us-central1 of my-project"):
            check_settings(options_of("--job_name=other", *flags))
        service.jobs[0].state = "JOB_STATE_DRAINED"
        with pytest.raises(UsageError, match="no job named scores runs"):
            check_settings(options_of("--job_name=scores", *flags))


@pytest.mark.parametrize("flags", [[], ["--runner=DataflowRunner"]])
def test_what_a_job_tells_of_itself_is_not_the_users_to_give(flags: list[str]) -> None:
    with pytest.raises(UsageError, match="--sluice_options is set by Sluice itself; leave it out"):
        check_settings(beam_options([*flags, "--sluice_options={}"]))


def test_other_runners_are_left_alone() -> None:
    options = beam_options([])
    before = options.get_all_options(drop_default=True)
    check_settings(options)
    set_defaults(options, job_of(IN_WORKER), ModelRecipe(parse_model_uri(IN_WORKER)), 1)
    assert options.get_all_options(drop_default=True) == before


def test_a_model_in_the_worker_gets_one_process_with_threads() -> None:
    assert threads_and_experiments(completed(IN_WORKER)) == (12, ["no_use_multiple_sdk_containers"])


def test_a_served_model_gets_dataflows_processes_with_more_threads() -> None:
    assert threads_and_experiments(completed(SERVED)) == (32, [])
    assert threads_and_experiments(completed(ON_VERTEX)) == (32, [])


@pytest.mark.parametrize("model", [IN_WORKER, SERVED])
def test_threads_and_processes_are_the_users_if_they_are_given(model: str) -> None:
    flags = ["--experiments=use_multiple_sdk_containers", "--number_of_worker_harness_threads=5"]
    assert threads_and_experiments(completed(model, *flags)) == (5, ["use_multiple_sdk_containers"])


def test_labels_tell_model_and_version() -> None:
    assert labels_of(completed(IN_WORKER)) == ["sluice-model=criteo", "sluice-model-version=1"]
    assert labels_of(completed(SERVED, version=None)) == ["sluice-model=criteo"]
    assert labels_of(completed(ON_VERTEX, version=None)) == ["sluice-model=42"]
    assert labels_of(completed(IN_WORKER, poll_secs=30.0))[1] == "sluice-model-version=newest"


def test_labels_of_the_user_stay() -> None:
    given = ["--labels=team=ads", "--labels={'sluice-model': 'mine'}"]
    expected = ["team=ads", "{'sluice-model': 'mine'}", "sluice-model-version=1"]
    assert labels_of(completed(IN_WORKER, *given)) == expected
    with pytest.raises(UsageError, match=r"--labels \{team: ads\}: expected KEY=VALUE"):
        completed(IN_WORKER, "--labels={team: ads}")


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("gs://bucket/models/criteo", "criteo"),
        ("gs://bucket/models/criteo/17/", "criteo"),
        ("gs://bucket", "bucket"),
        ("/models/Wide & Deep", "Wide & Deep"),
        ("http://host/v1/models/half_plus_two/labels/stable", "half_plus_two"),
    ],
)
def test_the_name_of_a_model(uri: str, name: str) -> None:
    assert model_name(parse_model_uri(uri)) == name


@given(st.text())
def test_labels_and_job_names_are_such_as_dataflow_takes(name: str) -> None:
    assert re.fullmatch("[a-z0-9_-]{0,63}", label_value(name))
    for streaming in (False, True):
        found = job_name(ModelSpec(f"/models/{name}"), streaming)
        assert re.fullmatch("[a-z]([-a-z0-9]{0,61}[a-z0-9])?", found)
        assert found.startswith("sluice-streaming-" if streaming else "sluice-batch-")


def test_every_job_has_a_name_of_its_own() -> None:
    model = parse_model_uri(IN_WORKER)
    assert len({job_name(model, False) for _ in range(20)}) == 20


def test_a_gpu_gets_its_driver_once() -> None:
    for option in ("type:nvidia-l4;count:1", "type:nvidia-l4;count:1;install-nvidia-driver:5xx"):
        options = completed(IN_WORKER, f"--dataflow_service_options=worker_accelerator={option},enable_prime")
        accelerator, other = options.view_as(GoogleCloudOptions).dataflow_service_options
        assert accelerator.startswith("worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver")
        assert (accelerator.count("install-nvidia-driver"), other) == (1, "enable_prime")


def test_hints_of_the_user_are_in_the_graph() -> None:
    pipeline = make_pipeline(completed(IN_WORKER, "--resource_hint=min_ram=12GB", "--dry_run=True"))
    _ = pipeline | beam.Create([1])
    graph = pipeline.to_runner_api().components
    used = {each.environment_id for each in graph.transforms.values() if each.environment_id}
    hints = [dict(graph.environments[name].resource_hints) for name in used]
    assert hints == [{"beam:resources:min_ram_bytes:v1": b"12000000000"}]


def test_an_image_needs_no_sdist() -> None:
    assert completed(IN_WORKER).view_as(SetupOptions).setup_file == find_setup_file()
    assert completed(IN_WORKER, "--sdk_container_image=i").view_as(SetupOptions).setup_file is None
    assert completed(IN_WORKER, "--setup_file=mine/setup.py").view_as(SetupOptions).setup_file == "mine/setup.py"


def test_without_a_source_the_user_is_told_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "setup.py").write_text('setup(name="another")')
    with pytest.raises(UsageError, match=r"give --setup_file PATH/setup\.py or --sdk_container_image IMAGE"):
        find_setup_file(tmp_path, (str(tmp_path),))


def test_the_job_name_of_the_user_stays() -> None:
    options = completed(IN_WORKER, "--job_name=mine", "--streaming")
    assert options.view_as(GoogleCloudOptions).job_name == "mine"
    assert options.view_as(StandardOptions).streaming
