"""The scheduler with a faulty server: outages, refusals, hangs, and which requests fail."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from sluice.models.batching import budget
from sluice.models.batching.options import SchedulerOptions
from sluice.models.batching.scheduler import Scheduler
from sluice.models.batching.tickets import Prediction, Ticket
from sluice.models.errors import (
    BatchTooLarge,
    Cancelled,
    MessageTooLarge,
    OutOfMemory,
    Overloaded,
    Refused,
    ServerFault,
    SignatureChanged,
    TimedOut,
    Unavailable,
)
from sluice.models.interface import Outputs
from sluice.models.signature import Signature, TensorSpec
from sluice.models.tensors.binding import Feeds
from tests.support.fakes import PATIENCE_SECS, FakeModel, double, x_feeds
from tests.support.scheduling import outcome, scheduling, values


class Scripted:
    """Raises the errors of the script, one for each call (None: answers); then answers."""

    def __init__(self, *script: Exception | None) -> None:
        self._script = list(script)
        self._lock = threading.Lock()

    def __call__(self, feeds: Feeds) -> Outputs:
        with self._lock:
            error = self._script.pop(0) if self._script else None
        if error is not None:
            raise error
        return double(feeds)


def remote(answer: Callable[[Feeds], Outputs], gated: bool = False) -> FakeModel:
    model = FakeModel(answer, gated=gated)
    model.remote = True
    return model


def no_sleep(secs: float) -> None:
    """Returns at once."""


@pytest.mark.parametrize(
    "script",
    [
        [Unavailable("x")],
        [Overloaded("x"), Unavailable("x"), Overloaded("x")],
        [ServerFault("x"), TimedOut("x"), ServerFault("x")],
        [BatchTooLarge("x"), Unavailable("x"), Unavailable("x")],
        [OutOfMemory("x"), None, OutOfMemory("x"), None, OutOfMemory("x"), OutOfMemory("x")],
        [TimedOut("x"), TimedOut("x"), None, ServerFault("x")],
    ],
)
def test_a_passing_failure_is_not_seen(script: Sequence[Exception]) -> None:
    model = remote(Scripted(*script))
    scheduler = Scheduler(model, SchedulerOptions(), sleep=no_sleep)
    prediction = outcome(scheduler.submit(x_feeds(1, 2, 3)))
    assert prediction.arrays["y"].tolist() == [2, 4, 6] and not prediction.failures
    asked = 1 if None in script[:4] and isinstance(script[0], OutOfMemory) else 0  # of a row that has passed before
    assert sum(1 + call.repeats for call in prediction.calls) + asked == len(model.calls)
    scheduler.close()


@pytest.mark.parametrize("error", [Unavailable("away"), Refused("who are you"), TimedOut("slow"), Overloaded("no")])
def test_rows_are_not_blamed_for_an_outage_unless_asked(error: Exception) -> None:
    options: dict[str, Any] = {"max_retries": 1, "max_retry_secs": 0.0}
    broken = scheduling(remote(Scripted(*[error] * 9)), sleep=no_sleep, **options)
    with broken as scheduler, pytest.raises(type(error), match=str(error)):
        outcome(scheduler.submit(x_feeds(1, 2)))
    dead_letter = {"on_unavailable": "dead_letter", **options}
    with scheduling(remote(Scripted(*[error] * 2)), sleep=no_sleep, **dead_letter) as scheduler:
        prediction = outcome(scheduler.submit(x_feeds(1, 2)))
        while prediction.failures.keys() == {0, 1}:  # one or two attempts fail, and then the script is at its end
            assert {failure.type for failure in prediction.failures.values()} == {type(error).__name__}
            prediction = outcome(scheduler.submit(x_feeds(1, 2)))
        assert prediction.arrays["y"].tolist() == [2, 4]


def test_an_outage_in_one_half_fails_the_whole_request() -> None:
    model = remote(Scripted(BatchTooLarge("x"), None, SignatureChanged("another model")))
    with scheduling(model) as scheduler, pytest.raises(SignatureChanged, match="another model"):
        outcome(scheduler.submit(x_feeds(1, 2)))


def test_a_row_that_breaks_the_server_fails_alone() -> None:
    def answer(feeds: Feeds) -> Outputs:
        if 3 in feeds["x"]:
            raise ServerFault("segmentation fault")
        return double(feeds)

    with scheduling(remote(answer), sleep=no_sleep, max_retries=1) as scheduler:
        prediction = outcome(scheduler.submit(x_feeds(1, 2, 3, 4)))
    assert prediction.failures.keys() == {2}
    assert "segmentation fault; gave up after 2 attempts" in prediction.failures[2].message


def test_a_call_that_hangs_past_its_deadline_is_given_up() -> None:
    let_go = threading.Event()
    hung = iter([True])

    def answer(feeds: Feeds) -> Outputs:
        if next(hung, False):
            let_go.wait(PATIENCE_SECS)
        return double(feeds)

    # On a busy machine the limit may pass for calls that do not hang, too; they are repeated until they are answered.
    patient = {"max_retries": 1_000_000, "max_retry_secs": PATIENCE_SECS}
    with scheduling(remote(answer), sleep=no_sleep, call_timeout_secs=0.05, **patient) as scheduler:
        assert values(scheduler.submit(x_feeds(4))) == [8]
        assert outcome(scheduler.submit(x_feeds(5))).arrays["y"].tolist() == [10]
    let_go.set()


def test_closing_does_not_wait_for_a_server_that_is_away() -> None:
    model = remote(Scripted(*[Unavailable("away")] * 1000))
    scheduler = Scheduler(model, SchedulerOptions(max_retry_secs=1e9), backoffs=lambda: itertools.repeat(10.0))
    ticket = scheduler.submit(x_feeds(1))
    while not scheduler.throttled_secs:
        model.await_call()
    scheduler.close()
    with pytest.raises(Cancelled):
        ticket.future.result(PATIENCE_SECS)


def test_a_server_gets_one_call_at_first_and_more_while_it_bears_them() -> None:
    model = remote(double, gated=True)
    with scheduling(model, max_batch_size=1, max_in_flight=8) as scheduler:
        assert scheduler.in_flight_limit == 1
        ticket = scheduler.submit(x_feeds(*range(400)))
        model.let_go(400)
        assert values(ticket) == [2 * x for x in range(400)]
        assert 1 < scheduler.in_flight_limit <= 8
    assert model.most_at_a_time <= 8


def test_sizes_that_are_left_open_are_those_of_the_backend() -> None:
    with scheduling(FakeModel()) as local, scheduling(remote(double)) as served:
        assert (local.options.max_batch_size, local.options.max_in_flight) == (4096, 1)
        assert (served.options.max_batch_size, served.options.max_in_flight) == (512, 32)
        assert served.options.adapt_in_flight and not local.options.adapt_in_flight


def test_throttled_time_is_reported_while_calls_wait() -> None:
    model = remote(Scripted(Unavailable("away")))
    held, waits = threading.Event(), threading.Event()

    def sleep(secs: float) -> None:
        waits.set()
        held.wait(PATIENCE_SECS)

    with scheduling(model, sleep=sleep) as scheduler:
        ticket = scheduler.submit(x_feeds(1))
        assert waits.wait(PATIENCE_SECS)
        first = scheduler.throttled_secs
        assert scheduler.throttled_secs > first
        held.set()
        prediction: Prediction = outcome(ticket)
        assert prediction.calls[0].repeats == 1
        in_all = scheduler.throttled_secs
        values(scheduler.submit(x_feeds(2)))
        assert scheduler.throttled_secs == in_all


@pytest.mark.parametrize("rows", [1, 2, 512])
def test_a_server_that_breaks_on_everything_fails_the_job_and_not_the_rows(rows: int) -> None:
    def answer(feeds: Feeds) -> Outputs:
        raise ServerFault("no GPU")

    model = remote(answer)
    with scheduling(model, sleep=no_sleep) as scheduler, pytest.raises(Unavailable, match=r"no GPU.*whatever the rows"):
        outcome(scheduler.submit(x_feeds(*range(rows))))
    assert len(model.calls) <= 4 + 8 + 2 * 4 + 16  # the whole call, its parts, two single rows, and others
    with scheduling(remote(answer), sleep=no_sleep, on_unavailable="dead_letter") as scheduler:
        failures = outcome(scheduler.submit(x_feeds(*range(rows)))).failures
        assert {failure.type for failure in failures.values()} == {"ServerFault"} and len(failures) == rows


def test_rows_that_break_a_server_that_answers_others_are_at_fault() -> None:
    def answer(feeds: Feeds) -> Outputs:
        if (feeds["x"] < 0).any():
            raise ServerFault("segmentation fault")
        return double(feeds)

    with scheduling(remote(answer), sleep=no_sleep, max_retries=0) as scheduler:
        assert values(scheduler.submit(x_feeds(1))) == [2]
        assert outcome(scheduler.submit(x_feeds(-1))).failures.keys() == {0}
        assert outcome(scheduler.submit(x_feeds(-1, 1, -2))).failures.keys() == {0, 2}


def sized(max_bytes: int) -> Callable[[Feeds], Outputs]:
    """Returns a server that accepts this many bytes of strings a call."""

    def answer(feeds: Feeds) -> Outputs:
        if sum(map(len, feeds["s"].tolist())) > max_bytes:
            raise MessageTooLarge("Received message larger than max")
        return Outputs({"n": np.array([len(value) for value in feeds["s"].tolist()])})

    return answer


TEXT = Signature("s", "", (TensorSpec("s", "string", (None,)),), (TensorSpec("n", "int64", (None,)),))


def texts(*lengths: int) -> Feeds:
    return {"s": np.array([b"x" * length for length in lengths], object)}


def test_large_rows_side_by_side_do_not_make_all_later_calls_small() -> None:
    model = FakeModel(sized(4000), TEXT)
    model.remote = True
    with scheduling(model) as scheduler:
        lengths = [2, *[2500, 2500], *[3] * 200]
        assert outcome(scheduler.submit(texts(*lengths))).arrays["n"].tolist() == lengths
        assert scheduler.ceiling == 512
        before = len(model.calls)
        assert outcome(scheduler.submit(texts(*[3] * 500))).arrays["n"].tolist() == [3] * 500
        assert len(model.calls) - before <= 20


def test_what_was_too_much_once_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    most = [4]

    def answer(feeds: Feeds) -> Outputs:
        if len(feeds["x"]) > most[0]:
            raise OutOfMemory("OOM when allocating")
        return double(feeds)

    with scheduling(remote(answer), max_batch_size=64, max_in_flight=1) as scheduler:
        values(scheduler.submit(x_feeds(*range(64))))
        assert scheduler.ceiling == 4
        assert caplog.messages == [f"Calls are cut to {rows} rows: OOM when allocating" for rows in (4,)]
        most[0] = 1000
        values(scheduler.submit(x_feeds(*range(400))))
        assert scheduler.ceiling == 8
        for _ in range(4):
            values(scheduler.submit(x_feeds(*range(64 * 200))))
        assert scheduler.ceiling == 64


def test_a_server_that_is_too_slow_for_large_calls_gets_smaller_ones() -> None:
    def answer(feeds: Feeds) -> Outputs:
        if len(feeds["x"]) > 100:
            raise TimedOut("no answer")
        return double(feeds)

    model = remote(answer)
    with scheduling(model, sleep=no_sleep) as scheduler:
        assert values(scheduler.submit(x_feeds(*range(512)))) == [2 * x for x in range(512)]
        assert 50 < scheduler.ceiling <= 100


def test_a_row_is_not_failed_for_the_padding_around_it() -> None:
    def answer(feeds: Feeds) -> Outputs:
        if len(feeds["x"]) > 20:
            raise BatchTooLarge("too many rows")
        return double(feeds)

    model = remote(answer)
    with scheduling(model, allowed_batch_sizes=(8, 50)) as scheduler:
        assert values(scheduler.submit(x_feeds(*range(9)))) == [2 * x for x in range(9)]
    with scheduling(model := remote(answer), allowed_batch_sizes=(50,)) as scheduler:
        assert values(scheduler.submit(x_feeds(7))) == [14]
    assert model.call_rows == [50, 1]


def test_small_requests_do_not_overtake_a_large_one_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_ON_WAIT_SECS", 0.05)
    model = FakeModel(gated=True)
    with scheduling(model, max_pending_bytes=1000) as scheduler:
        scheduler.submit(x_feeds(*range(100)))
        model.await_call()
        told = threading.Semaphore(0)
        tickets: list[Ticket] = []

        def submit(value: int, rows: int) -> None:
            tickets.append(scheduler.submit(x_feeds(*[value] * rows), told.release))

        threads = [threading.Thread(target=submit, args=(7, 120))]
        threads[0].start()
        assert told.acquire(timeout=PATIENCE_SECS), "who waits is told so"
        threads += [threading.Thread(target=submit, args=(-n, 1)) for n in (1, 2, 3)]
        for thread in threads[1:]:
            thread.start()
            assert told.acquire(timeout=PATIENCE_SECS)
        model.let_go(1000)
        for thread in threads:
            thread.join(PATIENCE_SECS)
        for ticket in tickets:
            outcome(ticket)
    called = np.concatenate([feeds["x"] for feeds in model.calls]).tolist()
    assert called[100:220] == [7] * 120 and sorted(called[220:]) == [-3, -2, -1]


def test_what_a_model_raises_does_not_end_a_thread() -> None:
    class Odd(BaseException):
        pass

    with scheduling(remote(Scripted(Odd("odd")))) as scheduler:
        assert outcome(scheduler.submit(x_feeds(1))).failures[0].type == "Odd"
        assert values(scheduler.submit(x_feeds(2))) == [4]


def test_calls_that_wait_for_a_server_release_their_slots() -> None:
    back = threading.Event()

    def answer(feeds: Feeds) -> Outputs:
        if not back.is_set():
            raise Unavailable("away")
        return double(feeds)

    sleeping = threading.Semaphore(0)

    def sleep(secs: float) -> None:
        sleeping.release()
        back.wait(PATIENCE_SECS)

    with scheduling(remote(answer), sleep=sleep, max_batch_size=1, max_in_flight=4) as scheduler:
        ticket = scheduler.submit(x_feeds(*range(10)))
        for _ in range(4):  # although only one call may be in flight
            assert sleeping.acquire(timeout=PATIENCE_SECS)
        back.set()
        assert values(ticket) == [2 * x for x in range(10)]


def test_calls_that_wait_are_woken_when_the_model_answers_again() -> None:
    failed: set[int] = set()
    four, back = threading.Event(), threading.Event()

    def answer(feeds: Feeds) -> Outputs:
        if back.is_set():
            return double(feeds)
        failed.add(int(feeds["x"][0]))
        if len(failed) == 4:
            four.set()
        raise Unavailable("away")

    # One call is repeated all the time, and the others wait for an hour, if they are not woken.
    waits = iter([itertools.repeat(0.01)])
    options = SchedulerOptions(max_batch_size=1, max_in_flight=4, max_retry_secs=3600.0)
    scheduler = Scheduler(remote(answer), options, backoffs=lambda: next(waits, itertools.repeat(3600.0)))
    ticket = scheduler.submit(x_feeds(*range(8)))
    assert four.wait(PATIENCE_SECS)
    back.set()
    assert values(ticket) == [2 * x for x in range(8)]
    scheduler.close()


def test_a_call_that_nobody_waits_for_is_not_repeated() -> None:
    slept, go_on = threading.Event(), threading.Event()

    def answer(feeds: Feeds) -> Outputs:
        if 1 in feeds["x"]:
            raise Unavailable("away")
        return double(feeds)

    def sleep(secs: float) -> None:
        slept.set()
        go_on.wait(PATIENCE_SECS)

    model = remote(answer)
    with scheduling(model, sleep=sleep, max_in_flight=1) as scheduler:
        ticket = scheduler.submit(x_feeds(1))
        assert slept.wait(PATIENCE_SECS)
        scheduler.cancel([ticket])
        go_on.set()
        assert values(scheduler.submit(x_feeds(2))) == [4]
    assert model.call_rows.count(1) == 2 and len(model.calls) == 2


def test_rows_that_break_a_server_fail_alone_though_no_row_has_passed_before() -> None:
    """Also where the user wants rows to fail while the server is away."""

    def answer(feeds: Feeds) -> Outputs:
        if (feeds["x"] < 2).any():
            raise ServerFault("segmentation fault")
        return double(feeds)

    for policy in ("dead_letter", "fail"):
        with scheduling(remote(answer), sleep=no_sleep, max_retries=1, on_unavailable=policy) as scheduler:
            prediction = outcome(scheduler.submit(x_feeds(*range(40))))
        assert prediction.failures.keys() == {0, 1}
        assert all("gave up after 2 attempts" in failure.message for failure in prediction.failures.values())
