"""Where a batch prediction job writes: a new directory, or tables."""

import dataclasses

from google.cloud.aiplatform_v1 import types

from sluice.models.server.vertex.job_checks import BIGQUERY


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a job writes.

    Attributes:
      directory: of the files; empty: it writes tables.
      predictions, errors: bq://PROJECT.DATASET.TABLE.
    """

    directory: str = ""
    predictions: str = ""
    errors: str = ""

    def tell(self, info: types.BatchPredictionJob.OutputInfo) -> None:
        """Sets what the service says of it."""
        if self.directory:
            info.gcs_output_directory = self.directory
        else:
            dataset, _, table = self.predictions.rpartition(".")
            info.bigquery_output_dataset, info.bigquery_output_table = dataset, table


def place_of(job: types.BatchPredictionJob, model: str) -> Place:
    """Returns the place of a job that has its time of creation; no two jobs have the same."""
    config = job.output_config
    time = f"{job.create_time.strftime('%Y_%m_%dT%H_%M_%S_%f')[:-3]}Z"
    if config.predictions_format != BIGQUERY:
        prefix = config.gcs_destination.output_uri_prefix.rstrip("/")
        return Place(directory=f"{prefix}/prediction-{model}-{time}")
    project, dataset, *table = config.bigquery_destination.output_uri.split(".")
    predictions = f"{project}.{dataset}.{table[0] if table else f'predictions_{time}'}"
    return Place(predictions=predictions, errors=f"{project}.{dataset}.errors_{time}")
