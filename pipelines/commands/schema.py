"""`sluice schema`: its flags. commands.schema_run looks at the rows."""

import argparse

from sluice.pipelines.options.flags import add_arguments as add_flags
from sluice.pipelines.options.flags import from_namespace
from sluice.pipelines.options.schema import SchemaOptions

HELP = "show the types of JSON rows, as --input_schema takes them"
DESCRIPTION = """Looks at JSON rows and prints the schema by which all of them can be read, in BigQuery's JSON form, as
--input_schema takes it: a job needs it to write columns of JSON as CSV, Parquet or Avro, or to a table. What it is
unsure of goes to standard error. Where values of several types stand under one key, the type is JSON: the column then
holds each value as its text."""
EPILOG = """`sluice batch --input_schema auto` makes a schema likewise, and uses it.

examples:
  sluice schema --input rows.jsonl > schema.json
  sluice schema --input 'data/*.json.gz' --input more.json --rows all > schema.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice schema`."""
    add_flags(parser, SchemaOptions)


def run(args: argparse.Namespace) -> int:
    """Prints the schema; returns the exit code. Raises as commands.schema_run.print_schema does."""
    options = from_namespace(SchemaOptions, args)
    from sluice.pipelines.commands.schema_run import print_schema  # imports Beam

    return print_schema(options)
