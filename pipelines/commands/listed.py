"""The commands by name. A command's module is imported when it is used: one takes modules that others need not."""

import argparse
import dataclasses
import importlib
from collections.abc import Mapping
from typing import Protocol, cast


class Command(Protocol):
    """A module that is a command.

    Attributes:
      HELP: its line in `sluice --help`; that of `Listed`.
      DESCRIPTION, EPILOG: what its own help shows above and below the flags.
    """

    HELP: str
    DESCRIPTION: str
    EPILOG: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the command's flags."""

    def run(self, args: argparse.Namespace) -> int:
        """Runs the command; returns the exit code.

        Raises:
          UsageError: the command line is at fault.
        """


@dataclasses.dataclass(frozen=True)
class Listed:
    """What is known of a command before its module is imported.

    Attributes:
      module: its name, within sluice.pipelines.
      help: the module's HELP.
      hands_on: the command accepts other flags too, as `args.beam_flags`: those of Beam, or of `sluice batch`.
      early: TensorFlow's library is opened while the module is imported.
    """

    module: str
    help: str
    hands_on: bool = False
    early: bool = False

    def load(self) -> Command:
        """Imports the command."""
        return cast(Command, importlib.import_module(f"sluice.pipelines.{self.module}"))


# In the order of `sluice --help`.
COMMANDS: Mapping[str, Listed] = {
    "batch": Listed("commands.batch", "score files or BigQuery tables", hands_on=True),
    "streaming": Listed("commands.streaming", "score messages of a Pub/Sub subscription as they arrive", hands_on=True),
    "predict": Listed("commands.predict", "score a few JSON rows, and print them with their predictions", early=True),
    "inspect": Listed("commands.inspect_model", "show a model's signatures, versions and columns"),
    "schema": Listed("commands.schema", "show the types of JSON rows, as --input_schema takes them"),
    "zoo": Listed("commands.zoo", "make a known model, and sample input for it"),
    "demo": Listed("commands.demo", "make a model, score sample data with it, and show the predictions"),
    "demo-streaming": Listed(
        "commands.demo_streaming",
        "score messages of an emulated Pub/Sub, and show the predictions and how long they took",
    ),
    "serve": Listed(
        "commands.serve", "serve models to clients under test; follows TF Serving's API, but is not TF Serving"
    ),
    "failures": Listed("commands.failures", "show why rows failed, how many, and what helps"),
    "replay": Listed("commands.replay", "send a stream's failures back to its topic"),
    "simulate": Listed("commands.simulate", "publish rows to a topic at a steady rate"),
    "latency": Listed("commands.latency", "read predictions back and report how long they took"),
    "compare": Listed(
        "commands.compare",
        "measure which way to serve a model fits: in the worker, or behind an endpoint",
        hands_on=True,
    ),
    "template": Listed("dataflow.template", "write the parameters of a Dataflow Flex Template"),
}
