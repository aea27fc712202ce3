"""How a managed job stands: the one place that says whether to wait for its answers, join them, or ask for others.

It is seen from what lies about: the state of the job at the service, its files of results and errors, and the record of
its rows, which is the first file that is deleted when all is done. So every command sees the same.
"""

import enum
import functools

from sluice.pipelines.managed.direct_output import error_reasons
from sluice.pipelines.managed.job import Job, State
from sluice.pipelines.managed.plan import place_of
from sluice.transforms.core.beam_files import match_files
from sluice.transforms.managed.find_answers import read_prepared

# If the service answers no row of more than so many, the model is at fault, and a second job would be paid for nothing.
FEW_ROWS = 1000


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
    """Whether to go on with a first job that has ended. If it has answered nothing, a second one gets few rows only."""
    found = standing(job)
    return found is Standing.ANSWERED or (found is Standing.REFUSED and read_prepared(place_of(job)).rows <= FEW_ROWS)


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
