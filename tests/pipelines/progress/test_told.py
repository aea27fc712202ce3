"""What is known of a job's figures: counted here, told by a runner, or not known."""

import pytest
from apache_beam.metrics.monitoring_infos import int64_user_counter
from apache_beam.portability.api import beam_job_api_pb2 as api

from sluice.pipelines.progress.display import TextLines
from sluice.pipelines.progress.told import Told, ToldLines
from sluice.transforms.core import metrics


class Job:
    """A portable job whose job server tells what a test sets.

    Attributes:
      asked: how often it was.
    """

    _job_id = "job-1"

    def __init__(self) -> None:
        self.answer: api.MetricResults | Exception = api.MetricResults()
        self.asked = 0
        self._job_service = self

    def GetJobMetrics(self, request: api.GetJobMetricsRequest) -> api.GetJobMetricsResponse:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return api.GetJobMetricsResponse(metrics=self.answer)


def told(here: bool = False, job: Job | None = None) -> Told:
    made = Told(here, portable=True, clock=lambda: 0.0)
    made.result = job
    return made


ROWS = api.MetricResults(
    committed=[
        int64_user_counter("sluice", "rows_read", 3, ptransform="Read"),
        int64_user_counter("other", "rows_read", 100, ptransform="Read"),
    ],
    attempted=[
        int64_user_counter("sluice", "rows_read", 4, ptransform="Again"),
        int64_user_counter("sluice", "rows_failed", 1, ptransform="Predict"),
    ],
)


def test_a_runner_tells_counters_of_all_steps() -> None:
    job = Job()
    job.answer = ROWS
    assert told(job=job).figures() == ({"rows_read": 7, "rows_failed": 1}, {})
    assert told(job=job).tally() == {"rows_read": 7, "rows_failed": 1}


@pytest.mark.parametrize("answer", [api.MetricResults(), RuntimeError("not yet"), LookupError("no such job")])
def test_what_a_runner_does_not_tell_is_not_known_and_not_0(answer: api.MetricResults | Exception) -> None:
    job = Job()
    job.answer = answer
    assert told(job=job).figures() is None
    assert told().figures() is None, "the job did not begin"


def test_rows_that_this_process_scores_are_counted_here() -> None:
    metrics.reset_tally()
    metrics.count(metrics.ROWS_READ, 2)
    counted = told(here=True, job=Job())
    assert counted.figures() == ({"rows_read": 2}, {}) and counted.tally() == {"rows_read": 2}
    metrics.reset_tally()


def test_a_runner_is_asked_now_and_then() -> None:
    now, job = [0.0], Job()
    watched = Told(False, portable=True, clock=lambda: now[0])
    assert watched.tally() == {}
    watched.result = job
    for second in range(7):
        now[0] = float(second)
        watched.tally()
    assert job.asked == 2
    job.answer = ROWS
    now[0] = 10.0
    assert watched.tally()["rows_read"] == 7
    job.answer = RuntimeError("busy")
    now[0] = 20.0
    assert watched.tally()["rows_read"] == 7, "what was told last stands"


def test_a_line_tells_no_rows_before_the_runner_does() -> None:
    now, job = [0.0], Job()
    watched = Told(False, portable=True, clock=lambda: now[0])
    lines = ToldLines(TextLines(lambda: "7 rows"), watched, lambda: now[0])
    untold = "the runner has not told how many rows are done"
    assert lines.log_line() == f"starting, 0:00; {untold}"
    watched.result, now[0] = job, 65.0
    assert lines.log_line() == f"running, 1:05; {untold}" and lines.line(9) == "running, "
    job.answer, now[0] = ROWS, 70.0
    assert lines.log_line() == lines.line(80) == "7 rows"
