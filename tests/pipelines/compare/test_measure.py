"""The course of a comparison, on ways whose natures are known."""

import pytest

from sluice.pipelines.compare.budget import Budget
from sluice.pipelines.compare.found import Found
from sluice.pipelines.compare.measure import Comparison, Wanted
from sluice.pipelines.compare.spread import ranked
from sluice.pipelines.compare.subject import Point
from sluice.pipelines.compare.sweep import highest_rate
from sluice.pipelines.compare.ways import GRPC, REST, VERTEX_JOB, WORKER, Way, find_ways
from tests.support.fake_bench import Clock, FakeBench, Nature

NATURES = {
    WORKER: Nature(),
    GRPC: Nature(row_us=225.0, call_us=2000.0, server_share=0.6),
    REST: Nature(row_us=500.0, server_share=0.6),
}
WAYS = find_ways("model", ())
ALL = Wanted()


def compared(
    minutes: float, wanted: Wanted = ALL, ways: list[Way] = WAYS, **bench: object
) -> tuple[list[Found], Clock]:
    clock = Clock()
    natures = bench.pop("natures", NATURES)
    fake = FakeBench(clock, natures, **bench)  # type: ignore[arg-type]
    comparison = Comparison(fake, ways, Budget(minutes, clock), wanted)
    comparison.run()
    return comparison.found, clock


@pytest.mark.parametrize(
    ("kinds", "minutes"),
    [((WORKER,), 1.0), *(((WORKER, *others), minutes) for others in ((), (GRPC, REST)) for minutes in (2.0, 10.0))],
)
@pytest.mark.parametrize("streams", [True, False])
def test_the_minutes_are_kept_within_a_tenth(minutes: float, streams: bool, kinds: tuple[str, ...]) -> None:
    ways = [way for way in WAYS if way.kind in kinds]
    found, clock = compared(minutes, Wanted(streams=streams), ways)
    assert 0.85 * 60 * minutes <= clock.now - 1000 <= 1.1 * 60 * minutes
    for each in found:
        assert len(each.jobs) >= (3 if minutes == 10 else 1), each.way
        assert not streams or minutes < 2 or len(each.streams) >= 6


def test_managed_jobs_run_once_after_all_else_whatever_they_take() -> None:
    clock = Clock()
    natures = NATURES | {VERTEX_JOB: Nature(start_secs=900.0)}
    bench = FakeBench(clock, natures)
    ways = find_ways("m", ("vertex://projects/p/locations/l/models/m",), managed=True)
    comparison = Comparison(bench, ways, Budget(2.0, clock), Wanted(streams=False))
    comparison.run()
    assert [kind for _, kind in bench.asked[-2:]] == [VERTEX_JOB] * 2
    (managed,), (worker, *_) = comparison.managed, comparison.found
    assert [each.rows for each in managed.starts] == [1] and len(managed.jobs) == 1
    assert managed.jobs[0].rows == worker.jobs[0].rows
    assert all(each.way.kind != VERTEX_JOB and each.jobs for each in comparison.found)


def test_a_managed_job_that_fails_takes_nothing_else_with_it() -> None:
    clock = Clock()
    bench = FakeBench(clock, NATURES | {VERTEX_JOB: Nature()}, broken={VERTEX_JOB: "no right to do that"})
    ways = find_ways("m", ("vertex://projects/p/locations/l/models/m",), managed=True)
    comparison = Comparison(bench, ways, Budget(2.0, clock), Wanted(streams=False))
    comparison.run()
    assert comparison.managed[0].failed == "no right to do that" and comparison.found[0].jobs


def test_slow_processes_do_not_break_the_time_either() -> None:
    """Jobs start in 20 s, and a row takes thirty times as long as its model kept busy."""
    natures = {kind: Nature(start_secs=20.0, job_us=3000.0) for kind in NATURES}
    _, clock = compared(5.0, natures=natures)
    assert clock.now - 1000 <= 1.1 * 300


def test_what_is_measured_is_the_nature_of_the_ways() -> None:
    found, _ = compared(10.0)
    worker, grpc, rest = found
    groups = ranked({each.way.kind: each.rate for each in found if each.rate})
    assert groups == [[WORKER], [GRPC], [REST]]
    assert worker.cpu_us is not None and worker.server_cpu_us is None
    assert grpc.server_cpu_us is not None and grpc.cpu_us is not None
    assert grpc.server_cpu_us.median / grpc.cpu_us.median == pytest.approx(1.5, rel=0.1)
    assert worker.start_secs is not None and worker.start_secs.median == pytest.approx(3.0, rel=0.05)
    assert rest.server_mb == 700.0 and worker.server_mb is None
    assert set(worker.stages) == {"read", "bind", "call", "encode", "write"}


def test_ways_take_turns_and_change_their_order() -> None:
    clock = Clock()
    fake = FakeBench(clock, NATURES)
    Comparison(fake, WAYS, Budget(10.0, clock), Wanted(streams=False)).run()
    jobs = [kind for what, kind in fake.asked if what == "job"][:12]
    assert jobs == [WORKER] * 2 + [GRPC] * 2 + [REST] * 4 + [GRPC] * 2 + [WORKER] * 2


def test_a_model_that_costs_by_the_call_gets_larger_batches() -> None:
    slow = {**NATURES, GRPC: Nature(call_us=5000.0, row_us=50.0, server_share=0.6)}
    base, _ = compared(10.0)
    found, _ = compared(10.0, natures=slow)
    assert found[1].best.batch > 512 >= base[1].best.batch
    alone = [stream for stream in found[1].streams if not stream.load.mini_batches]
    together = [stream for stream in found[1].streams if stream.load.mini_batches]
    one, many = highest_rate(alone), highest_rate(together)
    assert one is not None and many is not None
    assert one.load.rate < 200 < many.load.rate, "5 ms a call are 200 calls a second"


def test_what_the_user_has_set_is_not_searched_for() -> None:
    found, _ = compared(5.0, Wanted(fixed=Point(64, 4)))
    assert all(each.best == Point(64, 4) and set(each.searched) == {Point(64, 4)} for each in found)


@pytest.mark.parametrize("after", [1, 3, 12, 40, 60])
def test_interrupted_it_keeps_what_it_has(after: int) -> None:
    clock = Clock()
    fake = FakeBench(clock, NATURES, interrupt_after=after)
    comparison = Comparison(fake, WAYS, Budget(10.0, clock), Wanted())
    with pytest.raises(KeyboardInterrupt):
        comparison.run()
    whole = sum(len(each.searched) for each in comparison.found)
    assert all(len(each.jobs) == len(each.starts) for each in comparison.found)
    assert sum(each.loaded is not None for each in comparison.found) == min(3, after - 1)
    assert whole >= (1 if after > 6 else 0)


def test_a_way_that_fails_is_left_out_and_says_why() -> None:
    found, clock = compared(5.0, broken={REST: "no connection"})
    worker, grpc, rest = found
    assert rest.failed == "no connection" and not rest.jobs
    assert worker.jobs and grpc.jobs and not worker.failed + grpc.failed
    assert clock.now - 1000 <= 330


def test_the_input_of_a_job_stays_within_its_bytes() -> None:
    clock = Clock()
    fake = FakeBench(clock, NATURES)
    wanted = Wanted(streams=False, sample_bytes=400_000, max_bytes=1_000_000)
    comparison = Comparison(fake, WAYS, Budget(10.0, clock), wanted)
    comparison.run()
    assert max(job.rows for each in comparison.found for job in each.jobs) == 20_000
