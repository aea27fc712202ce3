"""Streaming jobs under test: in this process, which loads TensorFlow once, or in a process that can be killed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sluice.pipelines.cli import main
from sluice.pipelines.options.streaming import StreamingOptions
from sluice.transforms.pubsub.lease_keeper import LeaseKeeper
from sluice.transforms.pubsub.read_local import open_sources
from tests.support.fakes import PATIENCE_SECS
from tests.support.processes import Forked, run_sluice
from tests.support.servers import Pubsub, free_port

_POLL_SECS = 0.02


@dataclasses.dataclass(frozen=True)
class Ends:
    """The topic and subscription that a job reads, and subscriptions of the topics that it writes."""

    pubsub: Pubsub
    topic: str
    subscription: str
    output_topic: str
    output: str
    failures_topic: str
    failures: str

    @property
    def flags(self) -> list[str]:
        return [
            f"--input_subscription={self.subscription}",
            f"--output_topic={self.output_topic}",
            f"--failures_topic={self.failures_topic}",
        ]

    def publish(self, payloads: Sequence[bytes], attributes: Any = ()) -> list[str]:
        return self.pubsub.publish(self.topic, payloads, attributes)

    def predictions(self, count: int, secs: float = PATIENCE_SECS) -> list[Any]:
        """Returns `count` messages of the output topic, or those that come within the time."""
        return [received.message for received in self.pubsub.pull_all(self.output, count, secs)]

    def failed(self, count: int, secs: float = PATIENCE_SECS) -> list[dict[str, Any]]:
        """Returns `count` published failures, or those that come within the time."""
        return [json.loads(each.message.data) for each in self.pubsub.pull_all(self.failures, count, secs)]


def make_ends(pubsub: Pubsub, **subscription: Any) -> Ends:
    """Makes topics and subscriptions for one job.

    Args:
      subscription: fields of the subscription that the job reads.
    """
    topic, output, failures = pubsub.make_topic(), pubsub.make_topic(), pubsub.make_topic()
    return Ends(
        pubsub,
        topic,
        pubsub.make_subscription(topic, **subscription),
        output,
        pubsub.make_subscription(output),
        failures,
        pubsub.make_subscription(failures),
    )


def wait_until(done: Callable[[], bool], what: str = "", secs: float = PATIENCE_SECS) -> None:
    """Waits until `done()` is true.

    Raises:
      AssertionError: it is not true in time.
    """
    deadline = time.monotonic() + secs
    pause = threading.Event()
    while not done():
        assert time.monotonic() < deadline, f"waited {secs:g} s in vain: {what}"
        pause.wait(_POLL_SECS)


class LocalJob:
    """`sluice streaming` on a thread of this process, one job at a time, drained at the end of the `with` block.

    Attributes:
      code: the exit code, once the job has ended.
      summary: the content of --summary_file.
    """

    def __init__(self, flags: Sequence[str]) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self._summary_path = f"{self._directory.name}/summary.json"
        self.port = free_port()
        run = ["streaming", *flags, f"--summary_file={self._summary_path}", f"--health_port={self.port}"]
        self._thread = threading.Thread(target=lambda: setattr(self, "code", main([*run, "--progress=none"])))
        self.code: int | None = None
        self.summary: dict[str, Any] = {}

    def __enter__(self) -> LocalJob:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self._directory.cleanup()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def figures(self) -> dict[str, Any]:
        """Returns the figures of the health port; {} while it does not answer."""
        return ask(self.port, "/figures")[1]

    def wait_for(self, count: int, name: str = "messages") -> None:
        """Waits until a figure has reached `count`."""
        wait_until(lambda: not self.running or self.figures().get(name, 0) >= count, f"{name} >= {count}")
        assert self.running, f"the job ended with code {self.code}"

    def stop(self) -> int:
        """Drains the job; returns its exit code."""
        while self._thread.is_alive():
            for source in open_sources():
                source.drain()
            self._thread.join(_POLL_SECS)
        with contextlib.suppress(FileNotFoundError), open(self._summary_path, encoding="utf-8") as file:
            self.summary = json.load(file)
        assert self.code is not None
        return self.code

    def wait(self) -> int:
        """Waits until the job ends by itself; returns its exit code."""
        self._thread.join(PATIENCE_SECS)
        assert not self._thread.is_alive()
        return self.stop()


# Pub/Sub's least deadline for acknowledging a message. A job holds messages for 30 s at a time.
_LEASE_SECS = 10


def shorten_leases() -> None:
    """Makes what this process holds when it is killed come again after 10 s, so that no test waits for 30."""
    init = LeaseKeeper.__init__

    def with_short_leases(keeper: LeaseKeeper, subscription: Any, lease_secs: int, *others: Any) -> None:
        init(keeper, subscription, min(lease_secs, _LEASE_SECS), *others)

    LeaseKeeper.__init__ = with_short_leases  # type: ignore[method-assign,assignment]


def run_with_short_leases(arguments: list[str]) -> None:
    """Runs `sluice ARGUMENTS` in a fork, as `run_sluice` does."""
    shorten_leases()
    run_sluice(arguments)


class ProcessJob:
    """`sluice streaming` in its own process."""

    def __init__(
        self,
        flags: Sequence[str],
        environment: Mapping[str, str] | None = None,
        run: Callable[[list[str]], int | None] = run_with_short_leases,
    ) -> None:
        self.port = free_port()
        self._log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115  open as long as the job
        self._command = ["streaming", *flags, f"--health_port={self.port}", "--progress=none"]
        self._run = run
        self.environment = {**os.environ, **(environment or {})}

    def __enter__(self) -> ProcessJob:
        self.process = Forked(self._run, self._command, output=self._log.name, environment=self.environment)
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._log.close()

    def figures(self) -> dict[str, Any]:
        return ask(self.port, "/figures")[1]

    def log(self) -> str:
        """Returns what the job has printed."""
        with open(self._log.name, encoding="utf-8") as file:
            return file.read()

    def wait_for(self, count: int, name: str = "messages") -> None:
        wait_until(
            lambda: self.process.poll() is not None or self.figures().get(name, 0) >= count, f"{name} >= {count}"
        )
        assert self.process.poll() is None, self.log()

    def kill(self) -> None:
        """Kills the process, as a failing machine would."""
        self.process.kill()
        self.process.wait()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Drains the job; returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECS)


def ask(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """Returns the HTTP status and the answer of a job's health port; (0, {}) if it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return 0, {}


def every_sink(model: str, pubsub: Pubsub, directory: Path) -> StreamingOptions:
    """Returns the options of a job with every kind of sink."""
    return StreamingOptions(
        input_subscription="projects/my-project/subscriptions/messages",
        model=model,
        columns=(),
        output_topic=pubsub.make_topic(),
        output_table="my-project.d.predictions",
        output=str(directory / "out.parquet"),
        failures_topic=pubsub.make_topic(),
        failures_table="my-project.d.failures",
        failures=str(directory / "failed"),
    )
