"""Starts a pipeline on its runner. On Dataflow two jobs of one name never run at once, and the second is refused."""

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions
from apache_beam.runners.dataflow.internal.apiclient import DataflowJobAlreadyExistsError
from apache_beam.runners.runner import PipelineResult
from google.api_core.exceptions import Conflict

from sluice.models.errors import UsageError
from sluice.pipelines.dataflow.runner import is_dataflow


class NameTaken(UsageError):
    """A job of this name runs on Dataflow; the new one was not started."""


def launch(pipeline: beam.Pipeline) -> PipelineResult:
    """Starts a pipeline. Of launches of one name within seconds the service accepts one, as it does of later ones.

    Beam tells a repeated request from another launch: by the id of the request, which each launch makes anew.

    Raises:
      NameTaken: see there.
    """
    try:
        return pipeline.run()
    except (DataflowJobAlreadyExistsError, Conflict) as error:
        google = pipeline.options.view_as(GoogleCloudOptions)
        said = getattr(error, "message", str(error))
        if not is_dataflow(pipeline.options) or str(google.job_name) not in said:
            raise
        raise NameTaken(_text(google, said)) from error


def _text(google: GoogleCloudOptions, said: str) -> str:
    job = f"the job {google.job_name} in {google.region} of {google.project}"
    if google.update:
        return (
            f"--update: another launch has updated {job} meanwhile; launch again to replace that one. Dataflow: {said}"
        )
    return (
        f"--job_name {google.job_name}: {job} runs already, and this one was not started: drain or cancel that one, "
        f"replace it if it is a stream (--update), or give another name. Dataflow: {said}"
    )
