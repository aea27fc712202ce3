"""`sluice COMMAND`. Commands are imported when they run: `sluice --help` imports neither Beam nor TensorFlow."""

import argparse
import logging
import os
import sys
from typing import Any

from sluice.models.errors import UsageError
from sluice.pipelines.progress.outcome import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE

_DESCRIPTION = "Scores data with TensorFlow models on Apache Beam."
_EPILOG = """examples:
  sluice zoo criteo --export work --rows 10000
  sluice inspect --model work/model
  sluice batch --model work/model --input work/criteo.csv --output work/predictions.csv

exit codes: 0 done; 1 the job failed; 2 wrong usage, or model and input do not fit; 3 more failures than allowed"""


def _parser() -> argparse.ArgumentParser:
    from sluice.pipelines.commands import latency, replay, serve, simulate
    from sluice.pipelines.dataflow import template

    parser = argparse.ArgumentParser(
        "sluice", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--verbose", action="store_true", help="log what happens, and tracebacks of failed jobs")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_batch(commands)
    _add_streaming(commands)
    _add_inspect(commands)
    _add_zoo(commands)
    _add_demo(commands)
    _add_demo_streaming(commands)
    _add_described(commands, "serve", "serve models to clients under test; not TF Serving, but its API", serve)
    _add_described(commands, "replay", "feed failures of a stream back to its topic", replay)
    _add_described(commands, "simulate", "publish rows to a topic at a steady rate", simulate)
    _add_described(commands, "latency", "read predictions back, and tell how long they took", latency)
    _add_described(commands, "template", "write the parameters of a Dataflow Flex Template", template)
    for command in commands.choices.values():  # also behind the command, where one adds it to a line that failed
        command.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _add_batch(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from sluice.pipelines.batch import add_batch_arguments, run_arguments

    parser = commands.add_parser(
        "batch",
        help="score files, or tables of BigQuery",
        description="Scores files, or tables of BigQuery, with a model and writes each row with its predictions.",
        epilog="Any other flag goes to Beam, e.g. --runner=DataflowRunner --project=P --region=R --temp_location=gs://B/tmp",
        allow_abbrev=False,
    )
    add_batch_arguments(parser)
    parser.set_defaults(run=run_arguments, takes_beam_flags=True)


def _add_streaming(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from sluice.pipelines.streaming import add_streaming_arguments, run_arguments

    parser = commands.add_parser(
        "streaming",
        help="score messages of a Pub/Sub subscription as they come",
        description="Scores messages with a model and writes each with its predictions, until it is stopped (ctrl-C, "
        "SIGTERM): then what is in work is finished. A message is acknowledged once its prediction or its failure is "
        "written.",
        epilog="Any other flag goes to Beam, e.g. --runner=DataflowRunner --project=P --region=R --temp_location=gs://B/tmp",
        allow_abbrev=False,
    )
    add_streaming_arguments(parser)
    parser.set_defaults(run=run_arguments, takes_beam_flags=True)


def _add_inspect(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from sluice.pipelines.commands import inspect_model

    parser = commands.add_parser("inspect", help="show a model's signatures, versions and columns", allow_abbrev=False)
    inspect_model.add_arguments(parser)
    parser.set_defaults(run=inspect_model.run, takes_beam_flags=False)


def _add_zoo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from sluice.pipelines.commands import zoo

    parser = commands.add_parser("zoo", help="make a model people know, and sample input for it", allow_abbrev=False)
    zoo.add_arguments(parser)
    parser.set_defaults(run=zoo.run, takes_beam_flags=False)


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from sluice.pipelines.commands import demo

    parser = commands.add_parser("demo", help="make a model, score sample data with it, show what came out")
    demo.add_arguments(parser)
    parser.set_defaults(run=demo.run, takes_beam_flags=False)


def _add_demo_streaming(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from sluice.pipelines.commands import demo_streaming

    parser = commands.add_parser(
        "demo-streaming", help="score messages of an emulated Pub/Sub, show what came out and how long it took"
    )
    demo_streaming.add_arguments(parser)
    parser.set_defaults(run=demo_streaming.run, takes_beam_flags=False)


def _add_described(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, help_text: str, module: Any
) -> None:
    """Adds a command whose module has its DESCRIPTION and EPILOG, `add_arguments` and `run`."""
    parser = commands.add_parser(
        name,
        help=help_text,
        description=module.DESCRIPTION,
        epilog=module.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    parser.set_defaults(run=module.run, takes_beam_flags=False)


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = _parser()
    namespace, rest = parser.parse_known_args(arguments)
    if rest and not namespace.takes_beam_flags:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    _set_up_logging(namespace.verbose)
    try:
        return namespace.run(namespace, rest) if namespace.takes_beam_flags else namespace.run(namespace)
    except UsageError as error:
        sys.stderr.write(f"sluice {namespace.command}: {error}\n")
        return EXIT_USAGE
    except BrokenPipeError:  # `sluice inspect ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        sys.stderr.write(f"sluice {namespace.command}: interrupted\n")
        return EXIT_INTERRUPTED


def _set_up_logging(verbose: bool) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
    )
    logging.getLogger("sluice").setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("apache_beam.runners.dataflow").setLevel(logging.INFO)  # the job's own messages
    if not verbose:  # Beam logs the traceback of what a job raises, and then raises it: we say it once, in a line
        for name in ("common", "worker", "portability"):
            logging.getLogger(f"apache_beam.runners.{name}").setLevel(logging.CRITICAL)
