"""The command `sluice`. `sluice --help` imports no command, and so neither Beam nor TensorFlow."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial

from sluice.models.errors import UsageError
from sluice.models.wording import told
from sluice.pipelines.commands.early import begin_early
from sluice.pipelines.commands.listed import COMMANDS, Listed
from sluice.pipelines.end import end_process
from sluice.pipelines.logs import JSON, TEXT, is_json, set_up, tell
from sluice.pipelines.options.config import CONFIG, with_config
from sluice.pipelines.options.parser import Parser, VersionAction
from sluice.pipelines.options.typed import format_in
from sluice.pipelines.outcome import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE

_DESCRIPTION = "Scores data with TensorFlow models on Apache Beam."
_EPILOG = """examples:
  sluice zoo criteo --export work --rows 10000
  sluice inspect --model work/model
  sluice batch --model work/model --input work/criteo.csv --output work/predictions.csv

exit codes: 0 done; 1 the job failed; 2 wrong usage, or model and input do not fit; 3 more failures than allowed"""


# These accept other flags too.
_WITH_BEAM_FLAGS = tuple(name for name, listed in COMMANDS.items() if listed.hands_on)
_CONFIG_HELP = "YAML file of flags, as NAME: VALUE; those of the command line count instead where both give one"


def _parsers() -> tuple[Parser, dict[str, Parser]]:
    """Returns the parser of the command line, and those of the commands, by name.

    The latter import their commands when they are used.
    """
    shown = argparse.RawDescriptionHelpFormatter
    parser = Parser("sluice", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=shown)
    parser.add_argument("--version", action=VersionAction, help="show versions, and exit")
    parser.add_argument("--verbose", action="store_true", help="log what happens, and the tracebacks of failed jobs")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, listed in COMMANDS.items():
        command = commands.add_parser(name, help=listed.help, formatter_class=shown, allow_abbrev=False)
        command.fill_when_used(partial(_fill, listed))
    return parser, commands.choices


def _fill(listed: Listed, parser: Parser) -> None:
    module = listed.load()
    parser.description, parser.epilog = module.DESCRIPTION, module.EPILOG
    module.add_arguments(parser)
    parser.set_defaults(parser=parser)
    parser.add_argument(f"--{CONFIG}", metavar="FILE", help=_CONFIG_HELP)
    # Accepted after the command too: users add it to a command line that failed.
    parser.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    given = sys.argv[1:] if argv is None else argv
    if any(COMMANDS[word].early for word in given[:1] if word in COMMANDS):
        begin_early(given)
    parser, commands = _parsers()
    _set_up_for_parsing(given)
    try:
        words = with_config(given, commands, _WITH_BEAM_FLAGS)
    except UsageError as error:
        parser.error(str(error))
    _set_up_for_parsing(words)
    args, rest = parser.parse_known_args(words)
    args.beam_flags = rest
    if rest and args.command not in _WITH_BEAM_FLAGS:
        args.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    _set_up_logging(args.verbose, getattr(args, "log_format", TEXT))
    try:
        return COMMANDS[args.command].load().run(args)
    except UsageError as error:
        private = getattr(args, "failure_payload", "full") != "full"
        tell(f"sluice {args.command}: {args.parser.whence(told(error, private))}\n", logging.ERROR)
        return EXIT_USAGE
    except BrokenPipeError:  # `sluice inspect ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        tell(f"sluice {args.command}: interrupted\n", logging.WARNING)
        return EXIT_INTERRUPTED


def run_process() -> None:
    """Runs one command, and ends the process with its exit code."""
    try:
        code = main()
    except KeyboardInterrupt:  # while the command line is read, for which modules are imported
        tell("sluice: interrupted\n", logging.WARNING)
        code = EXIT_INTERRUPTED
    end_process(code)


def _set_up_for_parsing(words: Sequence[str]) -> None:
    """Gives the log its form before the command line is parsed: what is wrong with it is told in that form, too."""
    form = format_in(words)
    if form == JSON or is_json():  # of a command that ran in this process before
        _set_up_logging("--verbose" in words, form)


def _set_up_logging(verbose: bool, format_: str) -> None:
    set_up(format_, logging.INFO if verbose else logging.WARNING)
    logging.getLogger("sluice").setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("apache_beam.runners.dataflow").setLevel(logging.INFO)  # the job's own messages
    if not verbose:  # Beam logs the traceback of an error and then raises it: we print it once, in a line
        for name in ("runners.common", "runners.worker", "runners.portability", "utils.subprocess_server"):
            logging.getLogger(f"apache_beam.{name}").setLevel(logging.CRITICAL)
