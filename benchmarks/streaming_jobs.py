"""The processes of `benchmarks.streaming`: jobs, load, and readers of predictions."""

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from sluice.pipelines.commands.latency_run import read
from sluice.pipelines.options.stream_tools import LatencyOptions
from sluice.pipelines.progress.latency_report import Tally, begin_us
from sluice.transforms.pubsub.clients import subscriber
from sluice.transforms.pubsub.google_subscription import GoogleSubscription
from tests.support.pubsub.streams import Ends, ProcessJob

# The longest wait for anything.
PATIENCE_SECS = 120.0
# How often a job is polled: each poll costs it a request.
LOOK_SECS = 0.5


class Prediction(NamedTuple):
    """When a row was sent, when Pub/Sub accepted its prediction, and when a puller had it; microseconds, one clock."""

    sent: int
    published: int
    received: int
    version: int
    id: str


class Predictions(Tally):
    """Counts predictions, and records the times of each."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[str, Prediction] = {}

    def add(self, messages: Sequence[Any]) -> None:
        now = time.time_ns() // 1000
        for message in messages:
            tags = message.attributes
            version = int(tags.get("sluice_version", 0))
            found = Prediction(begin_us(tags) or 0, message.publish_time, now, version, tags.get("id", message.id))
            self._kept.setdefault(message.id, found)
        super().add(messages)  # last: it ends the reader when all have come

    def in_order(self) -> list[Prediction]:
        """Returns the predictions in the order in which Pub/Sub accepted them."""
        return sorted(self._kept.values(), key=lambda each: each.published)


@contextlib.contextmanager
def collecting(subscription: str, count: int, secs: float) -> Iterator[Callable[[], list[Prediction]]]:
    """Reads predictions while the block runs, until this many rows have theirs or the time is over.

    Yields a function that waits for that and returns the predictions. Read a subscription only once: a pull that is
    broken off may take messages with it.
    """
    client = GoogleSubscription(subscriber(), subscription)
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


def collect(subscription: str, count: int, secs: float = PATIENCE_SECS) -> list[Prediction]:
    """Reads predictions and waits for all of them; see `collecting`."""
    with collecting(subscription, count, secs) as join:
        return join()


def check_ids(predictions: Sequence[Prediction], rows: int) -> None:
    """Checks that every row has one prediction.

    Raises:
      RuntimeError: rows have no prediction, or more than one.
    """
    ids = {each.id for each in predictions}
    if len(ids) != rows or len(predictions) != rows:
        raise RuntimeError(f"{len(predictions)} predictions of {len(ids)} rows came, {rows} were sent")


@contextlib.contextmanager
def simulating(topic: str, rate: float, rows: int) -> Iterator[Callable[[], None]]:
    """Runs `sluice simulate` with the zoo's Criteo rows; yields a function that waits for its end.

    Args:
      rate: rows per second; 0: as many as possible.
    """
    flags = ["--topic", topic, "--progress=none", f"--rate={rate:g}", f"--rows={rows}"]
    command = [sys.executable, "-m", "sluice", "simulate", *flags]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def finish() -> None:
        said, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"sluice simulate failed: {said}")
        say(f"  {said.strip()}".replace("\n", "; "))

    try:
        yield finish
    finally:
        process.kill()
        process.wait()


def simulate(topic: str, rate: float, rows: int) -> None:
    """Runs `sluice simulate` to its end; see `simulating`."""
    with simulating(topic, rate, rows) as finish:
        finish()


@contextlib.contextmanager
def sluice(ends: Ends, model: str, *flags: str) -> Iterator[ProcessJob]:
    """Runs `sluice streaming` while the block runs, then drains it.

    Raises:
      RuntimeError: rows failed, or the job did.
    """
    with ProcessJob([*ends.flags, f"--model={model}", *flags]) as job:
        yield job
        code = job.stop()
        if code or ends.failed(1, LOOK_SECS):
            raise RuntimeError(f"rows failed, or the job did (exit code {code}):\n{job.log()[-3000:]}")


def wait_for(job: ProcessJob, count: int) -> dict[str, Any]:
    """Waits until this many messages are acknowledged; returns the job's figures.

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
    """Runs Beam's own job in its own process while the block runs, then kills it.

    Raises:
      RuntimeError: it ended before.
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


def say(text: str) -> None:
    """Prints a line and flushes it."""
    print(text, flush=True)
