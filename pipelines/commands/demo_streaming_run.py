"""Runs a streaming job on an emulated Pub/Sub, and shows its predictions and how long they took."""

import contextlib
import dataclasses
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sluice.pipelines.commands.demo import say
from sluice.pipelines.commands.demo_pubsub import END_FLAGS, INPUT_TOPIC, OUTPUT, emulator, make_ends, simulate, warm_up
from sluice.pipelines.commands.job_process import JobProcess
from sluice.pipelines.commands.latency_run import read
from sluice.pipelines.logs import standard_error, tell
from sluice.pipelines.options.stream_tools import LatencyOptions, SimulateOptions
from sluice.pipelines.outcome import EXIT_FAILED, EXIT_OK
from sluice.pipelines.progress.latency_report import Tally, render
from sluice.pipelines.progress.stream_progress import render_line
from sluice.pipelines.progress.stream_stats import StreamFigures
from sluice.transforms.pubsub.clients import subscriber
from sluice.transforms.pubsub.google_subscription import GoogleSubscription
from sluice.transforms.pubsub.subscription import Received

_SHOWN_MESSAGES = 3
# How many fields of a message are shown, from its start and its end: all forty do not fit on a screen.
_FIRST_FIELDS, _LAST_FIELDS = 4, 2
# How often a line is shown without a terminal.
_LINE_SECS = 4.0
# How long published rows may take to come back.
_REST_SECS = 30.0


def demonstrate(model: str, rate: float, seconds: float) -> int:
    """Scores `rate` rows a second for `seconds`; returns the exit code.

    Raises:
      RuntimeError: the emulator does not run.
      SluiceError: the job failed, or rows could not be published.
    """
    load = SimulateOptions(topic=INPUT_TOPIC, rate=rate, seconds=seconds)
    say("Starting Google's Pub/Sub emulator ...")
    with emulator():
        make_ends()
        live = standard_error().isatty()
        flags = [f"--model={model}", *END_FLAGS, f"--progress={'bar' if live else 'none'}"]
        say(f"\n$ sluice streaming {' '.join(flags[:-1])}")
        with JobProcess(flags) as job:
            try:
                warm_up(job)
                say(f"\n$ sluice simulate --topic {load.topic} --rate {load.rate:g} --seconds {load.seconds:g}")
                published = simulate(load, pause=time.sleep if live else _Lines(job).pause)
                job.wait_for(published.sent + 1, _REST_SECS)  # and the row of the warm-up
            except KeyboardInterrupt:
                if live:
                    standard_error().write("\r\x1b[K")  # the job's progress line
                raise
            code = job.drain()
        tally = _FirstKept()
        _read(tally, published.sent)
    say(f"\n{published.report()}")
    return code or _show(tally, published.sent)


def _show(tally: "_FirstKept", sent: int) -> int:
    """Shows the predictions that came back; returns the exit code."""
    report = tally.report()
    say("\nSome fields of the first predictions:\n")
    for message in tally.kept:
        say(f"  {_shortened(message.payload)}")
    for message in tally.kept[:1]:
        say(f"  attributes of the first: {json.dumps(dict(message.attributes))}")
    say("\nFrom sending a row until Pub/Sub had its prediction:\n")
    say("\n".join(f"  {line}" for line in render(report).splitlines()))
    if report.distinct_ids < sent:
        tell(f"sluice demo-streaming: {report.distinct_ids:,} of {sent:,} predictions came\n", logging.ERROR)
        return EXIT_FAILED
    return EXIT_OK


class _Lines:
    """Shows a job's figures every few seconds, where there is no terminal for the job's own line."""

    def __init__(self, job: JobProcess) -> None:
        self._job = job
        self._due = time.monotonic() + _LINE_SECS

    def pause(self, secs: float) -> None:
        """Shows a line if one is due, and waits."""
        if time.monotonic() >= self._due:
            self._due += _LINE_SECS
            say(f"  {figures_line(self._job.figures())}")
        time.sleep(secs)


def figures_line(figures: Mapping[str, Any]) -> str:
    """Returns the figures of a health port as the job's own progress line shows them."""
    if not figures:
        return "no answer from the job"
    values = {field.name: figures[field.name] for field in dataclasses.fields(StreamFigures)}
    return render_line(StreamFigures(**values), sys.maxsize)


class _FirstKept(Tally):
    """Keeps the first predictions, to show them."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Received] = []

    def add(self, messages: Sequence[Received]) -> None:
        super().add(messages)
        self.kept = [*self.kept, *messages][:_SHOWN_MESSAGES]


def _read(tally: Tally, count: int) -> None:
    """Reads the predictions of so many rows, or those that come in time."""
    with contextlib.closing(GoogleSubscription(subscriber(), OUTPUT)) as subscription:
        read(subscription, tally, LatencyOptions(subscription=OUTPUT, count=count, seconds=_REST_SECS))


def _shortened(payload: bytes) -> str:
    """Returns a JSON object without the fields in its middle."""
    fields = [f'"{name}": {json.dumps(value)}' for name, value in json.loads(payload).items()]
    if len(fields) > _FIRST_FIELDS + _LAST_FIELDS:
        fields = [*fields[:_FIRST_FIELDS], "...", *fields[-_LAST_FIELDS:]]
    return "{" + ", ".join(fields) + "}"
