"""`sluice replay`: its flags. commands.replay_run sends the failures."""

import argparse

from sluice.pipelines.options.flags import add_arguments as add_flags
from sluice.pipelines.options.flags import from_namespace
from sluice.pipelines.options.stream_tools import ReplayOptions

HELP = "send a stream's failures back to its topic"
DESCRIPTION = """Publishes the message of each failure to a topic again, with the attributes that it had. The
attribute sluice_attempt counts the attempts; a streaming job copies it into a new failure of the message. A failure
goes to --final instead if it has been tried --max_attempts times, if its payload was not kept, or if the topic
refuses it. Nothing is dropped, and a replayed message may arrive twice."""
EPILOG = """Files and tables are left as they are: what is replayed again is sent again. So delete a file or move it
away afterwards, and give --row_restriction for a table. A failure in a subscription is acknowledged after it is sent
or written. Failures that are published or inserted after the start are left, so that replayed messages which fail
again do not go round and round.

examples:
  sluice replay --failures 'gs://bucket/failures-*.jsonl' --to projects/P/topics/input
  sluice replay --failures projects/P/subscriptions/failures --to projects/P/topics/input --stages predict
  sluice replay --failures_table P.D.failed --row_restriction "timestamp > '2026-01-31'" --to projects/P/topics/input"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice replay`."""
    add_flags(parser, ReplayOptions)


def run(args: argparse.Namespace) -> int:
    """Replays failures; returns the exit code. Raises as commands.replay_run.replay_failures does."""
    options = from_namespace(ReplayOptions, args)
    from sluice.pipelines.commands.replay_run import replay_failures  # imports Beam

    return replay_failures(options)
