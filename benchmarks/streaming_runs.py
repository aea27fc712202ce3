"""What `benchmarks.streaming` runs on Google's Pub/Sub emulator: jobs, load, and the predictions that come of it.

All times are the emulator's, which took each prediction, and those of this machine, which is the same clock.
"""

import contextlib
import dataclasses
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipelines.latency import LatencyOptions, read
from pipelines.latency_report import Tally, begin_us, quantiles_ms
from tests.servers import Pubsub
from tests.streams import Ends, ProcessJob, make_ends
from transforms.message_source import SourceOptions
from transforms.pubsub_clients import subscriber
from transforms.pubsub_subscription import PubsubSubscription

# The first of a backlog's predictions are not counted: their messages were pulled while the model was being loaded,
# and the first calls of model and emulator are slow.
HEAD = 0.2
# A subscription must not give a message again while it is read at leisure.
ACK_SECS = 600
PATIENCE_SECS = 120.0
LOOK_SECS = 0.5
# What may still come when the load has ended.
TAIL_SECS = 3.0
# A seam is not told from outside: the next segment takes over when it has been built, some bundles later.
SEAM_SECS = 3.0
SWAP_SECS = 6.0


class Prediction(NamedTuple):
    """When a row was sent, when Pub/Sub took its prediction and when a waiting puller had it; microseconds."""

    sent: int
    published: int
    received: int
    version: int
    id: str


class Predictions(Tally):
    """Counts predictions, and keeps what is to be known of each."""

    def __init__(self) -> None:
        super().__init__()
        self._all: dict[str, Prediction] = {}

    def add(self, messages: Sequence[Any]) -> None:
        now = time.time_ns() // 1000
        super().add(messages)
        for message in messages:
            sent, tags = begin_us(message.attributes) or 0, message.attributes
            version = int(tags.get("sluice_version", 0))
            found = Prediction(sent, message.publish_time, now, version, tags.get("id", message.id))
            self._all.setdefault(message.id, found)

    def in_order(self) -> list[Prediction]:
        """Returns them in the order in which Pub/Sub took them."""
        return sorted(self._all.values(), key=lambda each: each.published)


def collect(subscription: str, count: int, secs: float) -> list[Prediction]:
    """Reads the predictions of so many rows, or those that come within the time."""
    with collecting(subscription, count, secs) as join:
        return join()


@contextlib.contextmanager
def collecting(subscription: str, count: int, secs: float) -> Iterator[Callable[[], list[Prediction]]]:
    """Reads while the block runs; gives what waits for the end, and returns what came."""
    client = PubsubSubscription(subscriber(), subscription)
    predictions = Predictions()
    options = LatencyOptions(subscription=subscription, count=count, seconds=secs)
    thread = threading.Thread(target=read, args=(client, predictions, options), daemon=True)
    thread.start()

    def join() -> list[Prediction]:
        thread.join()
        return predictions.in_order()

    try:
        yield join
    finally:
        client.interrupt()
        client.close()


def simulate(topic: str, *flags: str) -> "subprocess.Popen[str]":
    """Starts `sluice simulate` with the zoo's Criteo rows."""
    command = [sys.executable, "-m", "pipelines.cli", "simulate", "--topic", topic, "--progress=none", *flags]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> str:
    """Waits for `sluice simulate`; returns what it says.

    Raises:
      RuntimeError: it failed.
    """
    try:
        said, _ = process.communicate()
    finally:
        process.kill()
    if process.returncode:
        raise RuntimeError(f"sluice simulate failed: {said}")
    return said.strip().replace("\n", "; ")


def publish_backlog(topic: str, rows: int) -> None:
    """Publishes as fast as it goes, and waits for it."""
    say(f"  {finish(simulate(topic, '--rate=0', f'--rows={rows}'))}")


def say(text: str) -> None:
    """Prints a line at once."""
    print(text, flush=True)


@contextlib.contextmanager
def sluice(ends: Ends, model: str, *flags: str) -> Iterator[ProcessJob]:
    """Runs `sluice streaming` while the block runs."""
    with ProcessJob([*ends.flags, f"--model={model}", *flags]) as job:
        yield job
        code = job.stop()
        if code or ends.failed(1, LOOK_SECS):
            raise RuntimeError(f"rows failed, or the job did (exit code {code}):\n{job.log()[-3000:]}")


def wait_for(job: ProcessJob, count: int) -> dict[str, Any]:
    """Waits until so many messages are acknowledged, looking rarely; returns the figures.

    Raises:
      RuntimeError: the job has ended, or it takes too long.
    """
    deadline = time.monotonic() + PATIENCE_SECS
    while (figures := job.figures()).get("messages", -1) < count:
        if job.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{figures.get('messages')} of {count} messages are done:\n{job.log()[-3000:]}")
        time.sleep(LOOK_SECS)
    return figures


@contextlib.contextmanager
def beam_job(ends: Ends, model: str) -> Iterator[None]:
    """Runs Beam's own job in a process of its own while the block runs, and kills it at the end.

    Raises:
      RuntimeError: it had ended before.
    """
    command = [sys.executable, "-m", "benchmarks.streaming", "--child", "beam", ends.subscription, ends.output_topic]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*command, model], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield
            if process.poll() is not None:
                log.seek(0)
                raise RuntimeError(f"Beam's job ended: {log.read().decode(errors='replace')[-3000:]}")
        finally:
            process.kill()
            process.wait()


def rate_of(predictions: Sequence[Prediction], head: float = HEAD) -> float:
    """Returns predictions a second, by when Pub/Sub took them, from behind the first ones on.

    Raises:
      ValueError: there are too few.
    """
    times = [each.published for each in predictions]
    first = int(head * len(times))
    if len(times) < 2 or times[-1] == times[first]:
        raise ValueError(f"{len(times)} predictions have no rate")
    begun = sum(when <= times[first] for when in times)  # those of the same request are not counted either
    return 1e6 * (len(times) - begun) / (times[-1] - times[first])


def sluice_throughput(pubsub: Pubsub, model: str, rows: int) -> dict[str, float]:
    """Scores a backlog; nothing else runs but the emulator. Predictions are read when the job is over."""
    ends = make_ends(pubsub, ack_deadline_seconds=ACK_SECS)
    publish_backlog(ends.topic, rows)
    with sluice(ends, model) as job:
        figures = wait_for(job, rows)
    predictions = collect(ends.output, rows, PATIENCE_SECS)
    check_ids(predictions, rows)
    return {"messages_s": rate_of(predictions), "messages": len(predictions), "bundle": rows / figures["bundles"]}


def check_ids(predictions: Sequence[Prediction], rows: int) -> None:
    """
    Raises:
      RuntimeError: rows have no prediction, or more than one.
    """
    ids = {each.id for each in predictions}
    if len(ids) != rows or len(predictions) != rows:
        raise RuntimeError(f"{len(predictions)} predictions of {len(ids)} rows came, {rows} were sent")


def beam_throughput(pubsub: Pubsub, model: str, rows: int, secs: float) -> dict[str, float]:
    """Scores a backlog that is longer than the time, counted from the first prediction."""
    ends = make_ends(pubsub, ack_deadline_seconds=ACK_SECS)
    publish_backlog(ends.topic, rows)
    with beam_job(ends, model):
        first = collect(ends.output, 1, PATIENCE_SECS)
        time.sleep(secs)
    predictions = [*first, *collect(ends.output, rows, TAIL_SECS)]
    return {"messages_s": rate_of(predictions), "messages": len(predictions)}


@dataclasses.dataclass(frozen=True)
class Latency:
    """Milliseconds, of rows sent at a steady rate.

    Attributes:
      taken: p50, p95, p99, max, until Pub/Sub took the prediction; `received`: until a waiting puller had it.
      seams: how many segments of the job came to their end.
      at_seams, elsewhere: the largest near a seam and far from it; None without seams.
    """

    rate: float
    messages: int
    taken: dict[str, float | None]
    received: dict[str, float | None]
    seams: int = 0
    at_seams: float | None = None
    elsewhere: float | None = None


def _latency_of(rate: float, predictions: Sequence[Prediction], marks: Sequence[float] = ()) -> Latency:
    times = np.array([each[:3] for each in predictions], np.int64)
    sent, taken, received = times[:, 0], times[:, 1] - times[:, 0], times[:, 2] - times[:, 0]
    near = np.zeros(len(sent), bool)
    for mark in marks:
        near |= (sent >= 1e6 * (mark - SEAM_SECS)) & (sent <= 1e6 * (mark + SEAM_SECS))
    at_seams, elsewhere = (quantiles_ms(taken[part])["max"] for part in (near, ~near))
    return Latency(
        rate, len(taken), quantiles_ms(taken), quantiles_ms(received), len(marks), at_seams, elsewhere if marks else None
    )


def sluice_latency(pubsub: Pubsub, model: str, loads: Sequence[tuple[float, float]]) -> list[Latency]:
    """Sends rows at each rate for so many seconds, to one job that has been warmed up by a few."""
    ends = make_ends(pubsub, ack_deadline_seconds=ACK_SECS)
    found = []
    with sluice(ends, model) as job:
        _warm_up(ends)
        wait_for(job, 1)
        for rate, secs in loads:
            with _watching(job) as marks:
                predictions = _under_load(ends, rate, secs)
            found.append(_latency_of(rate, predictions, marks))
    return found


def beam_latency(pubsub: Pubsub, model: str, rate: float, secs: float) -> Latency:
    """The same of Beam's own job."""
    ends = make_ends(pubsub, ack_deadline_seconds=ACK_SECS)
    with beam_job(ends, model):
        _warm_up(ends)
        predictions = _under_load(ends, rate, secs)
    return _latency_of(rate, predictions)


def _warm_up(ends: Ends) -> None:
    finish(simulate(ends.topic, "--rate=0", "--rows=100"))
    collect(ends.output, 100, PATIENCE_SECS)


def _under_load(ends: Ends, rate: float, secs: float) -> list[Prediction]:
    """Sends rows while a puller waits for predictions; returns those of all of them.

    Raises:
      RuntimeError: some did not come, or twice.
    """
    rows = int(rate * secs)
    with collecting(ends.output, rows, secs + PATIENCE_SECS) as join:
        say(f"  {finish(simulate(ends.topic, f'--rate={rate:g}', f'--rows={rows}'))}")
        predictions = join()
    check_ids(predictions, rows)
    return predictions


@contextlib.contextmanager
def _watching(job: ProcessJob) -> Iterator[list[float]]:
    """Gives the moments, about, at which a segment had its bundles while the block ran."""
    marks: list[float] = []
    over = threading.Event()

    def watch() -> None:
        a_segment = SourceOptions.segment_bundles
        seams = job.figures().get("bundles", 0) // a_segment
        while not over.wait(LOOK_SECS):
            if job.figures().get("bundles", 0) // a_segment > seams:
                seams += 1
                marks.append(time.time())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield marks
    finally:
        over.set()
        thread.join()


@dataclasses.dataclass(frozen=True)
class Turn:
    """A version, and what was seen of it.

    Attributes:
      at: seconds from the first row until it was there.
      after: seconds from then until its first prediction; None: there is none.
      runs: how often predictions went over to it.
      gap_ms: the largest between two predictions, within SWAP_SECS of its being there; `latency_ms` likewise.
    """

    version: int
    at: float
    after: float | None
    predictions: int
    runs: int
    gap_ms: float
    latency_ms: float


def turns_of(predictions: Sequence[Prediction], put: dict[int, float]) -> list[Turn]:
    """Returns what was seen of each version.

    Args:
      predictions: in the order in which Pub/Sub took them.
      put: when it was there, in seconds since the epoch, by version.
    """
    begun = min(each.sent for each in predictions)
    taken = np.array([each.published for each in predictions], np.int64)
    versions = np.array([each.version for each in predictions], np.int64)
    waited = taken - np.array([each.sent for each in predictions], np.int64)
    gaps = np.diff(taken, prepend=taken[0])
    changed = np.append(True, versions[1:] != versions[:-1])
    found = []
    for version, when in put.items():
        of_it, start = versions == version, max(begun, round(1e6 * when))
        near = (taken >= start) & (taken <= start + 1e6 * SWAP_SECS)
        found.append(
            Turn(
                version,
                at=(start - begun) / 1e6,
                after=(int(taken[of_it][0]) - start) / 1e6 if of_it.any() else None,
                predictions=int(of_it.sum()),
                runs=int((of_it & changed).sum()),
                gap_ms=float(gaps[near].max(initial=0)) / 1000,
                latency_ms=float(waited[near].max(initial=0)) / 1000,
            )
        )
    return found


@dataclasses.dataclass(frozen=True)
class Swaps:
    """A job whose model was replaced under load.

    Attributes:
      gap_ms: the largest between two predictions, of the whole run; `latency_ms` likewise.
      swaps, rejected: what the job has counted.
    """

    rate: float
    turns: list[Turn]
    gap_ms: float
    latency_ms: float
    failures: int
    swaps: int
    rejected: int


def swap_under_load(pubsub: Pubsub, model: str, rate: float, every_secs: float) -> Swaps:
    """Puts version 2, a broken 3 and 4 beside version 1, one after the other, while rows come."""
    ends = make_ends(pubsub, ack_deadline_seconds=ACK_SECS)
    versions = (1, 2, 3, 4)
    rows = int(rate * every_secs * (len(versions) + 1))
    with tempfile.TemporaryDirectory() as base:
        put_version(model, base, 1)
        with (
            sluice(ends, base, "--model_poll_secs=1") as job,
            collecting(ends.output, rows + 100, PATIENCE_SECS + rows / rate) as join,
        ):
            finish(simulate(ends.topic, "--rate=0", "--rows=100"))
            wait_for(job, 100)
            load = simulate(ends.topic, f"--rate={rate:g}", f"--rows={rows}")
            while job.figures().get("messages", 0) <= 100:  # the load takes some seconds to begin
                time.sleep(LOOK_SECS / 10)
            put = {1: time.time()}
            for version in versions[1:]:
                time.sleep(every_secs)
                put[version] = put_version(model, base, version, broken=version == 3)
            say(f"  {finish(load)}")
            predictions = join()
            figures = wait_for(job, rows + 100)
            log = [line for line in job.log().splitlines() if "version" in line]
            say("\n".join(f"  {line}" for line in log))
    check_ids(predictions, rows + 100)
    predictions = predictions[100:]
    taken = np.array([each.published for each in predictions], np.int64)
    return Swaps(
        rate,
        turns_of(predictions, put),
        gap_ms=float(np.diff(taken).max()) / 1000,
        latency_ms=max(each.published - each.sent for each in predictions) / 1000,
        failures=figures["failures"],
        swaps=figures["model_swaps"],
        rejected=figures["model_versions_rejected"],
    )


def put_version(model: str, base: str, version: int, broken: bool = False) -> float:
    """Copies version 1 of a model to another base path, complete at once; returns when it was there.

    Args:
      broken: half of its variables is missing, which shows when they are loaded.
    """
    unfinished = os.path.join(base, f".{version}")
    shutil.copytree(os.path.join(model, "1"), unfinished)
    if broken:
        path = os.path.join(unfinished, "variables", "variables.data-00000-of-00001")
        os.truncate(path, os.path.getsize(path) // 2)
    os.rename(unfinished, os.path.join(base, str(version)))
    return time.time()


@functools.cache
def memory_rows(rows: int) -> list[bytes]:
    """Returns rows of the zoo's Criteo sample as JSON."""
    import itertools

    from pipelines.simulate import zoo_rows

    return list(itertools.islice(itertools.chain.from_iterable(zoo_rows("criteo")), rows))
