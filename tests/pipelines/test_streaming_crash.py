"""A streaming job that is killed, or whose sinks are away: no message is without its outcome in the end."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sluice.models.saved_model.followed import FollowedModel
from sluice.pipelines.cli import main
from sluice.transforms.pubsub.clients import EMULATOR_VARIABLE
from tests.support.fakes import PATIENCE_SECS
from tests.support.pubsub.proxy import PubsubProxy
from tests.support.pubsub.streams import Ends, LocalJob, ProcessJob, make_ends, shorten_leases, wait_until
from tests.support.saved_models.zoo import ZooSample
from tests.support.servers import BigQuery, Pubsub
from tests.support.sizes import SOAK, size

COUNT = size(1000, soak=20_000)
# After how many messages a job is killed; a second time shows no more than the first one, so it stands in the soak.
KILLED_AT = (500, 2000) if SOAK else (300,)
# How long the topic takes nothing. A soak goes beyond the deadline for acknowledging a message, which is 10 s.
REFUSING_SECS = size(1, soak=12)


def publish(ends: Ends, sample: ZooSample, count: int) -> None:
    """Publishes rows with ids; every 1,000th is no JSON."""
    lines = Path(sample.path("jsonl")).read_bytes().splitlines()
    payloads = [b"poison" if number % 1000 == 999 else lines[number % len(lines)] for number in range(count)]
    ends.publish(payloads, [{"id": str(number)} for number in range(count)])


def outcomes(ends: Ends, count: int) -> tuple[Counter[str], Counter[str]]:
    """Reads what was written until every id is there, and what more there is; (predictions, failures) by id."""
    predicted: Counter[str] = Counter()
    failed: Counter[str] = Counter()

    def complete() -> bool:
        predicted.update(message.attributes["id"] for message in ends.predictions(count, secs=0.5))
        failed.update(failure["attributes"]["id"] for failure in ends.failed(count, secs=0.5))
        return len(predicted) + len(failed) >= count

    wait_until(complete, "outcomes")
    complete()
    return predicted, failed


def check(predicted: Counter[str], failed: Counter[str], count: int) -> None:
    """Every id has one kind of outcome, at least once; says how many came twice."""
    poison = {str(number) for number in range(999, count, 1000)}
    assert set(failed) == poison
    assert set(predicted) == {str(number) for number in range(count)} - poison
    doubles = sum(predicted.values()) + sum(failed.values()) - count
    print(f"{count:,} messages, {doubles:,} outcomes more than messages")
    assert doubles < count  # kills cost what was in work, not everything again


def stream_without_end_of_a_swap(flags: list[str]) -> int:
    """A job that loads another version, and then hangs before it uses it."""
    shorten_leases()
    try_model = FollowedModel._try

    def try_without_end(self: FollowedModel, model: Any) -> None:
        if self._sample is not None:  # there is a version in use
            threading.Event().wait()
        try_model(self, model)

    FollowedModel._try = try_without_end  # type: ignore[method-assign]
    return main(flags)


@pytest.mark.soak
def test_kill_9_mid_run_and_during_a_swap_loses_nothing(pubsub: Pubsub, criteo: ZooSample, tmp_path: Path) -> None:
    ends = make_ends(pubsub)
    base = tmp_path / "model"
    shutil.copytree(f"{criteo.model}/1", base / "1")
    publish(ends, criteo, COUNT)
    flags = [f"--model={base}", *ends.flags, "--max_bundle_messages=100", "--model_poll_secs=0.3"]
    with contextlib.closing(PubsubProxy(pubsub)) as proxy:
        through_it = {EMULATOR_VARIABLE: proxy.host}
        for done in KILLED_AT:
            with ProcessJob(flags, through_it) as job:
                job.wait_for(done)
                job.kill()
            proxy.give_back(ends.subscription)
        with ProcessJob(["--verbose", *flags], through_it, run=stream_without_end_of_a_swap) as job:
            job.wait_for(100)
            shutil.copytree(base / "1", tmp_path / "coming")
            os.rename(tmp_path / "coming", base / "2")
            wait_until(lambda: "version 2 is being loaded" in job.log(), "the swap")
            job.kill()
            assert "version 1 -> 2" not in job.log()
        proxy.give_back(ends.subscription)
    with ProcessJob(flags) as job:
        predicted, failed = outcomes(ends, COUNT)
        assert job.stop() == 0
        assert "acknowledged" in job.log()
    check(predicted, failed, COUNT)


@pytest.mark.soak
def test_an_output_topic_that_refuses_for_a_while_costs_nothing(pubsub: Pubsub, criteo: ZooSample) -> None:
    ends = make_ends(pubsub)
    publish(ends, criteo, COUNT)
    flags = [f"--model={criteo.model}", *ends.flags, "--max_bundle_messages=500"]
    with contextlib.closing(PubsubProxy(pubsub)) as proxy, ProcessJob(flags, {EMULATOR_VARIABLE: proxy.host}) as job:
        proxy.refusing = ends.output_topic
        wait_until(lambda: proxy.refused >= 1, "a refusal")
        until = time.monotonic() + REFUSING_SECS
        wait_until(lambda: proxy.refused >= 4 and time.monotonic() >= until, "refusals")
        assert job.figures()["messages"] == 0  # not one is acknowledged
        proxy.refusing = ""
        predicted, failed = outcomes(ends, COUNT)
        assert job.stop(signal.SIGINT) == 0
        assert job.log().count("come again in") == 0  # it was waited for, and nothing done again
    check(predicted, failed, COUNT)


def read_lines(pattern: str) -> list[dict[str, Any]]:
    return [json.loads(line) for path in glob.glob(pattern) for line in Path(path).read_bytes().splitlines()]


@contextlib.contextmanager
def doomed_job(pubsub: Pubsub, flags: list[str]) -> Iterator[tuple[ProcessJob, PubsubProxy]]:
    """A job that is killed at its first acknowledgement, which is dropped, and what is between it and Pub/Sub."""

    def kill() -> bool:
        os.kill(job.process.pid, signal.SIGKILL)
        return False

    with contextlib.closing(PubsubProxy(pubsub)) as proxy:
        proxy.on_acknowledge = kill
        with ProcessJob(flags, {EMULATOR_VARIABLE: proxy.host}) as job:
            yield job, proxy


def test_a_job_killed_before_it_acknowledges_has_written_to_every_sink(
    pubsub: Pubsub, bigquery: BigQuery, cases: Callable[[str], str], tmp_path: Path
) -> None:
    """Its rows are written, and none is acknowledged: all come again. A second job inserts into its table."""
    ends, second = make_ends(pubsub), make_ends(pubsub)
    good, bad = [str(number) for number in range(40)], [str(number) for number in range(40, 60)]
    payloads = [b'{"x": %s}' % number.encode() for number in good] + [b"no json"] * len(bad)
    for each in (ends, second):
        each.publish(payloads, [{"id": number} for number in (*good, *bad)])
    dataset = bigquery.make_dataset()
    common = [
        f"--model={cases('picky')}",
        "--columns=x",
        f"--max_bundle_messages={len(payloads)}",
        "--max_bundle_delay_ms=120000",
    ]
    sinks = [f"--output={tmp_path}/good.jsonl", f"--failures={tmp_path}/bad", f"--output_table={dataset}.good"]
    flags = [*common, *ends.flags, *sinks, f"--failures_table={dataset}.bad"]
    inserting = [f"--output_table={dataset}.inserted", "--write_method=streaming_inserts"]
    with (
        doomed_job(pubsub, flags) as (job, proxy),
        doomed_job(pubsub, [*common, *second.flags, *inserting]) as (inserting_job, inserting_proxy),
    ):
        assert job.process.wait(PATIENCE_SECS) == -signal.SIGKILL
        assert inserting_job.process.wait(PATIENCE_SECS) == -signal.SIGKILL
    assert in_order(message.attributes["id"] for message in ends.predictions(len(good))) == good
    assert in_order(int(row["x"]) for row in read_lines(f"{tmp_path}/good-*.jsonl")) == good
    assert in_order(int(row["x"]) for row in bigquery.rows(f"{dataset}.good")) == good
    assert in_order(failure["attributes"]["id"] for failure in ends.failed(len(bad))) == bad
    assert in_order(row["attributes"]["id"] for row in read_lines(f"{tmp_path}/bad-*.jsonl")) == bad
    assert in_order(row["attributes"][0]["value"] for row in bigquery.rows(f"{dataset}.bad")) == bad
    assert in_order(int(row["x"]) for row in bigquery.rows(f"{dataset}.inserted")) == good
    assert (proxy.acknowledged, inserting_proxy.acknowledged) == (0, 0)


def in_order(numbers: Iterable[Any]) -> list[str]:
    return sorted(map(str, numbers), key=int)


def test_a_second_signal_ends_a_drain_and_acknowledges_nothing_more(
    pubsub: Pubsub, cases: Callable[[str], str]
) -> None:
    ends = make_ends(pubsub)
    ends.publish([b'{"x": 1}'] * 10, [{"id": str(number)} for number in range(10)])
    flags = [f"--model={cases('picky')}", *ends.flags]
    with contextlib.closing(PubsubProxy(pubsub)) as proxy, ProcessJob(flags, {EMULATOR_VARIABLE: proxy.host}) as job:
        proxy.refusing = ends.output_topic
        wait_until(lambda: proxy.refused >= 1, "a refusal")
        job.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "draining" in job.log(), "the drain")
        job.process.send_signal(signal.SIGTERM)
        assert job.process.wait(PATIENCE_SECS) == 130
        assert "aborted" in job.log()
        assert proxy.acknowledged == 0


def test_a_sink_that_is_away_for_good_ends_the_job_and_acknowledges_nothing(
    pubsub: Pubsub, cases: Callable[[str], str]
) -> None:
    ends = make_ends(pubsub)
    flags = [f"--model={cases('picky')}", *ends.flags, "--max_restarts=1"]
    with LocalJob(flags) as job:
        wait_until(lambda: bool(job.figures()), "the job")
        pubsub.publisher.delete_topic(topic=ends.output_topic)
        ends.publish([b'{"x": 1}'] * 20, [{"id": str(number)} for number in range(20)])
        assert job.wait() == 1
    assert job.summary["messages"] == 0
    assert job.summary["restarts"] == 1
    again = pubsub.pull_all(ends.subscription, 20)
    assert len({each.message.attributes["id"] for each in again}) == 20
