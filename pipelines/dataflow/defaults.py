"""Defaults of a job on Dataflow, set in Beam's own options before the graph is built. Options of the user are kept.

Runner v2 and, for streaming, Streaming Engine are not set here: for Python, Beam offers nothing else.
"""

import argparse
import ast
import dataclasses
import datetime
import json
import logging
import re
import uuid

from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner
from apache_beam.runners.dataflow.internal.apiclient import DataflowApplicationClient, dataflow
from google.api_core.exceptions import GoogleAPIError

from sluice.models.cache import ModelRecipe
from sluice.models.errors import UsageError
from sluice.models.uri import ModelSpec
from sluice.pipelines.dataflow.login import check_login
from sluice.pipelines.dataflow.runner import is_dataflow
from sluice.pipelines.dataflow.sdist import find_setup_file
from sluice.pipelines.dataflow.template import to_text
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.streaming import StreamingOptions

_LOG = logging.getLogger(__name__)

# By default Dataflow starts one SDK process per vCPU, each with a copy of the model.
_ONE_PROCESS, _MORE_PROCESSES = "no_use_multiple_sdk_containers", "use_multiple_sdk_containers"
# Each thread works on a bundle: while the model scores rows of some, the others decode and encode.
_THREADS = 12
# With an endpoint, bundles mostly wait for responses; so many calls may run at once (models.batching.options).
_ENDPOINT_THREADS = 32

_ACCELERATOR, _DRIVER = "worker_accelerator=", "install-nvidia-driver"
# https://cloud.google.com/dataflow/docs/guides/pipeline-options#basic_options: labels and job names
_LABEL_LENGTH = _NAME_LENGTH = 63


class JobOptions(PipelineOptions):
    """The options of Sluice in one option of Beam: Dataflow's console shows only Beam's options."""

    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        # No type that parses: on workers, Beam makes flags of a job's options and parses them again.
        parser.add_argument("--sluice_options", help="Set by Sluice: the flags of the launch, as a JSON object.")


def parameters_of(job: BatchOptions | StreamingOptions) -> dict[str, str]:
    """Returns the flags or template parameters that launch the same job again.

    Leaves out defaults; and secrets, because everybody who may look at a job sees these.
    """
    given = {field: getattr(job, field.name) for field in dataclasses.fields(job) if not field.metadata["secret"]}
    return {field.name: to_text(value) for field, value in given.items() if value != field.default}


def check_settings(options: PipelineOptions) -> None:
    """Checks what Beam would check late, or not at all. For a runner other than Dataflow it checks one flag.

    Raises:
      UsageError: a setting is missing or invalid.
    """
    if options.view_as(JobOptions).sluice_options is not None:
        raise UsageError("--sluice_options is set by Sluice itself; leave it out, and give the flags themselves")
    if not is_dataflow(options):
        return
    google = options.view_as(GoogleCloudOptions)
    google.region = google.region or _default_region()
    if not google.project:
        raise UsageError("--project is missing: give the ID of the Google Cloud project that the job runs in")
    if not google.region:
        raise UsageError(
            "--region is missing: give the region of the workers, such as us-central1, or set CLOUDSDK_COMPUTE_REGION"
        )
    for name in ("temp_location", "staging_location"):
        path = getattr(google, name)
        if path and not path.startswith("gs://"):
            raise UsageError(f"--{name} {path}: Dataflow keeps its files on GCS; give gs://BUCKET/DIRECTORY")
    if not google.temp_location and not google.staging_location:
        raise UsageError("--temp_location is missing: give gs://BUCKET/DIRECTORY, where Dataflow keeps its files")
    if google.update and not google.job_name:
        raise UsageError("--update replaces a running job of the same name: give --job_name NAME")
    _check_accelerator(options)
    if google.update:
        check_login(options)
        _check_running(options)


def _default_region() -> str | None:
    """Returns the region that the environment or gcloud's configuration names."""
    region: str | None = DataflowRunner().get_default_gcp_region()
    return region


def _check_running(options: PipelineOptions) -> None:
    """Refuses to replace a job that does not run: Beam 2.77 would look for it for ever, 200 times a second."""
    google = options.view_as(GoogleCloudOptions)
    request = dataflow.ListJobsRequest(project_id=google.project, location=google.region)
    active = (dataflow.JobState.JOB_STATE_RUNNING, dataflow.JobState.JOB_STATE_DRAINING)
    try:
        jobs = DataflowApplicationClient(options)._jobs_client.list_jobs(request)
        names = {job.name for job in jobs if job.current_state in active}
    except GoogleAPIError as error:
        raise UsageError(
            f"--update: the jobs of {google.project} in {google.region} cannot be listed: {error}"
        ) from error
    if google.job_name not in names:
        raise UsageError(
            f"--update: no job named {google.job_name} runs in {google.region} of {google.project}; name one that "
            "does, or leave --update out to start one"
        )


def _check_accelerator(options: PipelineOptions) -> None:
    """Checks the limitations in https://cloud.google.com/dataflow/docs/guides/right-fitting."""
    hints = options.get_all_options().get("resource_hints")
    services = options.view_as(GoogleCloudOptions).dataflow_service_options or []
    if hints and any(each.startswith(_ACCELERATOR) for each in services):
        raise UsageError(
            f"--resource_hints and --dataflow_service_options {_ACCELERATOR}... exclude each other on Dataflow; give "
            f"the GPU as a resource hint, accelerator=type:...;count:...;{_DRIVER}, or leave the hints out"
        )


def set_defaults(
    options: PipelineOptions, job: BatchOptions | StreamingOptions, recipe: ModelRecipe, version: int | None
) -> None:
    """Completes the options of a job on Dataflow that passed `check_settings`; does nothing on other runners.

    Args:
      job: its options of Sluice, which are added to Beam's.
      version: of the model, as found at launch.

    Raises:
      UsageError: there is no source of Sluice to stage to workers.
    """
    if not is_dataflow(options):
        return
    model, follows = recipe.spec, recipe.model.poll_secs > 0
    google = options.view_as(GoogleCloudOptions)
    google.temp_location = google.temp_location or google.staging_location
    streaming = bool(options.view_as(StandardOptions).streaming)
    google.job_name = google.job_name or job_name(model, streaming)
    google.labels = [*(google.labels or []), *_missing_labels(google.labels, model_labels(model, version, follows))]
    _set_processes(options.view_as(DebugOptions), served=not model.is_here)
    _set_driver(google)
    _set_package(options)
    options.view_as(JobOptions).sluice_options = json.dumps(parameters_of(job), ensure_ascii=False)


def job_name(model: ModelSpec, streaming: bool) -> str:
    """Returns a name that no other job has: sluice-batch-MODEL-TIME-ID."""
    end = f"{datetime.datetime.now(datetime.UTC):%Y%m%d%H%M%S}-{uuid.uuid4().hex[:4]}"
    start = f"sluice-{'streaming' if streaming else 'batch'}-"
    name = re.sub("[^a-z0-9]+", "-", model_name(model).lower())[: _NAME_LENGTH - len(start) - len(end) - 1].strip("-")
    return f"{start}{name}-{end}" if name else start + end


def model_labels(model: ModelSpec, version: int | None, follows: bool) -> dict[str, str]:
    """Returns the labels to find and bill a job by, in the letters that Dataflow accepts."""
    labels = {"sluice-model": model_name(model)}
    if follows:
        labels["sluice-model-version"] = "newest"
    elif version is not None:
        labels["sluice-model-version"] = str(version)
    return {key: label_value(value) for key, value in labels.items()}


def label_value(text: str) -> str:
    """Returns a text cut to the length of labels, with dashes for characters that labels cannot have."""
    return re.sub("[^a-z0-9_-]", "-", text.lower())[:_LABEL_LENGTH]


def model_name(model: ModelSpec) -> str:
    """Returns the model's name on its server, or the name of its directory without a version."""
    if model.managed is not None:
        return model.managed.model
    if model.endpoint is not None:
        return model.endpoint.name.rpartition("/")[2] if model.endpoint.protocol == "vertex" else model.endpoint.name
    parts = [part for part in model.uri.split("://")[-1].split("/") if part]
    while len(parts) > 1 and parts[-1].isdecimal():
        parts.pop()
    return parts[-1] if parts else ""


def _missing_labels(given: list[str] | None, labels: dict[str, str]) -> list[str]:
    """Returns the labels that the user has not given, as KEY=VALUE.

    Args:
      given: each is KEY=VALUE, or a dict of several labels.

    Raises:
      UsageError: one is neither.
    """
    keys: set[str] = set()
    for text in given or []:
        try:
            keys |= set(ast.literal_eval(text)) if "{" in text else {text.partition("=")[0]}
        except (ValueError, SyntaxError) as error:
            raise UsageError(f"--labels {text}: expected KEY=VALUE, or {{'KEY': 'VALUE', ...}}") from error
    return [f"{key}={value}" for key, value in labels.items() if key not in keys]


def _set_processes(debug: DebugOptions, served: bool) -> None:
    """Sets one SDK process per machine if it loads the model: one copy, and one scheduler for all bundles."""
    if served:
        debug.number_of_worker_harness_threads = debug.number_of_worker_harness_threads or _ENDPOINT_THREADS
        return
    if debug.lookup_experiment(_MORE_PROCESSES):
        _LOG.info("Each vCPU has an SDK process with a copy of the model, because of --experiments=%s", _MORE_PROCESSES)
        return
    debug.add_experiment(_ONE_PROCESS)
    debug.number_of_worker_harness_threads = debug.number_of_worker_harness_threads or _THREADS


def _set_driver(google: GoogleCloudOptions) -> None:
    """Requests the driver of a GPU. Without it, TensorFlow would run on the CPU and report nothing."""
    google.dataflow_service_options = [
        f"{each};{_DRIVER}" if each.startswith(_ACCELERATOR) and _DRIVER not in each else each
        for each in google.dataflow_service_options or []
    ]


def _set_package(options: PipelineOptions) -> None:
    """Has Sluice staged to workers, unless they run an image, which contains it."""
    setup = options.view_as(SetupOptions)
    setup.save_main_session = bool(setup.save_main_session)  # our DoFns are all in modules
    if not options.view_as(WorkerOptions).sdk_container_image and not setup.setup_file:
        setup.setup_file = find_setup_file()
