"""What users are told at each end of a managed job, and where a command leaves it."""

import logging
import shlex
from collections.abc import Sequence

from sluice.models.errors import SluiceError
from sluice.models.wording import message
from sluice.pipelines.managed.job import Job, State
from sluice.pipelines.options.flags import SECRETS

_LOG = logging.getLogger(__name__)

PAUSED_TEXT = "%s is paused. The command waits until it is resumed: resume or cancel it in the console"
_AGAIN = "The same command makes a new job"
_SHOWN_REASONS = 3
_GOOGLE = ".googleapis.com"
_DETACH = "--detach"
_BOOLEANS = ("true", "false", "yes", "no", "1", "0")
_SECRETS = tuple(f"--{name}" for name in SECRETS)
_OVERWRITE = "--overwrite"
_JOB = "--vertex_job"

# What helps against the reasons that the service gives: words of them, in lower case, and a remedy.
_REMEDIES = (
    (
        ("storage.objects", "storage.buckets", "does not have storage"),
        "Vertex AI's service agent, service-PROJECT_NUMBER@gcp-sa-aiplatform.iam.gserviceaccount.com, reads the input "
        "and writes the output: give it roles/storage.objectAdmin on the buckets",
    ),
    (
        ("bigquery.",),
        "Vertex AI's service agent, service-PROJECT_NUMBER@gcp-sa-aiplatform.iam.gserviceaccount.com, reads and writes "
        "tables: give it roles/bigquery.dataEditor and roles/bigquery.jobUser",
    ),
    (
        ("quota", "resource_exhausted", "resources are insufficient", "stockout"),
        "other machines may be free (--vertex_machine_type, --vertex_replicas), or another location",
    ),
    (("out of memory", "oom"), "a larger --vertex_machine_type, or a smaller --vertex_batch_size, may help"),
)


class JobEnded(SluiceError):
    """A job ended without results."""


def describe(job: Job) -> str:
    """Returns the job as messages name it."""
    return f"batch prediction job {job.name}"


def check_end(job: Job, private: bool = False) -> None:
    """Checks that a job that has ended has results; warns if it has some only.

    Args:
      private: the values of rows are, and the service's words may quote some.

    Raises:
      JobEnded: it has none. The text, a Message, says what to do.
    """
    if job.state is State.PARTIALLY_SUCCEEDED:
        text = message("{job} succeeded in part only{}", _reasons(job), job=describe(job))
        _LOG.warning("%s", text.public if private else text)
    if not job.has_results:
        template = _TEXTS[job.state] + "{remedy}"
        raise JobEnded(message(template, _reasons(job), job=describe(job), again=_AGAIN, remedy=_remedy(job)))


_TEXTS = {
    State.FAILED: "{job} failed{}. {again}, once the cause is mended",
    State.CANCELLED: "{job} was cancelled{}. {again}",
    State.EXPIRED: (
        "{job} expired: it ran for longer than the service allows{}. {again}; with more --vertex_replicas or "
        "another --vertex_machine_type it takes less time"
    ),
}


def _reasons(job: Job) -> str:
    """Returns what the service says, after a colon; "" if it says nothing."""
    return because(list(dict.fromkeys(filter(None, (job.error.strip(), *job.partial_failures)))))


def because(reasons: Sequence[str]) -> str:
    """Returns the first reasons after a colon, and how many more there are; "" if there are none."""
    more = len(reasons) - _SHOWN_REASONS
    return f": {'; '.join(reasons[:_SHOWN_REASONS])}{f' (and {more} more)' if more > 0 else ''}" if reasons else ""


def _remedy(job: Job) -> str:
    said = " ".join((job.error, *job.partial_failures)).lower()
    return next((f". {text}" for words, text in _REMEDIES if any(word in said for word in words)), "")


def console_url(job: Job) -> str:
    """Returns the page of Google's console for a job."""
    _, project, _, location, _, number = job.name.split("/")
    return (
        f"https://console.cloud.google.com/vertex-ai/locations/{location}/batch-predictions/{number}?project={project}"
    )


def resume_command(argv: Sequence[str], overwrites: bool = True, job: str = "") -> str:
    """Returns the command line that follows the job of this one to its end. Secrets are to be added to it.

    Args:
      argv: of this process, its program first.
      overwrites: --overwrite is kept; otherwise it would ask for another job.
      job: is named in the command, so that it is found whatever its input becomes; "": as in this command.
    """
    switches = (_DETACH,) if overwrites else (_DETACH, _OVERWRITE)
    program, *flags = argv
    name = "python -m sluice" if program.endswith("__main__.py") else program.rpartition("/")[2]
    kept = _kept(flags, switches, (*_SECRETS, _JOB) if job else _SECRETS)
    # A file of --config may have them, too.
    in_file = any(flag.partition("=")[0] == "--config" for flag in flags)
    off = [f"{switch}=false" for switch in switches] if in_file else []
    named = [f"{_JOB}={job}"] if job else []
    return f"{name} {shlex.join([*kept, *off, *named])}".strip()


def _kept(flags: Sequence[str], switches: Sequence[str], with_values: Sequence[str]) -> list[str]:
    kept: list[str] = []
    for flag, before in zip(flags, ("", *flags), strict=False):
        is_value = before in with_values or (before in switches and flag.lower() in _BOOLEANS)
        if not (is_value or flag.partition("=")[0] in (*switches, *with_values)):
            kept.append(flag)
    return kept


def detached_text(job: Job, command: str, url: str) -> str:
    """Returns what --detach prints: the job, and what to do next.

    Args:
      url: of the service; only Google's own has a console.
    """
    page = f" ({console_url(job)})" if url.endswith(_GOOGLE) else ""
    return f"sluice: {describe(job)} goes on by itself{page}\nTo follow it and get its output: {command}"
