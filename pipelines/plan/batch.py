"""Checks model, input and output against each other before a job starts, and decides all that the job needs to know."""

import dataclasses
import datetime
import os
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from sluice.models.cache import ModelRecipe
from sluice.models.errors import UsageError
from sluice.models.signature import Signature
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.plan.input import InputPlan, Wanted, check_rows, check_sample, plan_input
from sluice.pipelines.plan.model import find_signature, launch_errors, make_recipe, parse_defaults, read_input_schema
from sluice.pipelines.plan.output import Destination, is_raw, parse_output, plan_output, table_columns
from sluice.pipelines.plan.sinks import (
    FailureSinks,
    FilesOutput,
    TableOutput,
    check_files,
    plan_failure_files,
    plan_failure_sinks,
    plan_output_table,
)
from sluice.transforms.core.beam_files import match_files
from sluice.transforms.core.commit import FailurePolicy
from sluice.transforms.core.formats import JSONL
from sluice.transforms.decode.spec import CsvOptions, InputSpec
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.files.find_source import Source, find_source
from sluice.transforms.files.write import Target, existing_files

if TYPE_CHECKING:
    from sluice.transforms.bigquery.read_session import TableInput


@dataclasses.dataclass(frozen=True)
class BatchPlan:
    """A batch job, decided.

    Attributes:
      pattern: of the files that are read; "": it reads `table`.
      rows: that will be read; None if it is not known.
      version: of the model, as it was found; a server may go on to another one unless it is pinned.
    """

    pattern: str
    table: "TableInput | None"
    rows: int | None
    source: Source
    input: InputSpec
    recipe: ModelRecipe
    version: int | None
    output: FilesOutput | TableOutput
    output_prefix: str
    failures: FailureSinks
    failure_policy: FailurePolicy


def plan_batch(options: BatchOptions, project: str = "", temp_location: str = "") -> BatchPlan:
    """Returns the job that the options ask for. The tables that it writes are made if they are not there.

    Args:
      project: that pays for what is read from BigQuery; "": the table's own.
      temp_location: a directory for files of load jobs; "": there is none.

    Raises:
      UsageError: something does not fit, or cannot be reached; nothing has been written.
    """
    with launch_errors():
        return _plan(options, project, temp_location)


def _plan(options: BatchOptions, project: str, temp_location: str) -> BatchPlan:
    _check_bigquery(options)
    job = f"{datetime.datetime.now(datetime.UTC):%Y%m%d%H%M%S}-{uuid.uuid4().hex[:8]}"
    destination = parse_output(options.output, options.output_format) if options.output else None
    target = destination.target(job) if destination else None
    failure_files = plan_failure_files(options, destination, job)
    _check_targets(options, tuple(filter(None, (target, failure_files))))
    given = _find_input(options, project)
    endpoint = options.endpoint_options()
    found, signature, exclude = find_signature(options, given.source.names, endpoint)
    rows = _plan_rows(options, given, signature, exclude, destination)
    defaults = parse_defaults(signature, options.column_defaults)
    _check_sample(given, rows.plan, signature, defaults)
    output: FilesOutput | TableOutput
    if target and rows.files:
        output = FilesOutput(target, rows.files)
    else:
        output = plan_output_table(options, rows.table, job, temp_location)
    return BatchPlan(
        pattern=options.input,
        table=given.table,
        rows=given.rows,
        source=given.source,
        input=rows.plan.spec,
        recipe=make_recipe(options, found.spec, signature, defaults, endpoint),
        version=found.version,
        output=output,
        output_prefix=options.output_prefix,
        failures=plan_failure_sinks(options, failure_files, job),
        failure_policy=FailurePolicy(options.max_failure_rate),
    )


def _check_bigquery(options: BatchOptions) -> None:
    if options.input_table or options.input_query or options.output_table or options.failures_table:
        from sluice.transforms.bigquery.clients import check_endpoints

        check_endpoints(options.bigquery_endpoint or None, options.bigquery_storage_endpoint or None)


@dataclasses.dataclass(frozen=True)
class _Input:
    source: Source
    csv: CsvOptions
    table: "TableInput | None" = None
    rows: int | None = None


def _find_input(options: BatchOptions, project: str) -> _Input:
    csv = CsvOptions(options.csv_delimiter, options.csv_quote_char, options.column_names, options.allow_quoted_newlines)
    if options.input:
        return _Input(find_source(options.input, options.input_format, csv), csv)
    from sluice.transforms.bigquery.find_table import find_query, find_table

    endpoints = options.bigquery_endpoint or None, options.bigquery_storage_endpoint or None
    if options.input_query:
        found = find_query(options.input_query, project, *endpoints)
    else:
        found = find_table(options.input_table, options.row_restriction, project, *endpoints)
    whole = not found.table.row_restriction
    return _Input(found.source, csv, found.table, found.rows if whole else None)


def _check_sample(found: _Input, plan: InputPlan, signature: Signature, defaults: dict[str, Any]) -> None:
    if found.table is None:
        check_sample(found.source, plan, signature, defaults)
        return
    from sluice.transforms.bigquery.read import read_sample

    check_rows(read_sample(found.table, plan.spec), found.source, signature, defaults)


class _Rows(NamedTuple):
    """What is read, and what of it is written: to files, or else to a table."""

    plan: InputPlan
    files: OutputSpec | None
    table: pa.Schema | None


def _plan_rows(
    options: BatchOptions,
    given: _Input,
    signature: Signature,
    exclude: tuple[str, ...],
    destination: Destination | None,
) -> _Rows:
    source = given.source
    raw = destination is not None and is_raw(source, destination.format, given.csv, options.columns, exclude)
    schema = read_input_schema(options.input_schema)
    wanted = Wanted(schema, options.columns, exclude, options.column_defaults, raw)
    plan = plan_input(source, signature, wanted, given.csv)
    if destination is None:
        return _Rows(plan, None, table_columns(plan, signature, options.output_prefix))
    files = plan_output(
        source,
        plan,
        signature,
        destination,
        raw=raw,
        prefix=options.output_prefix,
        model_columns=options.add_model_columns,
        flatten=options.flatten,
    )
    if raw and source.format == JSONL:
        plan = dataclasses.replace(plan, spec=dataclasses.replace(plan.spec, added=tuple(files.schema.names)))
    return _Rows(plan, files, None)


def _check_targets(options: BatchOptions, targets: tuple[Target, ...]) -> None:
    for target in targets:
        check_files(target, options.overwrite)
    if options.input:
        _check_overlap(options.input, targets)


def _check_overlap(pattern: str, targets: tuple[Target, ...]) -> None:
    """Refuses to read what the job would replace."""
    inputs = {_absolute(file.path) for file in match_files(pattern)}
    for path in (path for target in targets for path in existing_files(target)):
        if _absolute(path) in inputs:
            raise UsageError(f"--input {pattern} matches {path}, which the job would replace; give another --output")


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(path)
