"""`sluice latency`: its flags. commands.latency_run reads the predictions."""

import argparse

from sluice.pipelines.options.flags import add_arguments as add_flags
from sluice.pipelines.options.flags import from_namespace
from sluice.pipelines.options.stream_tools import LatencyOptions

HELP = "read predictions back and report how long they took"
DESCRIPTION = """Reads predictions from a subscription, acknowledges them, and reports how many came, how many came
twice, how fast, and how long they took: from the attribute `sent`, which `sluice simulate` sets, or else from the
time when the row was published, until Pub/Sub accepted the prediction. The two times come from two clocks, that of
the sending machine and that of the service: the figures include their difference, and a negative latency reveals it.
Google's emulator on the same machine uses the same clock, to the millisecond. The time that a prediction then waits
in the subscription does not count."""
EPILOG = """example:
  sluice latency --subscription projects/P/subscriptions/predictions --count 10000 --seconds 300 --json latency.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice latency`."""
    add_flags(parser, LatencyOptions)


def run(args: argparse.Namespace) -> int:
    """Reads predictions and prints the figures; returns the exit code. Raises as commands.latency_run.report does."""
    options = from_namespace(LatencyOptions, args)
    from sluice.pipelines.commands.latency_run import report  # imports the Pub/Sub client

    return report(options)
