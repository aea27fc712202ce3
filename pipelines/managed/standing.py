"""How a managed job stands: the one place that says whether to wait for its answers, join them, or ask for others.

It is seen from what lies about: the state of the job at the service, its files of results and errors, and the record of
its rows, which is the first file that is deleted when all is done. So every command sees the same.
"""

import enum
import functools

from sluice.models.wording import message
from sluice.pipelines.managed.direct_output import error_reasons
from sluice.pipelines.managed.ends import because
from sluice.pipelines.managed.job import Job, State
from sluice.pipelines.managed.plan import place_of
from sluice.transforms.core.beam_files import match_files
from sluice.transforms.managed.place import Answers

# If the service answers no row of more than so many, the model is at fault, and a second job would be paid for nothing:
# all rows are failures then.
FEW_ROWS = 1000
_REASON_LENGTH = 500


class Standing(enum.Enum):
    """How a job stands.

    Attributes:
      RUNS: it may still answer.
      USED: its answers were joined and published, or were given up: its rows are gone.
      ANSWERED: it has ended with answers, to all rows or to some.
      REFUSED: it has tried its rows, and failed because of them: it has answered none.
      VOID: it has ended without having tried its rows.
    """

    RUNS = enum.auto()
    USED = enum.auto()
    ANSWERED = enum.auto()
    REFUSED = enum.auto()
    VOID = enum.auto()


def standing(job: Job) -> Standing:
    """Returns how a job stands now."""
    if not job.is_ended:
        return Standing.RUNS
    if not match_files(place_of(job).prepared):
        return Standing.USED
    if job.has_results:
        return Standing.ANSWERED
    has_tried = job.state is State.FAILED and (bool(job.stats.failed) or bool(reasons(job)))
    return Standing.REFUSED if has_tried else Standing.VOID


def is_first_kept(job: Job) -> bool:
    """Whether to go on with a first job that has ended.

    If it has answered nothing, few rows go through a second job. Of many rows, the command that first looks through
    the answers makes failures; the next one makes a new attempt, because it would only find the same again.
    """
    if standing(job) not in (Standing.ANSWERED, Standing.REFUSED):
        return False
    answers = Answers.read(place_of(job), job.short_name)
    return answers is None or not has_answered_none(answers)


def has_answered_none(answers: Answers) -> bool:
    """Whether a job has answered none of so many rows that the model is at fault, and not some of them."""
    return not answers.answered and answers.missing > FEW_ROWS


def is_second_kept(job: Job) -> bool:
    """Whether to go on with a second job that has ended. Rows that were tried one by one are not paid for again."""
    return standing(job) in (Standing.ANSWERED, Standing.REFUSED)


def reasons(job: Job) -> tuple[str, ...]:
    """Returns the messages of a job's files of errors, the most frequent first. The job has ended."""
    return _reasons_in(job.output_directory) if job.output_directory else ()


@functools.lru_cache(maxsize=4)
def _reasons_in(directory: str) -> tuple[str, ...]:
    """Reads the files once: they are asked for several times at the end of a job."""
    return tuple(error_reasons(directory))


def words_of(job: Job) -> list[str]:
    """Returns what the service says of the rows without an answer, the most frequent first."""
    texts = dict.fromkeys(filter(None, (*reasons(job), *job.partial_failures, job.error)))
    return [text if len(text) <= _REASON_LENGTH else text[:_REASON_LENGTH] + "..." for text in texts]


def unanswered_text(job: Job, to: str) -> str:
    """Returns the reason of a row that the service does not answer. Its words may quote any row.

    Args:
      to: what it gives no answer to.
    """
    words = words_of(job)
    if not words:
        return message("the service gives no answer to {to}, and no reason", to=to)
    return message("the service gives no answer to {to}{}", because(words), to=to)
