"""Prints the schema of JSON rows: what `sluice schema` does."""

from sluice.pipelines.commands.json_output import write_json
from sluice.pipelines.logs import tell
from sluice.pipelines.options.schema import SchemaOptions
from sluice.pipelines.outcome import EXIT_OK
from sluice.pipelines.plan.declared import check_rows_are_json, infer_schema
from sluice.pipelines.plan.json_schema import doubt_lines, to_json
from sluice.pipelines.plan.model import launch_errors
from sluice.transforms.decode.spec import CsvOptions
from sluice.transforms.files.find_source import find_source


def print_schema(options: SchemaOptions) -> int:
    """Prints the schema on standard output and what it is unsure of on standard error; returns the exit code.

    Raises:
      UsageError: there are no rows of JSON.
    """
    with launch_errors():
        source = find_source(options.input, options.input_format, CsvOptions(""))
        check_rows_are_json(source, "--input")
        found = infer_schema(source, options.rows)
    write_json(to_json(found))
    of_all = "all of them" if not options.rows else "--rows all looks at every row"
    tell(f"{found.rows:,} rows of {source.files} file(s) were looked at; {of_all}\n")
    lines = doubt_lines(found)
    if lines:
        tell("".join(["Unsure:\n", *(f"  {line}\n" for line in lines)]))
    return EXIT_OK
