"""The measurements of `benchmarks.streaming` on the emulator: throughput, latency, and model replacement under load.

The times of a row are when it was handed to Pub/Sub (its attribute `sent`), when Pub/Sub accepted its prediction (the
prediction's publish time), and when a waiting puller had the prediction; all by this machine's clock.
"""

import contextlib
import dataclasses
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.streaming_jobs import (
    LOOK_SECS,
    Prediction,
    beam_job,
    check_ids,
    collect,
    collecting,
    simulate,
    simulating,
    sluice,
    wait_for,
)
from sluice.pipelines.progress.latency_report import quantiles_ms
from sluice.transforms.pubsub.source_parts import SourceOptions
from tests.support.pubsub.streams import Ends, ProcessJob, make_ends
from tests.support.servers import Pubsub

# The first predictions of a backlog do not count: their messages were pulled while the model was loading, and the first
# calls of the model and the emulator are slow.
HEAD = 0.2
WARM_UP_ROWS = 100
# What happens within this long of a version's arrival is attributed to it. The same holds around the moment at which a
# segment is full: the next segment takes over some bundles later, when it has been built.
SWAP_SECS = 6.0
SEAM_SECS = (1.0, 3.0)
# Messages must not come again while a backlog is worked off.
_ACK_SECS = 600
# How long to read the predictions of a job that was killed.
_REST_SECS = 4.0
BROKEN = 3
VERSIONS = (1, 2, BROKEN, 4)


def rate_of(predictions: Sequence[Prediction], head: float = HEAD) -> float:
    """Returns predictions per second, by when Pub/Sub accepted them, without the first ones.

    Raises:
      ValueError: there are too few predictions.
    """
    times = [each.published for each in predictions]
    first = int(head * len(times))
    if len(times) < 2 or times[-1] == times[first]:
        raise ValueError(f"{len(times)} predictions have no rate")
    begun = sum(when <= times[first] for when in times)  # nor do those in the first one's request count
    return 1e6 * (len(times) - begun) / (times[-1] - times[first])


def sluice_throughput(pubsub: Pubsub, model: str, rows: int) -> dict[str, float]:
    """Scores a backlog. Only the emulator runs beside the job; predictions are read when the job is over."""
    ends = make_ends(pubsub, ack_deadline_seconds=_ACK_SECS)
    simulate(ends.topic, 0, rows)
    with sluice(ends, model) as job:
        figures = wait_for(job, rows)
    predictions = collect(ends.output, rows)
    check_ids(predictions, rows)
    return {"messages_s": rate_of(predictions), "messages": rows, "bundle": rows / figures["bundles"]}


def beam_throughput(pubsub: Pubsub, model: str, rows: int, secs: float) -> dict[str, float]:
    """Scores a backlog for some seconds after the first prediction, or to its end."""
    ends = make_ends(pubsub, ack_deadline_seconds=_ACK_SECS)
    first = pubsub.make_subscription(ends.output_topic)
    simulate(ends.topic, 0, rows)
    with beam_job(ends, model):
        collect(first, 1)
        time.sleep(secs)
    predictions = collect(ends.output, rows, _REST_SECS)
    return {"messages_s": rate_of(predictions), "messages": len(predictions)}


@dataclasses.dataclass(frozen=True)
class Latency:
    """The latencies of rows that were sent at a steady rate, in milliseconds.

    Attributes:
      taken: p50, p95, p99 and max, until Pub/Sub accepted the prediction.
      received: the same, until a waiting puller had the prediction.
      seams: how many segments of the job were full.
      at_seams: the largest of `taken` near a seam; None: there was no seam.
    """

    rate: float
    rows: int
    taken: dict[str, float | None]
    received: dict[str, float | None]
    seams: int
    at_seams: float | None


def latency_of(rate: float, predictions: Sequence[Prediction], seams: Sequence[float] = ()) -> Latency:
    """Returns the latencies of predictions.

    Args:
      seams: seconds since the epoch at which a segment was full.
    """
    sent, published, received = np.array([each[:3] for each in predictions], np.int64).T
    taken, near = published - sent, np.zeros(len(sent), bool)
    before, after = SEAM_SECS
    for seam in seams:
        near |= (sent >= 1e6 * (seam - before)) & (sent <= 1e6 * (seam + after))
    at_seams = quantiles_ms(taken[near])["max"]
    return Latency(rate, len(sent), quantiles_ms(taken), quantiles_ms(received - sent), len(seams), at_seams)


def sluice_latency(pubsub: Pubsub, model: str, loads: Sequence[tuple[float, float]]) -> list[Latency]:
    """Sends rows at each rate for its number of seconds, to one job."""
    ends = make_ends(pubsub)
    found = []
    with sluice(ends, model) as job:
        _warm_up(ends)
        for rate, secs in loads:
            with _watching(job) as seams:
                predictions = _under_load(ends, rate, secs)
            found.append(latency_of(rate, predictions, seams))
    return found


def beam_latency(pubsub: Pubsub, model: str, rate: float, secs: float) -> Latency:
    """Sends rows to Beam's own job."""
    ends = make_ends(pubsub)
    with beam_job(ends, model):
        _warm_up(ends)
        predictions = _under_load(ends, rate, secs)
    return latency_of(rate, predictions)


def _warm_up(ends: Ends) -> None:
    """Waits until the job has scored a few rows."""
    simulate(ends.topic, 0, WARM_UP_ROWS)
    collect(ends.output, WARM_UP_ROWS)


def _under_load(ends: Ends, rate: float, secs: float) -> list[Prediction]:
    rows = int(rate * secs)
    with collecting(ends.pubsub.make_subscription(ends.output_topic), rows, 2 * secs + 30) as join:
        simulate(ends.topic, rate, rows)
        predictions = join()
    check_ids(predictions, rows)
    return predictions


@contextlib.contextmanager
def _watching(job: ProcessJob) -> Iterator[list[float]]:
    """Yields the times at which segments were full while the block ran, as far as they can be seen from outside."""
    seams: list[float] = []
    over = threading.Event()

    def full() -> int:
        return int(job.figures().get("bundles", 0) // SourceOptions.segment_bundles)

    def watch() -> None:
        known = full()
        while not over.wait(LOOK_SECS):
            if full() > known:
                known += 1
                seams.append(time.time())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seams
    finally:
        over.set()
        thread.join()


@dataclasses.dataclass(frozen=True)
class Turn:
    """A version of a model, and its effect on predictions.

    Attributes:
      at: seconds from the first row until the version was complete.
      after: seconds from then until its first prediction; None: it has none.
      runs: how often predictions changed to this version.
      gap_ms, latency_ms: the largest gap between two predictions, and the largest latency, within SWAP_SECS.
    """

    version: int
    at: float
    after: float | None
    predictions: int
    runs: int
    gap_ms: float
    latency_ms: float


@dataclasses.dataclass(frozen=True)
class Swaps:
    """A job whose model was replaced under load.

    Attributes:
      gap_ms, latency_ms: the largest gap between two predictions, and the largest latency, of the whole run.
      failures, swaps, rejected: as the job counted them.
    """

    rate: float
    turns: list[Turn]
    gap_ms: float
    latency_ms: float
    failures: int
    swaps: int
    rejected: int


def turns_of(predictions: Sequence[Prediction], put: dict[int, float]) -> list[Turn]:
    """Returns the effect of each version.

    Args:
      predictions: in the order in which Pub/Sub accepted them.
      put: when each version was complete, in seconds since the epoch.
    """
    sent, taken, _, versions = np.array([each[:4] for each in predictions], np.int64).T
    begun, waited = int(sent.min()), taken - sent
    gaps, changed = np.diff(taken, prepend=taken[:1]), np.diff(versions, prepend=0) != 0
    turns = []
    for version, when in put.items():
        of_it, there = versions == version, max(begun, round(1e6 * when))
        near = (taken >= there) & (taken <= there + 1e6 * SWAP_SECS)
        turns.append(
            Turn(
                version,
                at=(there - begun) / 1e6,
                after=(int(taken[of_it][0]) - there) / 1e6 if of_it.any() else None,
                predictions=int(of_it.sum()),
                runs=int((of_it & changed).sum()),
                gap_ms=float(gaps[near].max(initial=0)) / 1000,
                latency_ms=float(waited[near].max(initial=0)) / 1000,
            )
        )
    return turns


def swap_under_load(pubsub: Pubsub, model: str, rate: float, every_secs: float) -> Swaps:
    """Adds versions beside version 1, one of them broken, one after the other while rows come."""
    ends = make_ends(pubsub)
    rows = int(rate * every_secs * (len(VERSIONS) + 1))
    output = pubsub.make_subscription(ends.output_topic)
    with tempfile.TemporaryDirectory() as base:
        put = {1: put_version(model, base, 1)}
        with sluice(ends, base, "--model_poll_secs=1") as job:
            _warm_up(ends)
            with (
                collecting(output, rows + WARM_UP_ROWS, rows / rate + 60) as join,
                simulating(ends.topic, rate, rows) as finish,
            ):
                wait_for(job, WARM_UP_ROWS + 1)  # the load needs some seconds to begin
                for version in VERSIONS[1:]:
                    time.sleep(every_secs)
                    put[version] = put_version(model, base, version, broken=version == BROKEN)
                finish()
                predictions = join()
            figures = wait_for(job, rows + WARM_UP_ROWS)
    check_ids(predictions, rows + WARM_UP_ROWS)
    loaded = predictions[WARM_UP_ROWS:]  # earlier ones had all come when these were sent
    sent, published = np.array([each[:2] for each in loaded], np.int64).T
    return Swaps(
        rate,
        turns_of(loaded, put),
        gap_ms=float(np.diff(published).max()) / 1000,
        latency_ms=float((published - sent).max()) / 1000,
        failures=figures["failures"],
        swaps=figures["model_swaps"],
        rejected=figures["model_versions_rejected"],
    )


def put_version(model: str, base: str, version: int, broken: bool = False) -> float:
    """Copies version 1 of a model to another base path, where it appears complete at once; returns when it appeared.

    Args:
      broken: half of its variables are missing, which shows only when they are loaded.
    """
    unfinished = os.path.join(base, f".{version}")
    shutil.copytree(os.path.join(model, "1"), unfinished)
    if broken:
        path = os.path.join(unfinished, "variables", "variables.data-00000-of-00001")
        os.truncate(path, os.path.getsize(path) // 2)
    os.rename(unfinished, os.path.join(base, str(version)))
    return time.time()
