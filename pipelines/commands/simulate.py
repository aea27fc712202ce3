"""`sluice simulate`: its flags. commands.simulate_run publishes the rows."""

import argparse
import dataclasses

from sluice.models import zoo
from sluice.models.errors import UsageError
from sluice.pipelines.options.flags import add_arguments as add_flags
from sluice.pipelines.options.flags import check_number, flag, from_namespace, parse_bool, progress_flag

HELP = "publish rows to a topic at a steady rate"
DESCRIPTION = """Publishes rows as JSON to a Pub/Sub topic at a steady rate, until --rows or --seconds are reached or
it is interrupted. It sends each row when the clock says so, even if earlier rows have not been accepted yet, so that
a slow service does not slow the load down. It reports when this machine cannot keep up. Each message has two
attributes: a unique `id`, and `sent`, the time when it was handed to the service, in microseconds since the epoch;
see `sluice latency`."""
EPILOG = """examples:
  sluice simulate --topic projects/P/topics/input --rate 200 --seconds 60
  sluice simulate --topic projects/P/topics/input --zoo natality --rows 100000 --rate 0"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulateOptions:
    """Options of `sluice simulate`. Checks itself: an invalid value raises UsageError."""

    topic: str = flag("Topic for the rows: projects/P/topics/T", group="Output", metavar="TOPIC")
    create: bool = flag("Create the topic if it does not exist", False, parse_bool, group="Output")
    zoo: str = flag(
        f"Rows from this model's sample input: {', '.join(zoo.NAMES)} (default: criteo)", "", choices=zoo.NAMES,
        group="Input",
    )  # fmt: skip
    input: str = flag(
        "Rows from this JSON Lines file; with --rows or --seconds, repeatedly", "", group="Input", metavar="FILE"
    )
    poison: int = flag("Make every Nth message invalid JSON, to test failures; 0: none", 0, int, group="Input")
    rate: float = flag("Rows per second; 0: as fast as possible", 50.0, float, group="Run")
    rows: int = flag("End after so many rows", 0, int, group="Run")
    seconds: float = flag("End after so many seconds", 0.0, float, group="Run")
    progress: str = progress_flag()

    def __post_init__(self) -> None:
        if self.zoo and self.input:
            raise UsageError("--zoo and --input are two sources of rows; give one")
        for name in ("rate", "seconds"):
            check_number(self, name)
        for name in ("rows", "poison"):
            check_number(self, name, whole=True)

    @property
    def endless(self) -> bool:
        return not (self.rows or self.seconds)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice simulate`."""
    add_flags(parser, SimulateOptions)


def run(args: argparse.Namespace) -> int:
    """Publishes rows; returns the exit code. Raises as commands.simulate_run.simulate does."""
    options = from_namespace(SimulateOptions, args)
    from sluice.pipelines.commands.simulate_run import simulate  # imports the Pub/Sub client

    return simulate(options)
