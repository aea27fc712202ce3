"""`sluice demo-streaming`: an emulated Pub/Sub, a job that scores its messages, and how long each took; what
`make demo-streaming` runs."""

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sluice.models.errors import SluiceError, UsageError
from sluice.pipelines.commands.demo import MODEL, make_model, say
from sluice.pipelines.progress.latency_report import Tally
from sluice.pipelines.progress.outcome import EXIT_FAILED, EXIT_OK

_PROJECT = "projects/sluice-demo"
# What runs here has them in an emulator of its own.
INPUT_TOPIC, OUTPUT_TOPIC, FAILURES_TOPIC = (f"{_PROJECT}/topics/{name}" for name in ("input", "predictions", "failed"))
INPUT, OUTPUT = f"{_PROJECT}/subscriptions/input", f"{_PROJECT}/subscriptions/predictions"

_SHOWN_MESSAGES = 3
# Of a message so many fields are shown, the first ones and the last ones: all forty do not fit on a screen.
_FIRST_FIELDS, _LAST_FIELDS = 4, 2
# Where there is no terminal, a line is shown every so often.
_LINE_SECS = 4.0
_POLL_SECS = 0.1
# It imports TensorFlow and loads the model.
_START_SECS = 120.0
# For what was published to come through.
_REST_SECS = 30.0
_CALL_SECS = 20.0

_NEXT = """
The same by hand, in three terminals, the last two of them after `export PUBSUB_EMULATOR_HOST=127.0.0.1:8085`:

  {emulator} --host=127.0.0.1 --port=8085

  sluice simulate --create --topic projects/demo/topics/input --rows 1
  sluice streaming --model {model} --input_topic projects/demo/topics/input \\
      --output out/predictions.jsonl --failures out/failed

  sluice simulate --topic projects/demo/topics/input --rate 50

Every 10 s there is a file more of predictions; ctrl-C ends each of them, and what is in work is finished first.

With Pub/Sub itself there is no emulator and no variable, and your project stands for `demo`; on Dataflow, `sluice
streaming` gets --runner=DataflowRunner --project=P --region=R --temp_location=gs://BUCKET/tmp as well."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice demo-streaming`."""
    parser.add_argument("--seconds", type=float, default=20.0, help="how long messages come (default: %(default)g)")
    parser.add_argument("--rate", type=float, default=50.0, help="messages a second (default: %(default)g)")
    parser.add_argument(
        "--output", default="demo-output", metavar="DIR", help="where the model goes (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the demo; returns 0 if every message came back with its prediction, or else 1.

    Raises:
      UsageError: the emulator is not installed, or the flags do not hold.
    """
    from sluice.pipelines.commands.pubsub_emulator import MISSING, find_emulator
    from sluice.pipelines.commands.simulate import SimulateOptions

    load = SimulateOptions(topic=INPUT_TOPIC, rate=args.rate, seconds=args.seconds)
    if not (args.rate and args.seconds):
        raise UsageError(f"--rate and --seconds are above 0, found {args.rate:g} and {args.seconds:g}")
    command = find_emulator()
    if not command:
        raise UsageError(MISSING)
    with stopped_by(signal.SIGTERM, signal.SIGHUP):
        model = make_model(args.output)
        try:
            code = _demonstrate(load, model)
        except (RuntimeError, SluiceError) as error:
            sys.stderr.write(f"sluice demo-streaming: {error}\n")
            return EXIT_FAILED
    if code == EXIT_OK:
        say(_NEXT.format(emulator=" ".join(command), model=model))
    return code


def _demonstrate(load: Any, model: str) -> int:
    say("Starting Google's Pub/Sub emulator ...")
    with emulator():
        make_ends()
        live = sys.stderr.isatty()
        flags = [f"--model={model}", *END_FLAGS, f"--progress={'bar' if live else 'none'}"]
        say(f"\n$ sluice streaming {' '.join(flags[:-1])}")
        with Job(flags) as job:
            try:
                warm_up(job)
                say(f"\n$ sluice simulate --topic {load.topic} --rate {load.rate:g} --seconds {load.seconds:g}")
                load_done = simulate(load, pause=time.sleep if live else _Lines(job).pause)
                job.wait_for(load_done.sent + 1, _REST_SECS)  # and the one that warmed it up
            except KeyboardInterrupt:
                if live:
                    sys.stderr.write("\r\x1b[K")  # the line that the job shows
                raise
            code = job.drain()
        tally = _Kept()
        _read(tally, load_done.sent)
    say(f"\n{load_done.report()}")
    return code or _show(tally, load_done.sent)


def _show(tally: "_Kept", sent: int) -> int:
    """Shows what came back; returns the exit code."""
    from sluice.pipelines.progress.latency_report import render

    report = tally.report()
    say("\nThe first predictions, some of their fields:\n")
    for message in tally.kept:
        say(f"  {_shortened(message.payload)}")
    for message in tally.kept[:1]:
        say(f"  attributes of the first: {json.dumps(dict(message.attributes))}")
    say("\nFrom sending a row until Pub/Sub had its prediction:\n")
    say("\n".join(f"  {line}" for line in render(report).splitlines()))
    if report.distinct_ids < sent:
        sys.stderr.write(f"sluice demo-streaming: {report.distinct_ids:,} of {sent:,} predictions came\n")
        return EXIT_FAILED
    return EXIT_OK


@contextlib.contextmanager
def stopped_by(*signals: signal.Signals) -> Iterator[None]:
    """Has these signals raise KeyboardInterrupt while the block runs, as ctrl-C does, so that what runs is stopped."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def emulator() -> Iterator[str]:
    """Runs an emulator that the clients of this process, and of those it starts, go to while the block runs; gives
    HOST:PORT.

    Raises:
      RuntimeError: see pipelines.commands.pubsub_emulator.
    """
    from sluice.pipelines.commands.pubsub_emulator import running_emulator
    from sluice.transforms.pubsub.clients import EMULATOR_VARIABLE

    before = os.environ.get(EMULATOR_VARIABLE)
    with running_emulator() as host:
        os.environ[EMULATOR_VARIABLE] = host
        try:
            yield host
        finally:
            del os.environ[EMULATOR_VARIABLE]
            if before is not None:
                os.environ[EMULATOR_VARIABLE] = before


def make_ends() -> None:
    """Makes the topics, the subscription that the job reads, and the one that sees its predictions."""
    from sluice.transforms.pubsub.clients import subscriber
    from sluice.transforms.pubsub.resources import create_topic

    for topic in (INPUT_TOPIC, OUTPUT_TOPIC, FAILURES_TOPIC):
        create_topic(topic)
    with contextlib.closing(subscriber()) as client:
        for name, topic in ((INPUT, INPUT_TOPIC), (OUTPUT, OUTPUT_TOPIC)):
            client.create_subscription(name=name, topic=topic, timeout=_CALL_SECS)


# The flags of a job between them.
END_FLAGS = (
    f"--input_subscription={INPUT}",
    f"--output_topic={OUTPUT_TOPIC}",
    f"--failures_topic={FAILURES_TOPIC}",
)


class Job:
    """`sluice streaming` in a process of its own, which is killed at the end of the `with` block unless it was drained.

    It is in a process group of its own, where ctrl-C does not reach it: whoever started it decides what that means.

    Args:
      flags: of `sluice streaming`; a health port is added.
    """

    def __init__(self, flags: Sequence[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self._command = [sys.executable, "-m", "sluice", "streaming", *flags, f"--health_port={self._port}"]
        # A proxy that is set for this machine is not asked for what is on it.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __enter__(self) -> "Job":
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, process_group=0)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def figures(self) -> dict[str, Any]:
        """Returns what its health port tells, see StreamFigures.to_json; {} as long as it does not answer."""
        try:
            with self._opener.open(f"http://127.0.0.1:{self._port}/metrics", timeout=_CALL_SECS) as response:
                return dict(json.load(response))
        except OSError:
            return {}

    def wait_for(self, count: int, secs: float) -> None:
        """Waits until so many messages are done. Raises as `wait_until`."""
        self.wait_until(lambda figures: figures["messages"] >= count, f"{count:,} messages are done", secs)

    def wait_until(self, done: Callable[[dict[str, Any]], bool], what: str, secs: float) -> None:
        """Waits until something holds for its figures.

        Raises:
          SluiceError: it does not in time, or the job has ended.
        """
        deadline = time.monotonic() + secs
        while not ((figures := self.figures()) and done(figures)):
            if self._process.poll() is not None:
                raise SluiceError(f"the job ended by itself, with exit code {self._process.returncode}")
            if time.monotonic() > deadline:
                raise SluiceError(f"waited {secs:g} s in vain until {what}; its figures: {figures}")
            time.sleep(_POLL_SECS)

    def drain(self) -> int:
        """Has it finish what is in work; returns its exit code.

        Raises:
          SluiceError: it does not come to an end.
        """
        self._process.terminate()
        try:
            return self._process.wait(_REST_SECS)
        except subprocess.TimeoutExpired as error:
            raise SluiceError(f"the job was told to stop, and still ran {_REST_SECS:g} s later") from error


def warm_up(job: Job) -> None:
    """Waits until the job has scored a message: its start is not what is measured. Takes the prediction away."""
    from sluice.transforms.pubsub.clients import subscriber

    job.wait_until(lambda figures: figures["ready"], "the job takes messages", _START_SECS)
    simulate(_one_row())
    job.wait_for(1, _START_SECS)
    with contextlib.closing(subscriber()) as client:
        pulled = client.pull(subscription=OUTPUT, max_messages=1, timeout=_CALL_SECS).received_messages
        client.acknowledge(subscription=OUTPUT, ack_ids=[each.ack_id for each in pulled], timeout=_CALL_SECS)


def _one_row() -> Any:
    from sluice.pipelines.commands.simulate import SimulateOptions

    return SimulateOptions(topic=INPUT_TOPIC, rows=1, rate=0.0)


def simulate(options: Any, pause: Callable[[float], None] = time.sleep) -> Any:
    """Publishes the same rows over and over, and waits until they are published; returns the Simulation.

    Args:
      options: a SimulateOptions.
      pause: waits for so many seconds; called between rows.

    Raises:
      SluiceError: rows could not be published.
    """
    from sluice.pipelines.commands.simulate import Simulation, zoo_rows
    from sluice.transforms.pubsub.publish import Publisher
    from sluice.transforms.pubsub.publish_sender import PublishOptions

    rows = next(zoo_rows(MODEL))  # no more: to make rows would take time from the job
    publisher: Publisher[int] = Publisher(options.topic, PublishOptions())
    with contextlib.closing(publisher):
        simulation = Simulation(options, publisher, itertools.repeat(rows), pause=pause)
        simulation.run()
        simulation.finish()
    return simulation


class _Lines:
    """Shows a job's figures every few seconds, where there is no terminal for its own line."""

    def __init__(self, job: Job) -> None:
        self._job = job
        figures_line(job.figures())  # imports what it needs: later, rows would wait for that
        self._due = time.monotonic() + _LINE_SECS

    def pause(self, secs: float) -> None:
        """Waits for so long; before that, shows a line if one is due."""
        if time.monotonic() >= self._due:
            self._due += _LINE_SECS
            say(f"  {figures_line(self._job.figures())}")
        time.sleep(secs)


def figures_line(figures: dict[str, Any]) -> str:
    """Returns the figures of a health port as the job's own progress line has them."""
    from sluice.pipelines.progress.stream_stats import StreamFigures
    from sluice.pipelines.progress.streaming import render_line

    if not figures:
        return "no answer from the job"
    taken = {field.name: figures[field.name] for field in dataclasses.fields(StreamFigures)}
    return render_line(StreamFigures(**taken), sys.maxsize)


class _Kept(Tally):
    """Keeps the first predictions, to show them."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []

    def add(self, messages: Sequence[Any]) -> None:
        super().add(messages)
        self.kept = [*self.kept, *messages][:_SHOWN_MESSAGES]


def _read(tally: Tally, count: int) -> None:
    """Reads the predictions of so many rows, or those that come in time."""
    from sluice.pipelines.commands.latency import LatencyOptions, read
    from sluice.transforms.pubsub.clients import subscriber
    from sluice.transforms.pubsub.google_subscription import GoogleSubscription

    with contextlib.closing(GoogleSubscription(subscriber(), OUTPUT)) as subscription:
        read(subscription, tally, LatencyOptions(subscription=OUTPUT, count=count, seconds=_REST_SECS))


def _shortened(payload: bytes) -> str:
    """Returns a JSON object with fields left out in its middle."""
    fields = [f'"{name}": {json.dumps(value)}' for name, value in json.loads(payload).items()]
    if len(fields) > _FIRST_FIELDS + _LAST_FIELDS:
        fields = [*fields[:_FIRST_FIELDS], "...", *fields[-_LAST_FIELDS:]]
    return "{" + ", ".join(fields) + "}"
