"""Before a job with a report: whether it can be made, and where workers of other processes leave what they see."""

import atexit
import dataclasses
import shutil
import tempfile
import uuid

from apache_beam.options.pipeline_options import DirectOptions, GoogleCloudOptions, PipelineOptions

from sluice.models.errors import UsageError
from sluice.pipelines.dataflow.runner import is_local
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.plan.batch_job import BatchPlan
from sluice.pipelines.report.draw import check_drawable
from sluice.transforms.files.find_files import absolute

_DIRECTORY = "sluice-report-"


def check_report(options: BatchOptions, beam: PipelineOptions) -> None:
    """Checks that the report which is wanted, if one is, can be made.

    Raises:
      UsageError: charts cannot be drawn here, or nobody waits for the end of the job.
    """
    if not options.report_file:
        return
    check_drawable("--report_file")
    if beam.view_as(GoogleCloudOptions).template_location:
        raise UsageError("--report_file: a template is started later, and nobody waits for its end; leave the flag out")


def with_place(plan: BatchPlan, options: BatchOptions, beam: PipelineOptions) -> BatchPlan:
    """Returns the plan, with such a place if the rows pass through other processes and a report is wanted."""
    if plan.watched is None:
        return plan
    if is_local(beam) and beam.view_as(DirectOptions).direct_running_mode != "multi_processing":
        return plan
    directory = _private_directory() if is_local(beam) else _shared_directory(options, beam)
    return dataclasses.replace(plan, watched=dataclasses.replace(plan.watched, directory=directory))


def _private_directory() -> str:
    """Returns a new directory that no other user can read. It is gone when this process ends, unless that is killed."""
    directory = tempfile.mkdtemp(prefix=_DIRECTORY)
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def _shared_directory(options: BatchOptions, beam: PipelineOptions) -> str:
    """Returns a place that workers on other machines can write to."""
    temporary = beam.view_as(GoogleCloudOptions).temp_location
    base = (temporary or absolute(options.report_file).rpartition("/")[0]).rstrip("/")
    return f"{base}/{_DIRECTORY}{uuid.uuid4().hex[:12]}"
