"""How a managed job stands, from its state and from what lies about."""

from pathlib import Path

import pytest

from sluice.pipelines.managed import standing as standing_module
from sluice.pipelines.managed.job import Job, State, Stats
from sluice.pipelines.managed.plan import place_of
from sluice.pipelines.managed.standing import FEW_ROWS, Standing, is_first_kept, is_second_kept, reasons, standing
from sluice.transforms.managed.place import Answers, InstanceShard, Place, Prepared

NAME = "projects/p/locations/l/batchPredictionJobs/7"
NO_STATS, REFUSED = Stats(), Stats(0, 9, 0)


def job_of(directory: Path, state: State, stats: Stats = NO_STATS, rows: int = 9, there: bool = True) -> Job:
    """Returns a job over prepared rows; `there`: their record is."""
    place = Place(str(directory / "s1" / "1"))
    if there:
        (directory / "s1" / "1").mkdir(parents=True)
        Prepared(rows, (InstanceShard("a", rows, 10),), ()).write(place)
    results = directory / "results"
    results.mkdir()
    return Job(NAME, state, inputs=(place.instances.pattern,), stats=stats, output_directory=str(results))


@pytest.mark.parametrize(
    "state,stats,there,wanted",
    [
        (State.QUEUED, NO_STATS, True, Standing.RUNS),
        (State.PAUSED, NO_STATS, True, Standing.RUNS),
        (State.CANCELLING, NO_STATS, True, Standing.RUNS),
        (State.RUNNING, NO_STATS, False, Standing.RUNS),
        (State.SUCCEEDED, Stats(9, 0, 0), True, Standing.ANSWERED),
        (State.PARTIALLY_SUCCEEDED, Stats(5, 0, 4), True, Standing.ANSWERED),
        (State.SUCCEEDED, Stats(9, 0, 0), False, Standing.USED),
        (State.FAILED, REFUSED, False, Standing.USED),
        (State.FAILED, REFUSED, True, Standing.REFUSED),
        (State.FAILED, NO_STATS, True, Standing.VOID),
        (State.EXPIRED, REFUSED, True, Standing.VOID),
        (State.CANCELLED, REFUSED, True, Standing.VOID),
    ],
)
def test_a_job(tmp_path: Path, state: State, stats: Stats, there: bool, wanted: Standing) -> None:
    job = job_of(tmp_path, state, stats, there=there)
    assert standing(job) is wanted
    kept = wanted in (Standing.ANSWERED, Standing.REFUSED)
    assert (is_first_kept(job), is_second_kept(job)) == (kept, kept)


@pytest.mark.parametrize("state", [State.FAILED, State.SUCCEEDED])
@pytest.mark.parametrize(
    ("answered", "missing", "kept"), [(0, FEW_ROWS + 1, False), (0, FEW_ROWS, True), (1, FEW_ROWS + 1, True)]
)
def test_a_job_that_answered_none_of_many_rows_is_gone_on_with_once(
    tmp_path: Path, state: State, answered: int, missing: int, kept: bool
) -> None:
    """Until its answers have been looked through. A command that took it again would find the same for ever."""
    job = job_of(tmp_path, state, REFUSED, rows=answered + missing)
    assert is_first_kept(job)
    Answers(answered, missing, "found-1").write(place_of(job), job.short_name)
    assert (is_first_kept(job), is_second_kept(job)) == (kept, True)


def test_the_files_of_errors_tell_that_rows_were_tried_and_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tmp_path, State.FAILED)
    (tmp_path / "results" / "prediction.errors_stats-00000-of-00001").write_text('("the model refuses a row", 9)\n')
    assert standing(job) is Standing.REFUSED
    monkeypatch.setattr(standing_module, "error_reasons", lambda directory: pytest.fail("read again"))
    assert (reasons(job), standing(job)) == (("the model refuses a row",), Standing.REFUSED)
