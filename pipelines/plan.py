"""Checks model, input and output against each other before a job starts, and decides all that the job needs to know."""

import dataclasses
import datetime
import os
import uuid

from google.api_core.exceptions import GoogleAPIError

from models.cache import ModelRecipe
from models.errors import UsageError
from models.signature import Signature
from pipelines.options import BatchOptions
from pipelines.plan_model import find_signature, make_recipe, parse_defaults, read_input_schema
from transforms.beam_files import match_files
from transforms.commit_files import Judgement
from transforms.decode import JSONL, CsvOptions, InputSpec
from transforms.encode import OutputSpec
from transforms.plan_input import InputPlan, Source, Wanted, check_sample, find_source, plan_input
from transforms.plan_output import Destination, is_raw, parse_output, plan_output
from transforms.write_files import Target, check_writable, existing_files


@dataclasses.dataclass(frozen=True)
class BatchPlan:
    """A batch job, decided.

    Attributes:
      version: of the model, as it was found; a server may go on to another one unless it is pinned.
    """

    pattern: str
    source: Source
    input: InputSpec
    recipe: ModelRecipe
    version: int | None
    output: OutputSpec
    output_prefix: str
    target: Target
    failures_target: Target
    failure_payload: str
    judgement: Judgement


def plan_batch(options: BatchOptions) -> BatchPlan:
    """Returns the job that the options ask for.

    Raises:
      UsageError: something does not fit, or a file system cannot be reached; nothing has been written.
    """
    try:
        return _plan(options)
    except (OSError, GoogleAPIError) as error:
        raise UsageError(str(error)) from error


def _plan(options: BatchOptions) -> BatchPlan:
    destination = parse_output(options.output, options.output_format)
    job = f"{datetime.datetime.now(datetime.UTC):%Y%m%d%H%M%S}-{uuid.uuid4().hex[:8]}"
    target, failures = destination.target(job), destination.failures(options.failures, job)
    for each in (target, failures):
        _check_target(each, options.overwrite)
    csv = CsvOptions(options.csv_delimiter, options.csv_quote_char, options.column_names, options.allow_quoted_newlines)
    source = find_source(options.input, options.input_format, csv)
    _check_overlap(options.input, (target, failures))
    endpoint = options.endpoint_options()
    found, signature, exclude = find_signature(options, source.names, endpoint)
    schema = read_input_schema(options.input_schema)
    raw = is_raw(source, destination.format, csv, options.columns, exclude)
    wanted = Wanted(schema, options.columns, exclude, options.column_defaults, raw)
    plan = plan_input(source, signature, wanted, csv)
    output = _plan_output(options, source, plan, signature, destination, raw)
    if raw and source.format == JSONL:
        plan = dataclasses.replace(plan, spec=dataclasses.replace(plan.spec, added=tuple(output.schema.names)))
    defaults = parse_defaults(signature, options.column_defaults)
    check_sample(source, plan, signature, defaults)
    return BatchPlan(
        pattern=options.input,
        source=source,
        input=plan.spec,
        recipe=make_recipe(options, found.spec, signature, defaults, endpoint),
        version=found.version,
        output=output,
        output_prefix=options.output_prefix,
        target=target,
        failures_target=failures,
        failure_payload=options.failure_payload,
        judgement=Judgement(options.max_failure_rate),
    )


def _plan_output(
    options: BatchOptions, source: Source, plan: InputPlan, signature: Signature, destination: Destination, raw: bool
) -> OutputSpec:
    return plan_output(
        source,
        plan,
        signature,
        destination,
        raw=raw,
        prefix=options.output_prefix,
        model_columns=options.add_model_columns,
        flatten=options.flatten,
    )


def _check_overlap(pattern: str, targets: tuple[Target, ...]) -> None:
    """Refuses to read what the job would replace."""
    inputs = {_absolute(file.path) for file in match_files(pattern)}
    for path in (path for target in targets for path in existing_files(target)):
        if _absolute(path) in inputs:
            raise UsageError(f"--input {pattern} matches {path}, which the job would replace; give another --output")


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(path)


def _check_target(target: Target, overwrite: bool) -> None:
    existing = existing_files(target)
    if existing and not overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UsageError(f"{existing[0]}{more} exists; give --overwrite to replace it, or another --output")
    check_writable(target)
