"""Jobs and models in the form of the published protos, and back.

google.cloud.aiplatform_v1 is imported within functions: it takes 0.6 s and 131 MB, and only commands that submit need
it.
"""

from typing import TYPE_CHECKING

from sluice.models.errors import UsageError
from sluice.pipelines.managed.job import Job, JobRequest, Machines, RegisteredModel, State, Stats

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1 import types

# Labels of a job. A filter of `list` names the first one; others than lower-case letters, digits and _ it might not
# take in a name.
JOB_LABEL, ATTEMPT_LABEL, TOKEN_LABEL, FLAGS_LABEL = "sluice_job", "sluice_attempt", "sluice_command", "sluice_flags"

BIGQUERY = "bigquery"
_TABLE_SCHEME = "bq://"


def job_proto(request: JobRequest, token: str) -> "types.BatchPredictionJob":
    """Returns the message that asks for a job."""
    from google.cloud.aiplatform_v1 import types

    kind = types.BatchPredictionJob
    job = kind(
        display_name=request.display_name,
        model=request.model,
        labels=_labels(request, token),
        input_config=kind.InputConfig(instances_format=request.input_format),
        output_config=kind.OutputConfig(predictions_format=request.output_format),
        dedicated_resources=_resources(request.machines),
        service_account=request.machines.service_account,
    )
    if request.input_format == BIGQUERY:
        job.input_config.bigquery_source = types.BigQuerySource(input_uri=request.inputs[0])
    else:
        job.input_config.gcs_source = types.GcsSource(uris=list(request.inputs))
    if request.output_format == BIGQUERY:
        job.output_config.bigquery_destination = types.BigQueryDestination(output_uri=request.output)
    else:
        job.output_config.gcs_destination = types.GcsDestination(output_uri_prefix=request.output)
    if request.key_field or request.instance_type or request.fields:
        job.instance_config = kind.InstanceConfig(
            key_field=request.key_field, instance_type=request.instance_type, included_fields=list(request.fields)
        )
    if request.machines.batch_size:
        job.manual_batch_tuning_parameters = types.ManualBatchTuningParameters(batch_size=request.machines.batch_size)
    return job


def _labels(request: JobRequest, token: str) -> dict[str, str]:
    labels = {JOB_LABEL: request.label, ATTEMPT_LABEL: str(request.attempt), TOKEN_LABEL: token}
    return labels | ({FLAGS_LABEL: request.flags} if request.flags else {})


def _resources(machines: Machines) -> "types.BatchDedicatedResources":
    from google.cloud.aiplatform_v1 import types

    spec = types.MachineSpec(machine_type=machines.machine_type)
    if machines.accelerator:
        spec.accelerator_type = types.AcceleratorType[machines.accelerator]
        spec.accelerator_count = machines.accelerators
    # The maximum has no effect for models with a container of their own; were it lower, the job would be refused.
    return types.BatchDedicatedResources(
        machine_spec=spec, starting_replica_count=machines.replicas, max_replica_count=machines.replicas
    )


def check_accelerator(name: str) -> None:
    """Checks that the service has such accelerators.

    Raises:
      UsageError: it has not; the text lists those that it has.
    """
    from google.cloud.aiplatform_v1 import types

    known = [each.name for each in types.AcceleratorType if each.value]
    if name and name not in known:
        raise UsageError(f"--vertex_accelerator {name}: Vertex AI has no such accelerator; it has {', '.join(known)}")


def job_of(message: "types.BatchPredictionJob") -> Job:
    """Returns what the service says of a job."""
    job = type(message).pb(message)  # the plain message tells what is absent from what is 0
    labels = dict(job.labels)
    attempt = labels.get(ATTEMPT_LABEL, "")
    table = job.output_info.bigquery_output_dataset.removeprefix(_TABLE_SCHEME)
    source = job.input_config.bigquery_source.input_uri
    return Job(
        name=job.name,
        state=State(job.state),
        label=labels.get(JOB_LABEL, ""),
        attempt=int(attempt) if attempt.isdecimal() else 0,
        token=labels.get(TOKEN_LABEL, ""),
        inputs=(source,) if source else tuple(job.input_config.gcs_source.uris),
        output_directory=job.output_info.gcs_output_directory.rstrip("/"),
        output_table=".".join(filter(None, (table, job.output_info.bigquery_output_table))),
        stats=_stats(job),
        partial_failures=tuple(status.message or f"code {status.code}" for status in job.partial_failures),
        error=job.error.message if job.HasField("error") else "",
        created=job.create_time.ToNanoseconds(),
        version=job.model_version_id,
        flags=labels.get(FLAGS_LABEL, ""),
    )


def _stats(job: "types.BatchPredictionJob") -> Stats:
    if not job.HasField("completion_stats"):
        return Stats()
    stats = job.completion_stats
    counts = stats.successful_count, stats.failed_count, stats.incomplete_count
    return Stats(*(None if count < 0 else count for count in counts))


def model_of(message: "types.Model") -> RegisteredModel:
    """Returns what the registry says of a model."""
    return RegisteredModel(
        name=message.name.partition("@")[0],
        version=message.version_id,
        display_name=message.display_name,
        artifact_uri=message.artifact_uri,
        input_formats=tuple(message.supported_input_storage_formats),
        output_formats=tuple(message.supported_output_storage_formats),
    )
