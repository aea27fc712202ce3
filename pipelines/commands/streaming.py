"""`sluice streaming`: its flags. pipelines.streaming runs the job."""

import argparse

from sluice.pipelines.commands.start import importing
from sluice.pipelines.options.flags import add_arguments as add_flags
from sluice.pipelines.options.flags import from_namespace
from sluice.pipelines.options.streaming import StreamingOptions
from sluice.pipelines.progress.phases import Phases

HELP = "score messages of a Pub/Sub subscription as they arrive"
DESCRIPTION = """Scores messages with a model, and writes each message with its predictions, until it is stopped by
ctrl-C or SIGTERM. It then finishes the messages in work. A message is acknowledged after its prediction or its
failure is written."""
EPILOG = """All other flags go to Beam, for example
  --runner=DataflowRunner --project=P --region=R --temp_location=gs://B/tmp"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice streaming`."""
    add_flags(parser, StreamingOptions)


def run(args: argparse.Namespace) -> int:
    """Runs the job; returns its exit code. Raises as pipelines.streaming.run does."""
    options = from_namespace(StreamingOptions, args)
    phases = Phases()
    with importing(phases, options.model, args.beam_flags):
        from sluice.pipelines import streaming  # imports Beam

    return streaming.run(options, args.beam_flags, phases)
