"""Plans a managed job that Sluice prepares and joins: what is scored, where files lie, what the service is asked."""

import dataclasses
import os

from sluice.models.endpoints.instances import KEY_FIELD
from sluice.models.errors import UsageError
from sluice.models.signature import Signature
from sluice.pipelines.managed.job import Job, JobRequest, Machines, RegisteredModel
from sluice.pipelines.managed.label import files_state, flags_label, job_label, table_state
from sluice.pipelines.managed.open import machines
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.plan.batch_job import BatchPlan, plan_batch
from sluice.pipelines.plan.model import launch_errors
from sluice.transforms.core.beam_files import check_name
from sluice.transforms.files.write import Target
from sluice.transforms.managed.join_answers import Decoding
from sluice.transforms.managed.place import Place
from sluice.transforms.managed.prepare import Encoding

# The directory under the temporary one, or beside the output, that holds the files of all managed jobs.
_DIRECTORY = "sluice-managed"
_GCS = "gs://"
# The service's limit.
_MAX_DISPLAY_NAME = 128


@dataclasses.dataclass(frozen=True)
class ManagedPlan:
    """A managed job, with every decision taken.

    Attributes:
      batch: what is read and written.
      label: of the first job.
      directory: of the files of all preparations for this label.
      flags: what `label.flags_label` returns.
    """

    batch: BatchPlan
    model: RegisteredModel
    machines: Machines
    label: str
    directory: str
    flags: str = ""

    @property
    def signature(self) -> Signature:
        """The model's, with the outputs that are wanted."""
        signature = self.batch.recipe.signature
        assert signature is not None, "the launcher reads the signature of a managed model"
        return signature

    @property
    def encoding(self) -> Encoding:
        """What makes instances of rows."""
        recipe, batch = self.batch.recipe, self.batch
        return Encoding(recipe.spec.uri, self.signature, recipe.model.defaults, batch.contents, batch.version)

    def decoding(self, unanswered: str) -> Decoding:
        """Returns what makes outputs of answers.

        Args:
          unanswered: the reason of a row without an answer.
        """
        uri = self.batch.recipe.spec.uri
        return Decoding(uri, self.batch.version, self.signature, self.batch.output_prefix, unanswered)

    def request(self, label: str, attempt: int, place: Place, files: Target, batch_size: int = 0) -> JobRequest:
        """Returns the request for a job over files of instances.

        Args:
          batch_size: rows per call; 0: as the flags say.
        """
        name = self.model.display_name or self.model.name.rpartition("/")[2]
        return JobRequest(
            model=self.model.versioned_name,
            label=label,
            attempt=attempt,
            display_name=f"sluice {name}"[:_MAX_DISPLAY_NAME],
            inputs=(files.pattern,),
            output=place.results,
            machines=dataclasses.replace(self.machines, batch_size=batch_size or self.machines.batch_size),
            key_field=KEY_FIELD,
            flags=self.flags,
        )


def place_of(job: Job) -> Place:
    """Returns the directory that a job reads its instances from: DIRECTORY/instances/part-*.jsonl."""
    return Place(job.inputs[0].rsplit("/", 2)[0]) if job.inputs else Place("")


def plan_managed(
    options: BatchOptions, model: RegisteredModel, project: str, temp_location: str, account: str, local: bool
) -> ManagedPlan:
    """Returns the job that the options ask for.

    Args:
      project: is billed for reads from BigQuery; "": the table's own.
      temp_location: Beam's; "": there is none.
      account: see EndpointOptions.google_account.
      local: the service is on this machine, and reads and writes local files too.

    Raises:
      UsageError: something does not fit, or cannot be reached; nothing has been written.
    """
    temporary = _temporary(options, temp_location, local)
    batch = plan_batch(options, project, temp_location, account)
    with launch_errors():
        state = (
            table_state(batch.input.table)
            if batch.input.table
            else tuple(state for each in batch.input.patterns for state in files_state(each))
        )
    signature = batch.recipe.signature
    assert signature is not None, "the launcher reads the signature of a managed model"
    label = job_label(state, model.versioned_name, signature, options)
    flags = flags_label(model.versioned_name, signature, options)
    return ManagedPlan(batch, model, machines(options), label, f"{temporary}/{label}", flags)


def _temporary(options: BatchOptions, temp_location: str, local: bool) -> str:
    """Returns the directory for the files of managed jobs."""
    beside = options.output or options.failures
    if not temp_location and not beside:
        raise UsageError(
            "a managed job needs a directory for the rows under way: give --temp_location gs://BUCKET/DIRECTORY"
        )
    base = temp_location.rstrip("/") or beside.rpartition("/")[0]
    if not (local or base.startswith(_GCS)):
        what = (
            f"--temp_location {temp_location} is" if temp_location else f"{beside} is, and there is no --temp_location,"
        )
        raise UsageError(
            f"{what} not on gs://, where Vertex AI reads and writes: give --temp_location gs://BUCKET/DIRECTORY"
        )
    check_name(base, f"--temp_location {base}")
    return f"{base if '://' in base else os.path.abspath(base)}/{_DIRECTORY}"
