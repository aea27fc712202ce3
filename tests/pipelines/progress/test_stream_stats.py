"""The figures of a streaming job: of the last seconds, of the whole run, and whether it gets on."""

import dataclasses
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.pipelines.progress.stream_stats import StreamFigures, StreamStats
from sluice.transforms.pubsub.source_parts import Stats
from tests.support.fakes import FakeClock
from tests.support.pubsub.fakes_stream import FIGURES, NOTHING, FakeSource, received

# The wall clock of these tests stands still.
WALL_SECS = 1_700_000_000


class Job:
    """StreamStats between clocks that the test moves and a source that it sets."""

    def __init__(self, started: float = 0.0) -> None:
        self.clock = FakeClock()
        self.clock.advance(started)
        self.source = FakeSource()
        self.tally: dict[str, int] = {}
        self.means: dict[str, float] = {}
        self.call_secs: float | None = 0.0
        self.stats = StreamStats(
            lambda: self.tally,
            lambda: self.means,
            self.clock,
            lambda: WALL_SECS,
            call_secs=lambda: self.call_secs,
        )

    def note(self, count: int, latency_secs: float = 1.0) -> None:
        published = round((WALL_SECS - latency_secs) * 1_000_000)
        self.stats.note([received(number, publish_time=published) for number in range(count)])

    def after(self, secs: float) -> StreamFigures:
        self.clock.advance(secs)
        return self.stats.figures(self.source)


def test_a_job_that_has_done_nothing() -> None:
    assert Job(started=77.7).stats.figures(FakeSource()) == NOTHING  # type: ignore[arg-type]


def test_figures_are_gathered_from_tally_means_and_source() -> None:
    job = Job(started=1000.25)
    job.tally = {
        "rows_predicted": 90,
        "rows_failed": 7,
        "rows_failed/decode/InvalidRow": 7,
        "rpc_retries": 3,
        "cumulativeThrottlingSeconds": 2,
        "model_swaps": 4,
        "model_versions_rejected": 5,
    }
    job.means = {"batch_size": 12.5, "queue_msec": 3.0}
    job.source = FakeSource(
        Stats(pulled=500, acknowledged=97, bundles=6, bundle_secs=1.5, segments=3),
        300,
        103,
        reachable=False,
        draining=True,
        stuck_secs=1.5,
    )
    job.clock.advance(4.0)
    job.note(97)
    job.stats.note_restart()
    job.stats.note_restart()
    found = job.after(1.5)
    assert dataclasses.replace(found, latency_p50_ms=None, latency_p99_ms=None) == StreamFigures(
        seconds=5.5,
        messages=97,
        predictions=90,
        failures=7,
        messages_per_second=97 / 5.5,
        latency_p50_ms=None,
        latency_p99_ms=None,
        buffered=300,
        in_work=103,
        batch_size=12.5,
        bundles=6,
        bundle_secs=1.5,
        segments=3,
        restarts=2,
        rpc_retries=3,
        throttled_seconds=2,
        model_swaps=4,
        model_versions_rejected=5,
        reachable=False,
        draining=True,
        secs_since_progress=0.0,
        recent_rows=97,
        recent_failures=7,
    )


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 50)), max_size=40),
    st.lists(st.integers(0, 5000), min_size=1, max_size=10),
    st.integers(0, 999),
)
def test_the_rate_is_that_of_the_last_ten_seconds(notes: list[tuple[int, int]], looks: list[int], started: int) -> None:
    """Times in hundredths of a second since the start. Seconds are counted whole: the window is 10 s, or up to 11."""
    job = Job(started / 100)
    notes.sort()
    events = sorted([(time, 0, count) for time, count in notes] + [(time, 1, 0) for time in looks])
    now = 0
    for time, is_look, count in events:
        job.clock.advance((time - now) / 100)
        now = time
        if not is_look:
            job.note(count)
            continue
        figures = job.after(0)
        assert figures.messages == sum(each for when, each in notes if when <= time)
        counted_since = [sum(each for when, each in notes if time - back < when <= time) for back in (999, 1101)]
        if time <= 1000:
            assert figures.messages_per_second == pytest.approx(figures.messages / max(1, time / 100))
        else:
            assert counted_since[0] / 11 - 1e-6 <= figures.messages_per_second <= counted_since[1] / 10 + 1e-6
            assert (figures.latency_p50_ms is None) == (figures.messages_per_second == 0)


def test_a_steady_rate_is_steady() -> None:
    job = Job(started=0.5)
    rates = []
    for _ in range(400):
        job.clock.advance(0.1)
        job.note(5)
        rates.append(job.after(0).messages_per_second)
    assert rates[9:] == pytest.approx([50] * 391, rel=0.06)


def test_before_a_second_has_passed_the_rate_is_not_blown_up() -> None:
    job = Job()
    job.note(30)
    assert job.after(0.01).messages_per_second == 30


def test_latencies_of_late_and_of_the_whole_run() -> None:
    job = Job()
    job.note(98, latency_secs=0.05)
    job.note(2, latency_secs=4.0)
    first = job.after(1)
    assert (first.latency_p50_ms, first.latency_p99_ms) == pytest.approx((50, 4000), rel=0.02)
    job.clock.advance(60)
    job.note(200, latency_secs=0.4)
    later = job.after(1)
    assert (later.latency_p50_ms, later.latency_p99_ms) == pytest.approx((400, 400), rel=0.02)
    assert [job.stats.latency(share) for share in (0.1, 0.5, 0.999)] == pytest.approx([50, 400, 4000], rel=0.02)


def test_a_clock_behind_the_services_makes_no_negative_latency() -> None:
    job = Job()
    job.note(3, latency_secs=-20)
    assert job.after(0).latency_p50_ms == pytest.approx(0.1, rel=0.02)


def test_without_messages_there_is_no_latency() -> None:
    job = Job()
    assert job.stats.latency(0.5) is None
    job.note(1)
    idle = job.after(12)
    assert (idle.messages_per_second, idle.latency_p50_ms, idle.latency_p99_ms) == (0.0, None, None)
    assert job.stats.latency(0.5) == pytest.approx(1000, rel=0.02)


@pytest.mark.parametrize("secs", [0, 599.9, 600, 1e6])
@pytest.mark.parametrize("reachable", [True, False])
@pytest.mark.parametrize("draining", [True, False])
def test_alive_and_ready(secs: float, reachable: bool, draining: bool) -> None:
    figures = dataclasses.replace(FIGURES, secs_since_progress=secs, reachable=reachable, draining=draining)
    assert figures.alive == (secs < 600)
    assert figures.ready == (reachable and not draining and secs < 600)


def test_a_bundle_that_takes_long_is_no_standstill_while_its_rows_move() -> None:
    """A probe that ends the job then would end it again and again: the bundle would never be finished."""
    job = Job()
    job.source.in_work = 4000
    for minute in range(20):
        job.tally["rows_predicted"] = minute
        job.source.stuck_secs = 60.0 * (minute + 1)
        assert job.after(60).alive
    job.source.stuck_secs += 600
    assert not job.after(600).alive


@pytest.mark.parametrize(
    ("call_secs", "after"), [(0.0, 600.0), (2 * 605.0, 1810.0), (2 * 3605.0, 7810.0), (None, None)]
)
def test_a_slow_call_of_the_model_is_no_standstill(call_secs: float | None, after: float | None) -> None:
    """A supervisor would end the job in the middle of each call, and no message would ever be finished."""
    job = Job()
    job.call_secs, job.source.in_work = call_secs, 1
    job.source.stuck_secs = 1e9
    assert job.after((after or 1e6) - 1).alive
    found = job.after(1)
    assert (found.alive, found.to_json()["stuck_after_secs"]) == (after is None, after)


def test_golden_json() -> None:
    assert FIGURES.to_json() == {
        "state": "working",
        "why": "",
        "seconds": 3725.04,
        "messages": 1_234_567,
        "predictions": 1_234_500,
        "failures": 67,
        "messages_per_second": 1999.568,
        "latency_p50_ms": 48.123,
        "latency_p99_ms": 1250.6,
        "buffered": 300,
        "in_work": 4000,
        "batch_size": 512.4,
        "bundles": 999,
        "bundle_secs": 31.416,
        "segments": 2,
        "restarts": 2,
        "rpc_retries": 12,
        "throttled_seconds": 3,
        "model_swaps": 1,
        "model_versions_rejected": 4,
        "reachable": True,
        "draining": False,
        "secs_since_progress": 0.05,
        "stuck_after_secs": 600.0,
        "away": False,
        "trouble": "",
        "model_away_secs": 0.0,
        "recent_rows": 0,
        "recent_failures": 0,
        "alive": True,
        "ready": True,
    }


def test_the_keys_are_there_when_nothing_is_known() -> None:
    assert list(NOTHING.to_json()) == list(FIGURES.to_json())
    assert NOTHING.to_json()["latency_p50_ms"] is None


def test_what_is_long_ago_is_forgotten_though_nobody_looks() -> None:
    job = Job()
    for _ in range(100):
        job.clock.advance(1)
        job.note(1)
    assert len(job.stats._recent) <= 11
    assert job.after(0).messages == 100


def test_bundles_that_end_at_a_time_are_all_counted() -> None:
    job = Job()
    threads = [threading.Thread(target=lambda: [job.note(3) for _ in range(50)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (job.after(1).messages, job.after(0).messages_per_second) == (1200, 1200)
