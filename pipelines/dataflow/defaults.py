"""What a job gets on Dataflow where the user does not say otherwise; decided in Beam's own options, before the graph.

Runner v2 and, for streaming, Streaming Engine are not here: Beam knows nothing else for Python. An option that the user
gave stays.
"""

import ast
import datetime
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
from google.api_core.exceptions import GoogleAPIError

from sluice.models.cache import ModelRecipe
from sluice.models.errors import UsageError
from sluice.models.uri import ModelSpec
from sluice.pipelines.dataflow.job_options import check_not_given, set_job_options
from sluice.pipelines.dataflow.runner import is_dataflow
from sluice.pipelines.dataflow.sdist import find_setup_file
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.streaming import StreamingOptions

_LOG = logging.getLogger(__name__)

# Dataflow starts one SDK process per vCPU unless it is told not to: one copy of the model for each.
_ONE_PROCESS, _MORE_PROCESSES = "no_use_multiple_sdk_containers", "use_multiple_sdk_containers"
# Each thread works on a bundle. While the model is busy with the rows of some, the others decode and encode.
_THREADS = 12
# A bundle waits for its answers most of the time; this many calls may be under way (models.batching.options).
_ENDPOINT_THREADS = 32

_ACCELERATOR, _DRIVER = "worker_accelerator=", "install-nvidia-driver"
# https://cloud.google.com/dataflow/docs/guides/pipeline-options#basic_options: labels and job names
_LABEL_LENGTH = _NAME_LENGTH = 63


def check_settings(options: PipelineOptions) -> None:
    """Refuses at once what Beam would find out late, or not at all. Of a job that runs elsewhere it looks at one flag.

    Raises:
      UsageError: the settings do not make a job.
    """
    check_not_given(options)
    if not is_dataflow(options):
        return
    google = options.view_as(GoogleCloudOptions)
    google.region = google.region or _default_region()
    if not google.project:
        raise UsageError("--project is missing: the ID of the Google Cloud project that the job runs in")
    if not google.region:
        raise UsageError("--region is missing: where workers run, such as us-central1 (or set CLOUDSDK_COMPUTE_REGION)")
    for name in ("temp_location", "staging_location"):
        path = getattr(google, name)
        if path and not path.startswith("gs://"):
            raise UsageError(f"--{name} {path}: Dataflow keeps its files on GCS; give gs://BUCKET/DIRECTORY")
    if not google.temp_location and not google.staging_location:
        raise UsageError("--temp_location is missing: gs://BUCKET/DIRECTORY, where Dataflow keeps its files")
    if google.update and not google.job_name:
        raise UsageError("--update replaces a running job of the same name: give --job_name NAME")
    _check_accelerator(options)
    if google.update:
        _check_running(options)


def _default_region() -> str | None:
    """Returns what the environment or gcloud's configuration names."""
    from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner

    region: str | None = DataflowRunner().get_default_gcp_region()
    return region


def _check_running(options: PipelineOptions) -> None:
    """Refuses to replace a job that does not run: for that, Beam 2.77 would look for ever, 200 times a second."""
    from apache_beam.runners.dataflow.internal.apiclient import DataflowApplicationClient, dataflow

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
    """See "Support and limitations" in https://cloud.google.com/dataflow/docs/guides/right-fitting."""
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
    """Completes the options of a job that `check_settings` has found right. Elsewhere than on Dataflow, does nothing.

    Args:
      job: its options of Sluice's, which Beam's then tell.
      version: of the model, as it was found at launch.

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
    _set_processes(options.view_as(DebugOptions), served=model.endpoint is not None)
    _set_driver(google)
    _set_package(options)
    set_job_options(options, job)


def job_name(model: ModelSpec, streaming: bool) -> str:
    """Returns a name that no other job has: sluice-batch-MODEL-TIME-ID."""
    end = f"{datetime.datetime.now(datetime.UTC):%Y%m%d%H%M%S}-{uuid.uuid4().hex[:4]}"
    start = f"sluice-{'streaming' if streaming else 'batch'}-"
    name = re.sub("[^a-z0-9]+", "-", model_name(model).lower())[: _NAME_LENGTH - len(start) - len(end) - 1].strip("-")
    return f"{start}{name}-{end}" if name else start + end


def model_labels(model: ModelSpec, version: int | None, follows: bool) -> dict[str, str]:
    """Returns the labels that a job is found and billed by, in the letters that Dataflow takes."""
    labels = {"sluice-model": model_name(model)}
    if follows:
        labels["sluice-model-version"] = "newest"
    elif version is not None:
        labels["sluice-model-version"] = str(version)
    return {key: label_value(value) for key, value in labels.items()}


def label_value(text: str) -> str:
    """Returns a text with all that labels do not take replaced by dashes, cut to their length."""
    return re.sub("[^a-z0-9_-]", "-", text.lower())[:_LABEL_LENGTH]


def model_name(model: ModelSpec) -> str:
    """Returns what a server calls the model, or its directory, which need not be that of a version."""
    if model.endpoint is not None:
        return model.endpoint.name
    parts = [part for part in model.uri.split("://")[-1].split("/") if part]
    while len(parts) > 1 and parts[-1].isdecimal():
        parts.pop()
    return parts[-1] if parts else ""


def _missing_labels(given: list[str] | None, labels: dict[str, str]) -> list[str]:
    """Returns those labels, as KEY=VALUE, that are not given: as KEY=VALUE, or as a dict of several.

    Raises:
      UsageError: one is neither.
    """
    keys: set[str] = set()
    for text in given or []:
        try:
            keys |= set(ast.literal_eval(text)) if "{" in text else {text.partition("=")[0]}
        except (ValueError, SyntaxError) as error:
            raise UsageError(f"--labels {text}: KEY=VALUE is expected, or {{'KEY': 'VALUE', ...}}") from error
    return [f"{key}={value}" for key, value in labels.items() if key not in keys]


def _set_processes(debug: DebugOptions, served: bool) -> None:
    """One SDK process where it loads the model: one copy, and one scheduler that sees all bundles of the machine."""
    if served:
        debug.number_of_worker_harness_threads = debug.number_of_worker_harness_threads or _ENDPOINT_THREADS
        return
    if debug.lookup_experiment(_MORE_PROCESSES):
        _LOG.info("Each vCPU has an SDK process with a copy of the model, as --experiments=%s asks", _MORE_PROCESSES)
        return
    debug.add_experiment(_ONE_PROCESS)
    debug.number_of_worker_harness_threads = debug.number_of_worker_harness_threads or _THREADS


def _set_driver(google: GoogleCloudOptions) -> None:
    """Has the driver of a GPU installed. Without it, TensorFlow would run on the CPU and say nothing."""
    google.dataflow_service_options = [
        f"{each};{_DRIVER}" if each.startswith(_ACCELERATOR) and _DRIVER not in each else each
        for each in google.dataflow_service_options or []
    ]


def _set_package(options: PipelineOptions) -> None:
    """Has Sluice staged, unless workers run an image, which holds it."""
    setup = options.view_as(SetupOptions)
    setup.save_main_session = bool(setup.save_main_session)  # our DoFns are all in modules
    if not options.view_as(WorkerOptions).sdk_container_image and not setup.setup_file:
        setup.setup_file = find_setup_file()
