"""A batch prediction job of Vertex AI: what Sluice asks for, and what the service says of it.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.batchPredictionJobs
"""

import dataclasses
import enum


class State(enum.Enum):
    """The state of a job, with the numbers of google.cloud.aiplatform.v1.JobState. Unknown ones are UNSPECIFIED."""

    UNSPECIFIED = 0
    QUEUED = 1
    PENDING = 2
    RUNNING = 3
    SUCCEEDED = 4
    FAILED = 5
    CANCELLING = 6
    CANCELLED = 7
    PAUSED = 8
    EXPIRED = 9
    UPDATING = 10
    PARTIALLY_SUCCEEDED = 11

    @classmethod
    def _missing_(cls, value: object) -> "State":
        return cls.UNSPECIFIED


_WITH_RESULTS = (State.SUCCEEDED, State.PARTIALLY_SUCCEEDED)
_ENDED = (*_WITH_RESULTS, State.FAILED, State.CANCELLED, State.EXPIRED)


@dataclasses.dataclass(frozen=True)
class Machines:
    """The machines that score.

    Attributes:
      accelerator: a name of google.cloud.aiplatform.v1.AcceleratorType; "": none.
      accelerators: how many of it each machine has.
      batch_size: rows per call; 0: the service's own, which is 64.
      service_account: that the model's container runs as; "": one of the service's own.
    """

    machine_type: str
    replicas: int = 1
    accelerator: str = ""
    accelerators: int = 0
    batch_size: int = 0
    service_account: str = ""


@dataclasses.dataclass(frozen=True)
class JobRequest:
    """A job to create.

    Attributes:
      model: projects/P/locations/L/models/M@VERSION.
      label: what `label.job_label` returns.
      attempt: counts the jobs of this label, from 1.
      inputs: URIs of files, or the one of a table: bq://PROJECT.DATASET.TABLE.
      output: the prefix for files: the service makes a directory of its own under it; or bq://...
      key_field: the field of each instance that is its key, and not the model's; "": none.
      input_format: jsonl, csv, tf-record, tf-record-gzip or bigquery.
      output_format: jsonl, csv or bigquery.
      instance_type: "object": rows of a table or lines of JSON become objects; "": as the service does by default.
      fields: the fields of a row that are the model's; (): all.
      flags: what `label.flags_label` returns.
    """

    model: str
    label: str
    attempt: int
    display_name: str
    inputs: tuple[str, ...]
    output: str
    machines: Machines
    key_field: str = ""
    input_format: str = "jsonl"
    output_format: str = "jsonl"
    instance_type: str = ""
    fields: tuple[str, ...] = ()
    flags: str = ""


@dataclasses.dataclass(frozen=True)
class Stats:
    """How many instances a job has handled. None: the service does not say, or not yet.

    Attributes:
      incomplete: those that it has not come to, where it ended before.
    """

    successful: int | None = None
    failed: int | None = None
    incomplete: int | None = None


@dataclasses.dataclass(frozen=True)
class Job:
    """A job as the service describes it.

    Attributes:
      name: projects/P/locations/L/batchPredictionJobs/ID.
      label, flags, attempt, token: of the command that created it; the token tells that command from others.
      inputs: of its request.
      output_directory: where its files are, as the service says; "": not yet known.
      output_table: PROJECT.DATASET or PROJECT.DATASET.TABLE that it writes to; "": none.
      partial_failures: what went wrong beside, such as a file that cannot be read; 20 at most.
      error: why it failed or was cancelled; "": it did not, or there is no word of it.
      created: nanoseconds since 1970.
      version: of the model; "": not yet known.
    """

    name: str
    state: State
    label: str = ""
    attempt: int = 0
    token: str = ""
    inputs: tuple[str, ...] = ()
    output_directory: str = ""
    output_table: str = ""
    stats: Stats = Stats()
    partial_failures: tuple[str, ...] = ()
    error: str = ""
    created: int = 0
    version: str = ""
    flags: str = ""

    @property
    def short_name(self) -> str:
        """The job's own part of its name."""
        return self.name.rpartition("/")[2]

    @property
    def is_ended(self) -> bool:
        """Whether its state will not change any more."""
        return self.state in _ENDED

    @property
    def has_results(self) -> bool:
        """Whether it has ended with results: of all instances, or of some."""
        return self.state in _WITH_RESULTS

    @property
    def is_live(self) -> bool:
        """Whether it may still come to results; one that is being cancelled is not expected to."""
        return not self.is_ended and self.state is not State.CANCELLING

    @property
    def age_order(self) -> tuple[int, str]:
        """Sorts jobs, the oldest first: every command that sees the same jobs agrees on which is the first."""
        return self.created, self.name


@dataclasses.dataclass(frozen=True)
class RegisteredModel:
    """A model of Vertex AI's registry.

    Attributes:
      name: projects/P/locations/L/models/M.
      version: the number that a name without a version, or with an alias, stands for.
      artifact_uri: the directory of its SavedModel; "": not told.
      input_formats, output_formats: of batch prediction; (): not told.
    """

    name: str
    version: str
    display_name: str = ""
    artifact_uri: str = ""
    input_formats: tuple[str, ...] = ()
    output_formats: tuple[str, ...] = ()

    @property
    def versioned_name(self) -> str:
        """The name that stays with this version."""
        return f"{self.name}@{self.version}" if self.version else self.name
