"""Which rows tell whether most rows fail."""

import pytest

from sluice.pipelines.progress.recent_rows import RecentRows
from sluice.pipelines.progress.stream_stats import StreamStats
from tests.support.fakes import FakeClock
from tests.support.pubsub.fakes_stream import received


def after(*steps: tuple[int, dict[str, int]]) -> tuple[int, int]:
    """What is known after looks, each so many seconds after the one before, when so many rows more had an outcome."""
    rows, second, tally = RecentRows(100), 100, dict[str, int]()
    for secs, more in steps:
        second += secs
        tally = {name: tally.get(name, 0) + more.get(name, 0) for name in {*tally, *more}}
        rows.look(second, tally)
    return rows.counts


def some(good: int, failed: int) -> dict[str, int]:
    return {"rows_predicted": good, "rows_failed": failed, "rows_failed/predict/BadInput": failed}


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        ([], (0, 0)),
        ([(1, some(100, 3))], (103, 3)),
        ([(0, some(100, 3))], (103, 3)),
        ([(1, some(1000, 0)), (100, some(0, 50))], (50, 50)),  # what is older than a minute does not count
        ([(1, some(1000, 0)), (30, some(0, 50))], (1050, 50)),
        ([(1, some(15, 0)), (100, some(0, 5)), (100, some(0, 5))], (25, 10)),  # but 20 rows do, however old they are
        ([(1, some(15, 0)), (100, some(0, 15)), (100, some(0, 10))], (25, 25)),
        ([(1, some(100, 50)), (1, {}), (1000, {})], (150, 50)),  # nothing has come since
    ],
)
def test_rows_of_late(steps: list[tuple[int, dict[str, int]]], wanted: tuple[int, int]) -> None:
    assert after(*steps) == wanted


@pytest.mark.parametrize("stage", ["encode", "write"])
def test_rows_that_an_output_refuses_have_failed_though_they_were_predicted(stage: str) -> None:
    tally = {"rows_predicted": 100, "rows_failed": 100, f"rows_failed/{stage}/InvalidRow": 100}
    assert after((1, tally)) == (100, 100)
    assert after((1, tally | {"rows_failed": 300, f"rows_failed/{stage}/InvalidRow": 300})) == (300, 300)


def test_looks_of_long_ago_are_forgotten() -> None:
    rows = RecentRows(0)
    for second in range(1000):
        rows.look(second, some(30 * second, 0))
    assert len(rows._looks) <= 62


def test_a_look_a_second_is_taken_though_nobody_asks_for_figures() -> None:
    clock, tally = FakeClock(), dict[str, int]()
    asked: list[float] = []

    def read() -> dict[str, int]:
        asked.append(clock())
        return tally

    stats = StreamStats(read, dict, clock, lambda: 0.0)
    for _ in range(40):
        clock.advance(0.25)
        stats.note([received(1)])
    assert asked == list(range(1, 11))


def test_looks_at_which_nothing_has_come_are_not_kept() -> None:
    rows = RecentRows(0)
    for second in range(1000):
        rows.look(second, some(5, 1))
    assert len(rows._looks) <= 2
    assert rows.counts == (6, 1)
