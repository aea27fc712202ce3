"""`sluice batch`: its flags. pipelines.batch runs the job."""

import argparse

from sluice.pipelines.commands.start import importing
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.flags import add_arguments as add_flags
from sluice.pipelines.options.flags import from_namespace
from sluice.pipelines.progress.phases import Phases

HELP = "score files or BigQuery tables"
DESCRIPTION = "Scores files or BigQuery tables with a model, and writes each row with its predictions."
EPILOG = """All other flags go to Beam, for example
  --runner=DataflowRunner --project=P --region=R --temp_location=gs://B/tmp
  --runner=FlinkRunner --flink_master=HOST:8081 --environment_type=EXTERNAL --environment_config=HOST:50000
  --runner=PortableRunner --job_endpoint=HOST:8099 and the options that this job server declares"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice batch`."""
    add_flags(parser, BatchOptions)


def run(args: argparse.Namespace) -> int:
    """Runs the job; returns its exit code. Raises as pipelines.batch.run does."""
    options = from_namespace(BatchOptions, args)
    phases = Phases()
    with importing(phases, options.model, args.beam_flags):
        from sluice.pipelines import batch  # imports Beam

    return batch.run(options, args.beam_flags, phases)
