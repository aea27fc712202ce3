"""Where the values of rows are private, no log line of a model's calls quotes what the model or its server says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sluice.models.batching.ceiling import Ceiling
from sluice.models.batching.invoke import Invoker
from sluice.models.batching.options import SchedulerOptions
from sluice.models.batching.retry import Retry
from sluice.models.batching.watchdog import Watchdog
from sluice.models.errors import BatchTooLarge, MessageTooLarge, ModelHangs, TimedOut, Unavailable
from sluice.models.interface import Outputs
from sluice.models.tensors.binding import Feeds
from sluice.models.wording import message
from tests.support.fakes import FakeClock, FakeModel, longest_backoffs, x_feeds

SECRET = "Zq7Jane0Doe"


def wait_for_a_server(private: bool) -> None:
    clock = FakeClock()
    errors = iter([Unavailable(f"no {SECRET}")] * 9)

    def attempt() -> Outputs:
        for error in errors:
            raise error
        return Outputs({})

    Retry(SchedulerOptions(private=private), clock, clock.advance, longest_backoffs).run(attempt, 1)


def cut_calls(private: bool) -> None:
    for error in (BatchTooLarge(f"{SECRET} is too much"), MessageTooLarge(SECRET)):
        Ceiling(64, 1 << 20, private).lower(error, x_feeds(1))


class Slow(FakeModel):
    """TensorFlow ends its calls at the deadline."""

    first_answered: Feeds | None = None

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(self._slow)
        self._clock = clock

    def _slow(self, feeds: Feeds) -> Outputs:
        self._clock.advance(300)
        raise TimedOut(f"DEADLINE_EXCEEDED: {SECRET}")

    def renew(self) -> None:
        """Has nothing to load."""

    def abandon(self) -> None:
        """Has nothing that hangs."""


def call_twice(private: bool) -> None:
    clock = FakeClock()
    watchdog: Watchdog[Outputs] = Watchdog()
    with pytest.raises(ModelHangs):
        Invoker(Slow(clock), 600.0, clock, private)(x_feeds(1), watchdog)
    watchdog.close()


@pytest.mark.parametrize("work", [wait_for_a_server, cut_calls, call_twice])
def test_a_log_line_tells_the_kind_of_an_error_and_no_row(
    work: Callable[[bool], None], caplog: pytest.LogCaptureFixture
) -> None:
    work(False)
    assert caplog.messages and SECRET in caplog.text
    caplog.clear()
    work(True)
    assert caplog.messages and SECRET not in caplog.text
    assert all("withheld" in text for text in caplog.messages if not text.startswith("The model answers again"))


def test_what_is_public_of_an_error_is_told(caplog: pytest.LogCaptureFixture) -> None:
    error = BatchTooLarge(message("{address}: {}", SECRET, address="models:8500"))
    Ceiling(64, 1 << 20, private=True).lower(error, x_feeds(1))
    assert caplog.messages == ["Calls are cut to 1 rows: BatchTooLarge: models:8500: [withheld]"]
