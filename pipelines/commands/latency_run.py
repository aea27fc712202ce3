"""Reads predictions back from a topic and reports how long they took."""

import contextlib
import dataclasses
import json
import logging
import threading
import time
from collections.abc import Callable

import grpc
from google.api_core.exceptions import GoogleAPICallError

from sluice.models.errors import SluiceError, UsageError
from sluice.pipelines.logs import tell
from sluice.pipelines.options.stream_tools import LatencyOptions
from sluice.pipelines.outcome import EXIT_FAILED, EXIT_OK
from sluice.pipelines.progress.display import Display, TextLines
from sluice.pipelines.progress.latency_report import Tally, render
from sluice.transforms.pubsub.clients import subscriber
from sluice.transforms.pubsub.google_subscription import GoogleSubscription
from sluice.transforms.pubsub.resources import find_subscription
from sluice.transforms.pubsub.subscription import Subscription

_LOG = logging.getLogger(__name__)

_THREADS = 4
_MAX_MESSAGES = 1000
# How often to check whether enough predictions have come.
_CHECK_SECS = 0.05
_RETRY_SECS = 1.0


def report(options: LatencyOptions) -> int:
    """Reads predictions and prints the figures; returns the exit code, which is 1 if --count was not reached.

    Raises:
      UsageError: the subscription cannot be read.
    """
    tally = Tally()
    lines = TextLines(lambda: f"{tally.distinct_ids:,} predictions")
    with (
        contextlib.closing(_open(options.subscription)) as subscription,
        Display(lines, options.progress),
        contextlib.suppress(KeyboardInterrupt),
    ):
        read(subscription, tally, options)
    found = tally.report()
    print(render(found))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"subscription": options.subscription} | dataclasses.asdict(found), file, indent=2)
            file.write("\n")
    if found.distinct_ids < options.count:
        tell(f"sluice latency: {found.distinct_ids:,} of {options.count:,} predictions came\n", logging.ERROR)
        return EXIT_FAILED
    return EXIT_OK


def read(
    subscription: Subscription, tally: Tally, options: LatencyOptions, clock: Callable[[], float] = time.monotonic
) -> None:
    """Reads until enough predictions have come, or the time is over.

    Raises:
      UsageError: the subscription cannot be read.
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
        while not stop.wait(_CHECK_SECS):
            if (options.count and tally.distinct_ids >= options.count) or (end is not None and clock() >= end):
                break
    finally:
        stop.set()
        subscription.interrupt()
        for thread in threads:
            thread.join()
    if errors:
        raise UsageError(str(errors[0])) from errors[0]


def _work(subscription: Subscription, tally: Tally, stop: threading.Event, errors: list[SluiceError]) -> None:
    while not stop.is_set():
        try:
            messages = subscription.pull(_MAX_MESSAGES)
            if messages:
                tally.add(messages)
                subscription.acknowledge([message.ack_id for message in messages])
        except SluiceError as error:
            errors.append(error)
            stop.set()
        except (grpc.RpcError, GoogleAPICallError) as error:  # unacknowledged messages come again, and are recognised
            _LOG.warning("%s does not answer, trying again: %s", subscription.name, error)
            stop.wait(_RETRY_SECS)


def _open(name: str) -> GoogleSubscription:
    client = subscriber()
    find_subscription(client, name, "--subscription")
    return GoogleSubscription(client, name)
