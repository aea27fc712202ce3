"""`sluice simulate`: its flags. commands.simulate_run publishes the rows."""

import argparse

from sluice.pipelines.options.flags import add_arguments as add_flags
from sluice.pipelines.options.flags import from_namespace
from sluice.pipelines.options.stream_tools import SimulateOptions

HELP = "publish rows to a topic at a steady rate"
DESCRIPTION = """Publishes rows as JSON to a Pub/Sub topic at a steady rate, until --rows or --seconds are reached or
it is interrupted. It sends each row when the clock says so, even if earlier rows have not been accepted yet, so that
a slow service does not slow the load down. It reports when this machine cannot keep up. Each message has two
attributes: a unique `id`, and `sent`, the time when it was handed to the service, in microseconds since the epoch;
see `sluice latency`."""
EPILOG = """examples:
  sluice simulate --topic projects/P/topics/input --rate 200 --seconds 60
  sluice simulate --topic projects/P/topics/input --zoo natality --rows 100000 --rate 0"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice simulate`."""
    add_flags(parser, SimulateOptions)


def run(args: argparse.Namespace) -> int:
    """Publishes rows; returns the exit code. Raises as commands.simulate_run.simulate does."""
    options = from_namespace(SimulateOptions, args)
    from sluice.pipelines.commands.simulate_run import simulate  # imports the Pub/Sub client

    return simulate(options)
