"""`sluice latency`: predictions read back from a topic, and how long they took."""

import argparse
import contextlib
import dataclasses
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from sluice.models.errors import SluiceError, UsageError
from sluice.pipelines.options.batch import PROGRESS
from sluice.pipelines.options.flags import add_arguments as add_flags
from sluice.pipelines.options.flags import flag, from_namespace
from sluice.pipelines.progress.display import Display
from sluice.pipelines.progress.latency_report import Tally, render
from sluice.pipelines.progress.outcome import EXIT_FAILED, EXIT_OK

_LOG = logging.getLogger(__name__)

DESCRIPTION = """Reads predictions from a subscription, acknowledges them, and reports how many came, how many of them
twice, how fast, and how long they took: from the attribute `sent`, which `sluice simulate` gives each row, or else from
when the row was published, until Pub/Sub took the prediction. These are moments of two clocks, that of the machine
which sent the row and that of the service: what the clocks differ by is in the figures, and a negative latency shows
that they do. With Google's emulator on the same machine it is one clock, which the emulator reads to the millisecond.
How long a prediction then lies in the subscription is not counted."""

EPILOG = """example:
  sluice latency --subscription projects/P/subscriptions/predictions --count 10000 --seconds 300 --json latency.json"""

_THREADS = 4
_MAX_MESSAGES = 1000
# How often it is looked whether enough has come.
_LOOK_SECS = 0.05
_RETRY_SECS = 1.0
_CALL_SECS = 20.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatencyOptions:
    """Options of `sluice latency`. Checks itself; a value that cannot be raises UsageError."""

    subscription: str = flag(
        "Of the topic that predictions go to, as projects/P/subscriptions/S; what is read is acknowledged",
        group="Input",
        metavar="SUBSCRIPTION",
    )
    count: int = flag("End when the predictions of so many rows have come", 0, int, group="Run")
    seconds: float = flag("End after so many seconds", 0.0, float, group="Run")
    json: str = flag("A file for the figures, as JSON", "", group="Output", metavar="FILE")
    progress: str = flag(
        "Progress: a line on a terminal, or in the log every 30 s", "auto", choices=PROGRESS, group="Run"
    )

    def __post_init__(self) -> None:
        for name in ("count", "seconds"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"--{name} is 0 or more, found {getattr(self, name):g}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice latency`."""
    add_flags(parser, LatencyOptions)


def run(args: argparse.Namespace) -> int:
    """Reads predictions and prints the figures; returns the exit code, which is 1 where --count was not reached.

    Raises:
      UsageError: the subscription cannot be read.
    """
    options = from_namespace(LatencyOptions, args)
    tally = Tally()
    subscription = _open(options.subscription)
    try:
        with _Progress(options.progress, tally), contextlib.suppress(KeyboardInterrupt):
            read(subscription, tally, options)
    finally:
        subscription.close()
    report = tally.report()
    print(render(report))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"subscription": options.subscription} | dataclasses.asdict(report), file, indent=2)
            file.write("\n")
    if report.distinct_ids < options.count:
        sys.stderr.write(f"sluice latency: {report.distinct_ids:,} of {options.count:,} predictions came\n")
        return EXIT_FAILED
    return EXIT_OK


def read(subscription: Any, tally: Tally, options: LatencyOptions, clock: Callable[[], float] = time.monotonic) -> None:
    """Reads until enough has come, or the time is over.

    Args:
      subscription: a transforms.pubsub.subscription.Subscription.

    Raises:
      UsageError: it cannot be read.
    """
    stop = threading.Event()
    errors: list[SluiceError] = []
    threads = [
        threading.Thread(target=_work, args=(subscription, tally, stop, errors), name="sluice-latency", daemon=True)
        for _ in range(_THREADS)
    ]
    end = clock() + options.seconds if options.seconds else None
    for thread in threads:
        thread.start()
    try:
        while not stop.wait(_LOOK_SECS):
            if (options.count and tally.distinct_ids >= options.count) or (end is not None and clock() >= end):
                break
    finally:
        stop.set()
        subscription.interrupt()
        for thread in threads:
            thread.join()
    if errors:
        raise UsageError(str(errors[0])) from errors[0]


def _work(subscription: Any, tally: Tally, stop: threading.Event, errors: list[SluiceError]) -> None:
    import grpc
    from google.api_core.exceptions import GoogleAPICallError

    while not stop.is_set():
        try:
            messages = subscription.pull(_MAX_MESSAGES)
            if messages:
                tally.add(messages)
                subscription.acknowledge([message.ack_id for message in messages])
        except SluiceError as error:
            errors.append(error)
            stop.set()
        except (grpc.RpcError, GoogleAPICallError) as error:  # what was not acknowledged comes again, and is known
            _LOG.warning("%s does not answer, trying again: %s", subscription.name, error)
            stop.wait(_RETRY_SECS)


def _open(name: str) -> Any:
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    from sluice.transforms.pubsub.clients import subscriber
    from sluice.transforms.pubsub.google_subscription import GoogleSubscription

    try:
        client = subscriber()
        client.get_subscription(subscription=name, timeout=_CALL_SECS)
    except exceptions.PermissionDenied as error:
        _LOG.debug("%s cannot be looked at: %s", name, error.message)
    except (exceptions.GoogleAPICallError, GoogleAuthError) as error:
        raise UsageError(f"--subscription {name} cannot be read: {error}") from error
    return GoogleSubscription(client, name)


class _Progress(Display):
    def __init__(self, mode: str, tally: Tally) -> None:
        super().__init__(mode)
        self._tally = tally

    def line(self, width: int) -> str:
        return self.log_line()[:width]

    def log_line(self) -> str:
        return f"{self._tally.distinct_ids:,} predictions"
