"""`sluice compare`: its flags. commands.compare_run measures."""

import argparse

from sluice.pipelines.options.compare import CompareOptions
from sluice.pipelines.options.flags import add_arguments as add_flags
from sluice.pipelines.options.flags import from_namespace

HELP = "measure which way to serve a model fits: in the worker, or behind an endpoint"
DESCRIPTION = """Measures, on this machine, the ways to serve a model: in the worker, over gRPC and over REST. It finds
batch sizes and calls in flight, runs whole jobs and streams of single messages, and says which way costs least, which
holds which load, how many workers that takes, and the flags to use. Interrupted, it shows what it has measured."""
EPILOG = """All other flags are those of `sluice batch`, such as --signature, --map or --null_values, for all ways.

examples:
  sluice compare --model work/model --input work/criteo.csv
  sluice compare --model work/model --input work/criteo.csv --only worker --minutes 1
  sluice compare --model work/model --input work/criteo.csv --endpoint grpc://HOST:8500/criteo \\
      --rows 1000000000 --deadline 5h --rows_per_month 30000000000 --write_config job.yaml"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice compare`."""
    add_flags(parser, CompareOptions)


def run(args: argparse.Namespace) -> int:
    """Measures, and prints the answer; returns the exit code. Raises as commands.compare_run.compare does."""
    options = from_namespace(CompareOptions, args)
    from sluice.pipelines.commands.compare_run import compare  # imports Beam

    return compare(options, args.beam_flags)
