"""What a job on Dataflow tells of the flags it was launched with: the console shows Beam's options, and no others."""

import dataclasses
import json
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from sluice.models.errors import UsageError
from sluice.pipelines.dataflow.template import to_text


class JobOptions(PipelineOptions):
    """The options of Sluice, in one option of Beam's."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        # It parses nothing: on workers, Beam makes flags of a job's options and parses them again.
        parser.add_argument("--sluice_options", help="Set by Sluice: what it was launched with, as a JSON object.")


def check_not_given(options: PipelineOptions) -> None:
    """
    Raises:
      UsageError: the option is among the user's flags.
    """
    if options.view_as(JobOptions).sluice_options is not None:
        raise UsageError("--sluice_options is what a job says of itself; leave it out, and give the flags themselves")


def set_job_options(options: PipelineOptions, job: Any) -> None:
    """Adds the options of Sluice, a dataclass of flags, to Beam's."""
    options.view_as(JobOptions).sluice_options = json.dumps(parameters_of(job), ensure_ascii=False)


def parameters_of(job: Any) -> dict[str, str]:
    """Returns what the same job is launched with: by flag or template parameter, the text that means its value.

    Those that are as they would be anyway are left out, and secrets, since everybody who may look at a job sees these.
    """
    given = {field: getattr(job, field.name) for field in dataclasses.fields(job) if not field.metadata["secret"]}
    return {field.name: to_text(value) for field, value in given.items() if value != field.default}
