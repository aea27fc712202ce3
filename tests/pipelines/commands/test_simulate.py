"""`sluice simulate`: rows that are published at the rate and in the number that was asked for."""

import argparse
import collections
import itertools
import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sluice.models import zoo
from sluice.models.errors import UsageError
from sluice.models.zoo.sample import write_samples
from sluice.pipelines import cli
from sluice.pipelines.commands import simulate, simulate_run
from sluice.pipelines.commands.simulate_run import Simulation, file_rows, zoo_rows
from sluice.pipelines.options.stream_tools import SimulateOptions
from tests.support.pubsub.service import TOPIC, aborts, refuses_poison, service
from tests.support.servers import Pubsub

ROWS = [[b'{"x":1}', b'{"x":2}'], [b'{"x":3}']]


class Publisher:
    """Remembers what is added, and when it was sent; each request takes so long."""

    def __init__(self, clock: "Clock", request_secs: float = 0.0, refused: Sequence[int] = ()) -> None:
        self.data: list[bytes] = []
        self.attributes: list[Any] = []
        self.sizes: list[int] = []
        self.times: list[float] = []
        self._clock, self._request_secs, self._refuse = clock, request_secs, list(refused)

    def add(self, messages: Any, tags: Sequence[int]) -> None:
        assert list(tags) == list(range(len(self.data), len(self.data) + len(messages.data)))
        self.data += messages.data
        self.attributes += messages.attributes
        self.sizes += messages.sizes.tolist()
        self.times += [self._clock.now] * len(messages.data)

    def send(self) -> None:
        self._clock.now += self._request_secs

    def refused(self) -> list[int]:
        return []

    def flush(self) -> list[int]:
        return self._refuse


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def pause(self, secs: float) -> None:
        self.now += secs


def simulated(
    chunks: Iterator[list[bytes]] | None = None, request_secs: float = 0.0, refused: Sequence[int] = (), **options: Any
) -> tuple[Simulation, Publisher]:
    clock = Clock()
    publisher = Publisher(clock, request_secs, refused)
    rows = itertools.cycle(ROWS) if chunks is None else chunks
    asked = SimulateOptions(topic=TOPIC, **options)
    simulation = Simulation(asked, publisher, rows, clock, lambda: clock.now + 1e9, clock.pause, run_id="run")
    simulation.run()
    simulation.finish()
    return simulation, publisher


@pytest.mark.parametrize("rate", [0.5, 1, 50, 333, 20_000])
def test_rows_are_sent_when_they_are_due(rate: float) -> None:
    simulation, publisher = simulated(rate=rate, seconds=10)
    due = 100 + np.arange(len(publisher.times)) / rate
    late = np.array(publisher.times) - due
    assert late.min() > -1e-6
    assert late.max() < 0.011
    assert abs(len(publisher.times) - 10 * rate) <= 1 + 0.01 * rate
    assert simulation.most_behind_secs < 0.011
    assert simulation.rate == pytest.approx(rate, rel=0.11)


def test_a_message_has_an_id_and_the_time_when_it_was_sent() -> None:
    _, publisher = simulated(rate=100, rows=300)
    assert [of_row["id"] for of_row in publisher.attributes] == [f"run-{number}" for number in range(300)]
    sent = [str(round((secs + 1e9) * 1e6)) for secs in publisher.times]
    assert [of_row["sent"] for of_row in publisher.attributes] == sent
    assert publisher.data == [b'{"x":1}', b'{"x":2}', b'{"x":3}'] * 100


def test_without_a_rate_rows_are_sent_one_after_the_other() -> None:
    simulation, publisher = simulated(rate=0, rows=5000, request_secs=0.5)
    assert collections.Counter(publisher.times).most_common(1)[0][1] == 1000
    assert (simulation.sent, simulation.seconds, simulation.rate) == (5000, 2.5, 2000)
    assert simulation.report() == "5,000 rows published in 2.5 s, 2,000.0 rows/s"


def test_whoever_cannot_keep_up_says_so(caplog: pytest.LogCaptureFixture) -> None:
    simulation, _ = simulated(rate=10_000, seconds=10, request_secs=0.5)  # 1000 rows a request at most
    (warning,) = caplog.messages
    assert warning.startswith("This machine cannot send 10000 rows/s: 1.")
    assert 1850 < simulation.rate < 2000
    assert "target 10,000 rows/s; at most 8," in simulation.report()


def test_a_slow_request_is_made_up_for() -> None:
    simulation, publisher = simulated(rate=100, rows=1000, request_secs=0.2)
    assert simulation.sent == 1000
    assert publisher.times[-1] < 100 + 10.2


@pytest.mark.parametrize(("poison", "bad"), [(0, 0), (1, 100), (3, 33), (101, 0)])
def test_every_so_many_th_message_is_not_json(poison: int, bad: int) -> None:
    _, publisher = simulated(rate=0, rows=100, poison=poison)
    found = []
    for number, row in enumerate(publisher.data):
        try:
            json.loads(row)
        except ValueError:
            found.append(number + 1)
    assert len(found) == bad
    assert all(number % poison == 0 for number in found)


def test_it_ends_with_the_input() -> None:
    simulation, publisher = simulated(iter(ROWS), rate=0)
    assert (simulation.sent, publisher.data) == (3, [b'{"x":1}', b'{"x":2}', b'{"x":3}'])


def test_rows_that_are_refused_are_told() -> None:
    simulation, _ = simulated(rate=0, rows=10, refused=[3, 4])
    assert simulation.report().splitlines() == [
        "8 rows published in 0.0 s, 8,000,000,000.0 rows/s",
        "2 rows refused by the service",
    ]


def test_rows_of_the_zoo_are_those_of_its_samples(tmp_path: Path) -> None:
    for name in zoo.NAMES:
        (path,) = write_samples(zoo.get(name), str(tmp_path), 20, ("jsonl",))
        rows = zoo_rows(name)
        first, second = next(rows), next(rows)
        expected = [json.loads(line) for line in Path(path).read_text().splitlines()]
        assert [json.loads(row) for row in first[:20]] == expected
        assert json.loads(second[0])["id"] == f"{len(first):07d}"


def test_a_file_is_read_once_or_over_and_over(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"x":1}\n\n {"x":2} \r\n' + b'{"x":3}\n' * 1500)
    once = [row for rows in file_rows(str(path), again=False) for row in rows]
    assert once == [b'{"x":1}', b'{"x":2}', *[b'{"x":3}'] * 1500]
    again = itertools.chain.from_iterable(file_rows(str(path), again=True))
    assert list(itertools.islice(again, 3005)) == [*once, *once, b'{"x":1}']


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_file_without_rows_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="holds no rows"):
        list(file_rows(str(path), again=True))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rate": -1.0}, "--rate -1: it is a finite number, 0 or more"),
        ({"rate": float("nan")}, "--rate nan: it is a finite number, 0 or more"),
        ({"seconds": float("inf")}, "--seconds inf: it is a finite number, 0 or more"),
        ({"rows": -5}, "--rows -5: it is a whole number, 0 or more"),
        ({"poison": -5}, "--poison -5: it is a whole number, 0 or more"),
        ({"zoo": "criteo", "input": "x"}, "give one"),
    ],
)
def test_options_are_checked(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        SimulateOptions(topic=TOPIC, **options)


def test_the_command_publishes(pubsub: Pubsub, capsys: pytest.CaptureFixture[str]) -> None:
    topic = pubsub.topic("made-by-simulate")
    assert cli.main(["simulate", "--topic", topic, "--create", "--rows", "5"]) == 0
    subscription = pubsub.make_subscription(topic)
    before = time.time()
    flags = ["--zoo", "natality", "--rate", "1000", "--rows", "300", "--poison", "100"]
    assert cli.main(["simulate", "--topic", topic, "--create", *flags]) == 0
    printed = capsys.readouterr().out
    (seconds,) = re.findall(r"^300 rows published in ([\d.]+) s", printed, re.MULTILINE)
    assert float(seconds) >= 0.3  # the last one is due after 299 ms
    received = [each.message for each in pubsub.pull_all(subscription, 300)]
    ids = {message.attributes["id"] for message in received}
    run_ids = {each.split("-")[0] for each in ids}
    assert ids == {f"{run_id}-{number}" for run_id in run_ids for number in range(300)}
    assert len(run_ids) == 1
    assert all(before <= int(message.attributes["sent"]) / 1e6 <= time.time() for message in received)
    rows = [message.data for message in received if not message.data.startswith(b"{not JSON")]
    assert len(rows) == 297
    assert set(json.loads(rows[0])) == {"id", *zoo.get("natality").schema().names}


def test_the_command_reads_a_file(pubsub: Pubsub, tmp_path: Path) -> None:
    topic = pubsub.make_topic()
    subscription = pubsub.make_subscription(topic)
    (tmp_path / "rows.jsonl").write_text('{"x":1}\n{"x":2}\n')
    assert cli.main(["simulate", "--topic", topic, "--input", str(tmp_path / "rows.jsonl"), "--rate", "0"]) == 0
    assert sorted(each.message.data for each in pubsub.pull_all(subscription, 2)) == [b'{"x":1}', b'{"x":2}']


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--topic", "no-topic"], "projects/PROJECT/topics/TOPIC is expected"),
        (["--topic", "projects/sluice-test/topics/none-here"], "does not exist"),
        (["--input", "/nowhere.jsonl"], "no such file"),
        (["--zoo", "criteo", "--input", "x"], "give one"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    flags: list[str], text: str, pubsub: Pubsub, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = [] if "--topic" in flags else ["--topic", pubsub.make_topic()]
    assert cli.main(["simulate", *topic, *flags]) == 2
    assert text in capsys.readouterr().err


def test_an_empty_file_is_exit_code_2(pubsub: Pubsub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.jsonl").write_text("")
    assert cli.main(["simulate", "--topic", pubsub.make_topic(), "--input", str(tmp_path / "rows.jsonl")]) == 2
    assert "holds no rows" in capsys.readouterr().err


def test_what_cannot_be_published_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.jsonl").write_text('{"x":1}\n{"x":"poison"}\n')
    command = ["simulate", "--topic", TOPIC, "--input", str(tmp_path / "rows.jsonl"), "--rate", "0"]
    with service(refuses_poison):
        assert cli.main(command) == 1
    assert "1 rows published" in (printed := capsys.readouterr().out)
    assert "1 rows refused by the service" in printed
    with service(aborts("PERMISSION_DENIED")):
        assert cli.main(command) == 1
    assert "roles/pubsub.publisher" in capsys.readouterr().err


def test_an_interrupt_ends_it_well(
    pubsub: Pubsub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = pubsub.make_topic()
    subscription = pubsub.make_subscription(topic)

    class Interrupted(Simulation):
        def _send(self, rows: list[bytes]) -> None:
            super()._send(rows)
            if self.sent >= 20:
                raise KeyboardInterrupt

    monkeypatch.setattr(simulate_run, "Simulation", Interrupted)
    parser = argparse.ArgumentParser()
    simulate.add_arguments(parser)
    assert simulate.run(parser.parse_args(["--topic", topic, "--rate", "1000"])) == 0
    count = int(capsys.readouterr().out.split()[0])
    assert 20 <= count < 1020
    assert len(pubsub.pull_all(subscription, count)) == count
