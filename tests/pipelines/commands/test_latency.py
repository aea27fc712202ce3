"""`sluice latency`: what is made of predictions that come back."""

import dataclasses
import json
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.errors import UsageError
from sluice.pipelines import cli
from sluice.pipelines.commands.latency_run import read
from sluice.pipelines.options.stream_tools import LatencyOptions
from sluice.pipelines.progress.latency_report import Tally, begin_us, quantiles_ms, render
from sluice.transforms.pubsub.subscription import Received, SubscriptionLost
from tests.support.fakes import PATIENCE_SECS
from tests.support.servers import Pubsub

START_US = 1_700_000_000_000_000


def received(number: int, after_us: int = 0, latency_us: int = 1000, **attributes: str) -> Received:
    """Message `number`, published so long after START_US, of a row sent so long before that."""
    time_us = START_US + after_us
    return Received(f"ack{number}", b"{}", f"m{number}", time_us, {"sent": str(time_us - latency_us)} | attributes)


@given(st.lists(st.integers(-(10**6), 10**9), min_size=1, max_size=300))
def test_quantiles_are_values_by_their_rank(values: list[int]) -> None:
    found = quantiles_ms(np.array(values, np.int64))
    ranked = sorted(values)
    for name, share in {"p50": 50, "p95": 95, "p99": 99, "max": 100}.items():
        place = -(-share * len(values) // 100) - 1
        assert found[name] == ranked[place] / 1000
    assert found["min"] == ranked[0] / 1000


def test_no_values_have_no_quantiles() -> None:
    assert quantiles_ms(np.array([], np.int64)) == dict.fromkeys(("p50", "p95", "p99", "max", "min"))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"sent": "1700000000000001", "sluice_publish_time": "2020-01-01T00:00:00Z"}, 1_700_000_000_000_001),
        ({"sluice_publish_time": "2023-11-14T22:13:20.000001Z"}, 1_700_000_000_000_001),
        ({"sent": "yesterday", "sluice_publish_time": "2023-11-14T22:13:20Z"}, START_US),
        ({"sent": "yesterday"}, None),
        ({}, None),
    ],
)
def test_a_row_begins_when_it_was_sent_or_published(attributes: dict[str, str], expected: int | None) -> None:
    assert begin_us(attributes) == expected


def test_messages_are_counted_by_row_and_by_delivery() -> None:
    tally = Tally()
    tally.add(
        [received(1, 0, 1000, id="a", sluice_version="3"), received(2, 500_000, 2000, id="b", sluice_version="3")]
    )
    tally.add([received(3, 1_000_000, 9000, id="a", sluice_version="4")])  # predicted twice
    tally.add([received(2, 500_000, 2000, id="b", sluice_version="3")])  # delivered twice
    tally.add([Received("x", b"", "m9", START_US + 2_000_000, {"sluice_message_id": "c"})])
    assert dataclasses.asdict(tally.report()) == {
        "messages": 4,
        "distinct_ids": 3,
        "duplicates": 1,
        "redelivered": 1,
        "seconds": 2.0,
        "messages_per_second": 1.5,
        "latency_ms": {"p50": 2.0, "p95": 9.0, "p99": 9.0, "max": 9.0, "min": 1.0},
        "without_time": 1,
        "versions": {"": 1, "3": 2, "4": 1},
    }
    assert render(tally.report()).splitlines() == [
        "messages        4",
        "distinct ids    3",
        "duplicates      1",
        "redelivered     1",
        "messages/s      1.5  over 2.0 s",
        "latency p50     2.0 ms",
        "latency p95     9.0 ms",
        "latency p99     9.0 ms",
        "latency max     9.0 ms",
        "latency min     1.0 ms",
        "without a time  1",
        "version (none)  1",
        "version 3       2",
        "version 4       1",
    ]


def test_nothing_is_a_report_too() -> None:
    report = Tally().report()
    assert (report.messages, report.seconds, report.messages_per_second, report.versions) == (0, 0, None, {})
    assert "latency p99   -" in render(report)


def test_a_message_without_a_row_id_is_its_own() -> None:
    tally = Tally()
    tally.add([Received("x", b"", name, START_US, {}) for name in ("m1", "m2", "m1")])
    assert (tally.distinct_ids, tally.report().redelivered) == (2, 1)


class Fake:
    """A subscription whose pulls give what they are told to, and then wait to be interrupted."""

    name = "fake"

    def __init__(self, *answers: Any) -> None:
        self.acknowledged: list[str] = []
        self._answers = iter(answers)
        self._interrupted = threading.Event()
        self._lock = threading.Lock()

    def pull(self, max_messages: int) -> list[Received]:
        with self._lock:
            answer = next(self._answers, None)
        if answer is None:
            assert self._interrupted.wait(PATIENCE_SECS)
            return []
        if isinstance(answer, Exception):
            raise answer
        return answer

    def acknowledge(self, ack_ids: list[str]) -> None:
        self.acknowledged += ack_ids

    def interrupt(self) -> None:
        self._interrupted.set()


def options(**given: Any) -> LatencyOptions:
    return LatencyOptions(subscription="projects/p/subscriptions/s", **given)


def test_it_ends_when_enough_rows_have_come() -> None:
    fake, tally = Fake([received(1, id="a"), received(2, id="a")], [], [received(3, id="b")]), Tally()
    read(fake, tally, options(count=2))
    assert (tally.distinct_ids, tally.report().messages) == (2, 3)
    assert sorted(fake.acknowledged) == ["ack1", "ack2", "ack3"]


def test_it_ends_when_the_time_is_over() -> None:
    ticks = iter(range(10**6))
    tally = Tally()
    read(Fake([received(1)]), tally, options(count=5, seconds=3), clock=lambda: float(next(ticks)))
    assert tally.distinct_ids == 1


def test_an_outage_is_waited_out() -> None:
    tally = Tally()
    read(Fake(grpc.RpcError("away"), [received(1)]), tally, options(count=1))
    assert tally.distinct_ids == 1


def test_a_subscription_that_is_lost_ends_it() -> None:
    with pytest.raises(UsageError, match="it is gone"):
        read(Fake(SubscriptionLost("it is gone")), Tally(), options(count=1))


@pytest.mark.parametrize("given", [{"count": -1}, {"seconds": -1.0}, {"seconds": float("nan")}])
def test_options_are_checked(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="number, 0 or more"):
        options(**given)


def test_the_command_reads_predictions(pubsub: Pubsub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    topic = pubsub.make_topic()
    subscription = pubsub.make_subscription(topic)
    began = time.time()
    now_us = round(began * 1e6)
    rows = [{"id": str(n // 2), "sent": str(now_us - 1_000_000), "sluice_version": "7"} for n in range(3000)]
    pubsub.publish(topic, [b"{}"] * 3000, rows)
    path = tmp_path / "figures.json"
    command = ["latency", "--subscription", subscription, "--count", "1500", "--seconds", "120", "--json", str(path)]
    assert cli.main(command) == 0
    figures = json.loads(path.read_text())
    assert figures["subscription"] == subscription
    assert (figures["distinct_ids"], figures["versions"].keys()) == (1500, {"7"})
    assert figures["duplicates"] == figures["messages"] - 1500
    took_ms = 1000 * (time.time() - began)
    assert 999 <= figures["latency_ms"]["min"] <= figures["latency_ms"]["p50"] <= 1001 + took_ms
    printed = capsys.readouterr().out
    assert "distinct ids  1,500\n" in printed
    assert f"latency p99   {figures['latency_ms']['p99']:,.1f} ms" in printed
    assert pubsub.pull_all(subscription, 1, secs=0.5) == [] or figures["messages"] < 3000


def test_too_few_are_exit_code_1_in_time(pubsub: Pubsub, capsys: pytest.CaptureFixture[str]) -> None:
    topic = pubsub.make_topic()
    subscription = pubsub.make_subscription(topic)
    pubsub.publish(topic, [b"{}"])
    assert cli.main(["latency", "--subscription", subscription, "--count", "2", "--seconds", "1"]) == 1
    assert "1 of 2 predictions came" in capsys.readouterr().err


def test_a_subscription_that_is_not_there_is_exit_code_2(pubsub: Pubsub, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["latency", "--subscription", pubsub.subscription("none-here"), "--seconds", "5"]) == 2
    assert "none-here does not exist" in capsys.readouterr().err


def test_what_simulate_sends_is_read_back(pubsub: Pubsub, tmp_path: Path) -> None:
    topic = pubsub.make_topic()
    subscription = pubsub.make_subscription(topic)
    began = time.time()
    assert cli.main(["simulate", "--topic", topic, "--rows", "500", "--rate", "0"]) == 0
    path = tmp_path / "figures.json"
    assert (
        cli.main(["latency", "--subscription", subscription, "--count", "500", "--seconds", "120", "--json", str(path)])
        == 0
    )
    figures = json.loads(path.read_text())
    assert (figures["messages"], figures["duplicates"], figures["without_time"]) == (500, 0, 0)
    took_ms = 1000 * (time.time() - began)
    assert 0 <= figures["latency_ms"]["min"] <= figures["latency_ms"]["max"] <= took_ms
