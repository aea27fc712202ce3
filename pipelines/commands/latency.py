"""`sluice latency`: its flags. commands.latency_run reads the predictions."""

import argparse
import dataclasses

from sluice.pipelines.options.flags import add_arguments as add_flags
from sluice.pipelines.options.flags import check_number, flag, from_namespace, progress_flag

HELP = "read predictions back and report how long they took"
DESCRIPTION = """Reads predictions from a subscription, acknowledges them, and reports how many came, how many came
twice, how fast, and how long they took: from the attribute `sent`, which `sluice simulate` sets, or else from the
time when the row was published, until Pub/Sub accepted the prediction. The two times come from two clocks, that of
the sending machine and that of the service: the figures include their difference, and a negative latency reveals it.
Google's emulator on the same machine uses the same clock, to the millisecond. The time that a prediction then waits
in the subscription does not count."""
EPILOG = """example:
  sluice latency --subscription projects/P/subscriptions/predictions --count 10000 --seconds 300 --json latency.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatencyOptions:
    """Options of `sluice latency`. Checks itself: an invalid value raises UsageError."""

    subscription: str = flag(
        "Subscription to the predictions' topic: projects/P/subscriptions/S; its messages are acknowledged",
        group="Input",
        metavar="SUBSCRIPTION",
    )
    count: int = flag("End when the predictions of so many rows have come", 0, int, group="Run")
    seconds: float = flag("End after so many seconds", 0.0, float, group="Run")
    json: str = flag("Write the figures as JSON to this file", "", group="Output", metavar="FILE")
    progress: str = progress_flag()

    def __post_init__(self) -> None:
        check_number(self, "count", whole=True)
        check_number(self, "seconds")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice latency`."""
    add_flags(parser, LatencyOptions)


def run(args: argparse.Namespace) -> int:
    """Reads predictions and prints the figures; returns the exit code. Raises as commands.latency_run.report does."""
    options = from_namespace(LatencyOptions, args)
    from sluice.pipelines.commands.latency_run import report  # imports the Pub/Sub client

    return report(options)
