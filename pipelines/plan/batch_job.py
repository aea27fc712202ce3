"""Plans a batch job: checks model, input and output against each other before it starts."""

import codecs
import dataclasses
import datetime
import uuid
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa

from sluice.models.cache import ModelRecipe
from sluice.models.errors import UsageError
from sluice.models.signature import Signature
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.plan.batch_sinks import (
    Sink,
    check_files,
    plan_failure_files,
    plan_failure_sinks,
    plan_output_files,
    plan_output_table,
)
from sluice.pipelines.plan.declared import declare
from sluice.pipelines.plan.defaults import parse_defaults
from sluice.pipelines.plan.first_rows import check_rows, check_sample
from sluice.pipelines.plan.input_columns import InputPlan, Wanted, plan_input
from sluice.pipelines.plan.model import find_signature, launch_errors, make_recipe, plan_watched
from sluice.pipelines.plan.output_columns import is_raw, plan_output, table_columns
from sluice.pipelines.plan.output_paths import Destination, parse_output
from sluice.pipelines.plan.read_paths import file_inputs
from sluice.pipelines.plan.review import Review, review
from sluice.transforms.bigquery.asked import BY_FLAGS
from sluice.transforms.bigquery.clients import check_endpoints
from sluice.transforms.bigquery.find_table import find_query, find_table
from sluice.transforms.bigquery.read import ReadSession, read_sample
from sluice.transforms.bigquery.read_session import TableInput
from sluice.transforms.core.commit import FailurePolicy
from sluice.transforms.core.file_contents import FileInputs
from sluice.transforms.core.file_paths import BESIDE, HERE, NOWHERE, PathRules
from sluice.transforms.core.formats import FILES, JSONL
from sluice.transforms.core.metrics import BYTES_READ, ROWS_READ
from sluice.transforms.core.observe import Watched
from sluice.transforms.decode.ranges import RANGE_BYTES
from sluice.transforms.decode.spec import CsvOptions, InputSpec
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.files.find_files import absolute, match_all
from sluice.transforms.files.find_source import Source, find_source
from sluice.transforms.files.read import ReadPatterns
from sluice.transforms.files.write import Target, existing_files

# Encodings whose files are read as they are.
_UTF8 = ("utf-8", "utf-8-sig", "ascii")
# Where each row names a file, a worker reads so much of the rows at a time: some thousand files.
_PATH_RANGE_BYTES = 256 << 10


@dataclasses.dataclass(frozen=True)
class Input:
    """What a batch job reads.

    Attributes:
      description: for the log.
      reader: reads the rows.
      counter: the metric that counts what has been read: bytes of files, rows of a table.
      total: what `counter` comes to in the end; 0: not known.
      table: what is read; None: it is files.
      patterns: globs of the files.
      spec: what their rows hold; None: it is not known here.
    """

    description: str
    reader: beam.PTransform
    counter: str
    total: int
    table: TableInput | None = None
    patterns: tuple[str, ...] = ()
    spec: InputSpec | None = None


@dataclasses.dataclass(frozen=True)
class BatchPlan:
    """A batch job, with every decision taken.

    Attributes:
      version: of the model, as found at launch; a server may move to another one unless it is pinned.
      failures: each sink gets all failures.
      review: what becomes of each column.
      first_rows: what was found in the first rows, in a sentence.
      contents: inputs of the model that get what is in files; None: there are none.
      watched: the columns that are looked at for a report; None: there is none.
    """

    input: Input
    recipe: ModelRecipe
    version: int | None
    output: Sink
    output_prefix: str
    failures: tuple[Sink, ...]
    failure_policy: FailurePolicy
    review: Review
    first_rows: str
    contents: FileInputs | None = None
    watched: Watched | None = None

    @property
    def sinks(self) -> tuple[Sink, ...]:
        """The sinks of predictions, and of failures."""
        return (self.output, *self.failures)


def plan_batch(options: BatchOptions, project: str = "", temp_location: str = "", account: str = "") -> BatchPlan:
    """Returns the job that the options ask for. Creates the tables that it writes unless they exist, or
    the options only ask for a check.

    Args:
      project: is billed for reads from BigQuery; "": the table's own.
      temp_location: a directory for files of load jobs; "": there is none.
      account: see EndpointOptions.google_account.

    Raises:
      UsageError: something does not fit, or cannot be reached; nothing has been written.
    """
    with launch_errors():
        return _plan(options, project, temp_location, account)


def _plan(options: BatchOptions, project: str, temp_location: str, account: str) -> BatchPlan:
    _check_bigquery(options)
    job = f"{datetime.datetime.now(datetime.UTC):%Y%m%d%H%M%S}-{uuid.uuid4().hex[:8]}"
    destination = parse_output(options.output, options.output_format) if options.output else None
    target = destination.target(job) if destination else None
    failure_files = plan_failure_files(options, destination, job)
    targets = tuple(filter(None, (target, failure_files)))
    for each in targets:
        check_files(each, options.overwrite)
    given = _find_input(options, project)
    _check_overlap(given.source.patterns, targets)
    endpoint = options.endpoint_options(account)
    found, signature, exclude = find_signature(options, given.source.names, endpoint)
    rows = _plan_rows(options, given, signature, exclude, destination)
    defaults = parse_defaults(signature, options.column_defaults)
    contents = file_inputs(rows.plan.reads, options, _path_rules(given))
    first_rows = _check_sample(given, rows.plan, signature, defaults, contents)
    if target and rows.files:
        output = plan_output_files(options, target, rows.files)
    else:
        output = plan_output_table(options, rows.table, job, temp_location)
    return BatchPlan(
        input=_input(options, given, rows.plan),
        recipe=make_recipe(options, found.spec, signature, defaults, endpoint, reads_files=contents is not None),
        version=found.version,
        output=output,
        output_prefix=options.output_prefix,
        failures=tuple(plan_failure_sinks(options, failure_files, job, temp_location)),
        failure_policy=FailurePolicy(options.max_failure_rate),
        review=_review(given.source, rows, signature, defaults),
        first_rows=first_rows,
        contents=contents,
        watched=plan_watched(options, signature),
    )


def _check_bigquery(options: BatchOptions) -> None:
    if options.input_table or options.input_query or options.output_table or options.failures_table:
        check_endpoints(options.bigquery_endpoint or None, options.bigquery_storage_endpoint or None, BY_FLAGS)


@dataclasses.dataclass(frozen=True)
class _Found:
    """The input as it is found at launch.

    Attributes:
      table: None: it is files.
      rows: that will be read; None: not known.
    """

    source: Source
    csv: CsvOptions
    table: TableInput | None = None
    rows: int | None = None


def _find_input(options: BatchOptions, project: str) -> _Found:
    csv = _csv_options(options)
    if options.input:
        source = find_source(options.inputs, options.input_format, csv)
        return _Found(source, source.csv)
    endpoints = options.bigquery_endpoint or None, options.bigquery_storage_endpoint or None
    if options.input_query:
        found = find_query(options.input_query, project, *endpoints)
    else:
        found = find_table(options.input_table, options.row_restriction, project, *endpoints)
    whole = not found.table.row_restriction
    return _Found(found.source, csv, found.table, found.rows if whole else None)


def _csv_options(options: BatchOptions) -> CsvOptions:
    encoding = options.csv_encoding or "utf-8"
    return CsvOptions(
        options.csv_delimiter,
        options.csv_quote_char,
        options.column_names,
        options.allow_quoted_newlines,
        null_values=options.null_values,
        null_strings=options.null_strings,
        encoding="" if codecs.lookup(encoding).name in _UTF8 else encoding,
        skip_lines=options.csv_skip_lines,
        rename_duplicates=options.rename_duplicate_columns,
    )


def _path_rules(found: _Found) -> PathRules:
    """Returns which files rows may name where there is no --read_paths_root: a batch job's input is the user's own."""
    if found.table is not None:
        return PathRules(relative=NOWHERE, local=True)
    return PathRules(relative=HERE if found.source.format == FILES else BESIDE, local=True)


def _input(options: BatchOptions, found: _Found, plan: InputPlan) -> Input:
    source, size = found.source, f"{found.source.size / 1e6:.1f} MB"
    if found.table is None:
        kind = "file(s), each a row" if source.format == FILES else f"{source.format} file(s)"
        description = f"{', '.join(options.inputs)}: {source.files} {kind}, {size}"
        range_bytes = _PATH_RANGE_BYTES if plan.reads else RANGE_BYTES
        reader = ReadPatterns(source.patterns, plan.spec, options.limit, range_bytes)
        return Input(
            description, reader, BYTES_READ, 0 if options.limit else source.size, None, source.patterns, plan.spec
        )
    rows = "" if found.rows is None else f", {found.rows:,} rows"
    description = f"{found.table.label.removeprefix('--input_table ')}{rows}, {size}"
    return Input(description, ReadSession(found.table, plan.spec), ROWS_READ, found.rows or 0, found.table)


def _check_sample(
    found: _Found, plan: InputPlan, signature: Signature, defaults: dict[str, Any], contents: FileInputs | None
) -> str:
    if found.table is None:
        return check_sample(found.source, plan, signature, defaults, contents)
    return check_rows(read_sample(found.table, plan.spec), found.source, signature, defaults, contents=contents)


class _Rows(NamedTuple):
    """What is read, and what of it is written: to files, or else to a table."""

    plan: InputPlan
    files: OutputSpec | None
    table: pa.Schema | None


def _plan_rows(
    options: BatchOptions,
    given: _Found,
    signature: Signature,
    exclude: tuple[str, ...],
    destination: Destination | None,
) -> _Rows:
    source = given.source
    raw = destination is not None and is_raw(source, destination.format, given.csv, options.columns, exclude)
    declared = declare(options, source, signature, raw)
    output = destination.format if destination else ""
    wanted = Wanted(
        declared.types,
        options.columns,
        (*exclude, *declared.left_out),
        options.column_defaults,
        raw,
        output,
        options.map,
        declared.texts,
        options.read_paths,
        declared.closed,
    )
    plan = plan_input(source, signature, wanted, given.csv)
    if destination is None:
        return _Rows(plan, None, table_columns(plan, signature, options.output_prefix))
    files = plan_output(
        source,
        plan,
        signature,
        destination.format,
        raw=raw,
        prefix=options.output_prefix,
        model_columns=options.add_model_columns,
        flatten=options.flatten,
    )
    if raw and source.format == JSONL:
        plan = dataclasses.replace(plan, spec=dataclasses.replace(plan.spec, added=tuple(files.schema.names)))
    return _Rows(plan, files, None)


def _review(source: Source, rows: _Rows, signature: Signature, defaults: dict[str, Any]) -> Review:
    if rows.files is None:
        return review(source, rows.plan, signature, defaults, rows.table or pa.schema([]), ())
    return review(source, rows.plan, signature, defaults, rows.files.schema, source.names if rows.files.raw else ())


def _check_overlap(patterns: tuple[str, ...], targets: tuple[Target, ...]) -> None:
    """Refuses to read files that the job would replace."""
    there = [path for target in targets for path in existing_files(target)]
    read = {absolute(file.path) for file in match_all(patterns)} if there else set()
    for path in there:
        if absolute(path) in read:
            raise UsageError(f"--input matches {path}, which the job would replace; give another --output")
