"""--vertex_job: a job that is found by its name, whatever its input has become since its rows were prepared.

The label of a job is made from its input too, so a command whose input has changed is another job's. A job that is
named is followed and joined all the same: its rows were kept as they were read.
"""

import dataclasses
import re
from typing import Protocol

from sluice.models.errors import SluiceError, UsageError
from sluice.models.uri import ManagedModel
from sluice.pipelines.managed.job import Job, JobRequest, RegisteredModel
from sluice.pipelines.managed.label import LABEL
from sluice.pipelines.managed.plan import ManagedPlan, place_of
from sluice.pipelines.options.batch import BatchOptions


class Lookup(Protocol):
    """The calls of `client.JobClient` that look jobs up."""

    parent: str

    def find(self, label: str) -> list[Job]: ...

    def get(self, name: str) -> Job: ...

    def model(self, name: str) -> RegisteredModel: ...


@dataclasses.dataclass(frozen=True)
class Named:
    """The job that a user names.

    Attributes:
      text: how.
      label: of the job; of a second one, that of the first.
      flags: see label.flags_label.
      directory: of the preparations for this label; "": the service has read the input itself.
      version: of the model; "": not told.
    """

    text: str
    label: str
    flags: str
    directory: str
    version: str

    def check(self, flags: str, is_direct: bool) -> None:
        """Checks that a command asks for this job.

        Args:
          flags: see label.flags_label.
          is_direct: whether the service is to read the rows itself.

        Raises:
          UsageError: it asks for another one.
        """
        if is_direct and self.directory:
            raise UsageError(f"--vertex_job {self.text}: its rows were prepared: leave --vertex_direct out")
        if not (is_direct or self.directory):
            raise UsageError(f"--vertex_job {self.text}: it has read its input itself: give --vertex_direct")
        if flags != self.flags:
            raise UsageError(
                f"--vertex_job {self.text}: this job is for another model, signature or output, or was made with other "
                "flags; give those of the command that made it. Only the content of its input may have changed"
            )


def find_named(client: Lookup, text: str) -> Named:
    """Returns the job with a label or a name: projects/P/locations/L/batchPredictionJobs/ID, or ID alone.

    Raises:
      UsageError: there is none, or Sluice has not made it.
    """
    jobs = client.find(text) if re.fullmatch(LABEL, text) else [client.get(_full_name(client.parent, text))]
    if not jobs:
        raise UsageError(f"--vertex_job {text}: {client.parent} has no job with this label")
    job = jobs[-1]
    if not (job.label and job.flags):
        raise UsageError(f"--vertex_job {text}: `sluice batch` has not made this job, or an older version of it has")
    directory, _, label = place_of(job).directory.rpartition("/")[0].rpartition("/")
    if re.fullmatch(LABEL, label):
        return Named(text, label, job.flags, f"{directory}/{label}", job.version)
    return Named(text, job.label, job.flags, "", job.version)


def _full_name(parent: str, text: str) -> str:
    return text if "/" in text else f"{parent}/batchPredictionJobs/{text}"


def find_model(
    client: Lookup, options: BatchOptions, model: ManagedModel
) -> tuple[BatchOptions, RegisteredModel, Named | None]:
    """Returns the model of the registry, and the job that --vertex_job names; None: it names none.

    The version is that of the job, unless the URI has a number: the default version may be another one since. Then the
    options have it in their URI.

    Raises:
      UsageError: there is no such model or job.
    """
    registered = client.model(model.name)
    if not options.vertex_job:
        return options, registered, None
    named = find_named(client, options.vertex_job)
    if model.version.isdecimal() or named.version in ("", registered.version):
        return options, registered, named
    name = dataclasses.replace(model, version=named.version).name
    return dataclasses.replace(options, model=f"vertex://{name}"), client.model(name), named


def of_named(plan: ManagedPlan, named: Named) -> ManagedPlan:
    """Returns the plan over the rows of a named job.

    Raises:
      UsageError: the plan is for another job.
    """
    named.check(plan.flags, is_direct=False)
    return dataclasses.replace(plan, label=named.label, directory=named.directory)


def request_of_named(request: JobRequest, named: Named) -> JobRequest:
    """Returns the request with the label of a named job whose input the service has read.

    Raises:
      UsageError: the request is for another job.
    """
    named.check(request.flags, is_direct=True)
    return dataclasses.replace(request, label=named.label)


def no_rows(text: str) -> SluiceError:
    """Returns the error for a named job that there is nothing left of."""
    return SluiceError(
        f"--vertex_job {text}: the answers of this job were used before, or its files or results were deleted. Leave "
        "--vertex_job out to score the input as it is now"
    )
