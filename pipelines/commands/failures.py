"""`sluice failures`: its flags. commands.failures_run reads the failures."""

import argparse

from sluice.pipelines.options.failures import FailuresOptions
from sluice.pipelines.options.flags import add_arguments as add_flags
from sluice.pipelines.options.flags import from_namespace

HELP = "show why rows failed, how many, and what helps"
DESCRIPTION = """Reads the failures of jobs and prints their reasons: failures of one reason and with other values are
one group. Of each it shows how many there are, an example, and what is likely to help. Then the rows can be mended:
exported, edited and sent again."""
EPILOG = """examples:
  sluice failures out/predictions.failures-00000-of-00001.jsonl
  sluice failures 'gs://bucket/failed-*.jsonl' --stages decode --json
  sluice failures project.dataset.failed --row_restriction "timestamp > '2026-01-31'"
  sluice failures out/failed-*.jsonl --message "column 'age'" --export mend.jsonl"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `sluice failures`."""
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="FILE|TABLE",
        help="files of failures, local or on gs://, also .gz: a path, a glob, or a directory with such files; or a "
        "BigQuery table, PROJECT.DATASET.TABLE",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_flags(parser, FailuresOptions)


def run(args: argparse.Namespace) -> int:
    """Prints reasons; returns the exit code. Raises as commands.failures_run.show_failures does."""
    options = from_namespace(FailuresOptions, args)
    from sluice.pipelines.commands.failures_run import show_failures  # imports Beam

    return show_failures(args.sources, options, args.json)
