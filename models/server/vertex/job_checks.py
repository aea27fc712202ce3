"""What the service refuses when a batch prediction job is created."""

import re
from typing import Any

from google.cloud.aiplatform_v1 import types

from sluice.models.server.status import StatusError, invalid
from sluice.models.server.vertex.limits import MAX_DISPLAY_NAME, MAX_LABEL_CHARACTERS

# Letters of any script, digits, _ and -; none is a capital.
_LABEL = re.compile(r"[\w-]*")
BIGQUERY = "bigquery"
_GCS_FORMATS = ("jsonl", "csv", "tf-record", "tf-record-gzip", "file-list")
_OUTPUT_FORMATS = ("jsonl", "csv")
# Formats whose instances have fields: for keys, and for fields to be chosen and shaped.
_WITH_KEYS = ("jsonl", "csv", BIGQUERY)
_WITH_FIELDS = ("jsonl", BIGQUERY)
# bq://PROJECT, bq://PROJECT.DATASET, bq://PROJECT.DATASET.TABLE: google/cloud/aiplatform/v1/io.proto
_TABLE = re.compile(r"bq://[^.]+\.[^.]+\.[^.]+")
_DESTINATION = re.compile(r"bq://[^.]+\.[^.]+(?:\.[^.]+)?")


def check_job(job: types.BatchPredictionJob, has_tables: bool) -> None:
    """Checks a job as the comments of batch_prediction_job.proto ask.

    Args:
      has_tables: whether there is a BigQuery.

    Raises:
      StatusError: a field is missing, or fields do not go together.
    """
    if not 0 < len(job.display_name) <= MAX_DISPLAY_NAME:
        raise invalid(f"display_name must have 1 to {MAX_DISPLAY_NAME} characters.")
    _check_labels(dict(job.labels))
    _check_input(job.input_config)
    _check_output(job.output_config)
    _check_instances(job)
    _check_resources(job.dedicated_resources)
    if job.manual_batch_tuning_parameters.batch_size < 0:
        raise invalid("manual_batch_tuning_parameters.batch_size must not be negative.")
    if job.generate_explanation:
        raise StatusError("UNIMPLEMENTED", "the local service of Sluice explains nothing")
    if BIGQUERY in (job.input_config.instances_format, job.output_config.predictions_format) and not has_tables:
        raise StatusError("UNIMPLEMENTED", "this local service has no BigQuery")


def _check_labels(labels: dict[str, str]) -> None:
    for text in (*labels, *labels.values()):
        if len(text) > MAX_LABEL_CHARACTERS or text != text.lower() or not _LABEL.fullmatch(text):
            raise invalid(f"labels: {text!r} is not up to {MAX_LABEL_CHARACTERS} lower-case letters, digits, _ and -.")


def _check_input(config: Any) -> None:
    form, source = config.instances_format, type(config).pb(config).WhichOneof("source")
    if form not in (*_GCS_FORMATS, BIGQUERY):
        raise invalid(f"input_config.instances_format {form!r} is not supported by the model.")
    if form == BIGQUERY:
        if source != "bigquery_source" or not _TABLE.fullmatch(config.bigquery_source.input_uri):
            raise invalid("input_config.bigquery_source.input_uri must be bq://PROJECT.DATASET.TABLE.")
    elif source != "gcs_source" or not config.gcs_source.uris:
        raise invalid("input_config.gcs_source.uris must name at least one file.")


def _check_output(config: Any) -> None:
    form, destination = config.predictions_format, type(config).pb(config).WhichOneof("destination")
    if form not in (*_OUTPUT_FORMATS, BIGQUERY):
        raise invalid(f"output_config.predictions_format {form!r} is not supported by the model.")
    if form == BIGQUERY:
        uri = config.bigquery_destination.output_uri
        if destination != "bigquery_destination" or not _DESTINATION.fullmatch(uri):
            raise invalid("output_config.bigquery_destination.output_uri must be bq://PROJECT.DATASET[.TABLE].")
    elif destination != "gcs_destination" or not config.gcs_destination.output_uri_prefix:
        raise invalid("output_config.gcs_destination.output_uri_prefix must be given.")


def _check_instances(job: types.BatchPredictionJob) -> None:
    config, form = job.instance_config, job.input_config.instances_format
    if config.instance_type not in ("", "object", "array"):
        raise invalid(f"instance_config.instance_type {config.instance_type!r} is not object or array.")
    if config.instance_type and form not in _WITH_FIELDS:
        raise invalid(f"instance_config.instance_type does not apply to {form}.")
    if config.key_field and form not in _WITH_KEYS:
        raise invalid(f"instance_config.key_field: instances of {form} have no fields.")
    if config.key_field and job.output_config.predictions_format == BIGQUERY:  # python-aiplatform#4514
        raise invalid("instance_config.key_field does not go together with predictions in BigQuery.")
    if config.included_fields and config.excluded_fields:
        raise invalid("Only one of instance_config.included_fields and excluded_fields may be set.")
    if (config.included_fields or config.excluded_fields) and form not in _WITH_FIELDS:
        raise invalid(f"instance_config.included_fields and excluded_fields do not apply to {form}.")
    if config.instance_type == "array" and form == "jsonl" and not config.included_fields:
        raise invalid("instance_config.included_fields must order the fields of an array.")


def _check_resources(resources: Any) -> None:
    """Checks the machines. A custom model has no automatic ones, so they must be given."""
    machine = resources.machine_spec
    if not machine.machine_type:
        raise invalid("dedicated_resources.machine_spec.machine_type must be given for a custom-trained model.")
    if bool(machine.accelerator_count) != bool(machine.accelerator_type):
        raise invalid("machine_spec: accelerator_type and accelerator_count go together.")
    if resources.starting_replica_count < 0:
        raise invalid("dedicated_resources.starting_replica_count must not be negative.")
