"""Checks model, input and output against each other before a job starts, and decides all that the job needs to know."""

import dataclasses
import datetime
import os
import uuid
from typing import Any

import pyarrow as pa
from google.api_core.exceptions import GoogleAPIError

from models.cache import ModelRecipe
from models.columns import default_value
from models.errors import UsageError
from models.interface import EndpointOptions, ModelOptions
from models.signature import ColumnSpec, Signature
from models.signature_reader import pick_signature
from models.signatures import FoundModel, find_model
from models.uri import ModelSpec, parse_model_uri
from pipelines.options import BatchOptions
from transforms.beam_files import BeamFiles, match_files, open_binary
from transforms.commit_files import Judgement
from transforms.decode import JSONL, CsvOptions, InputSpec
from transforms.encode import OutputSpec
from transforms.plan_input import InputPlan, Source, Wanted, check_sample, find_source, plan_input
from transforms.plan_output import Destination, is_raw, parse_output, plan_output
from transforms.schema import read_schema_file
from transforms.write_files import Target, check_writable, existing_files

# How long a model's server may take to say what it serves.
_LAUNCH_TIMEOUT_SECS = 15.0


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
    found, signature, exclude = _find_model(options, source, endpoint)
    schema = _read_schema(options.input_schema)
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
        recipe=_recipe(options, found.spec, signature, defaults, endpoint),
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


def _find_model(
    options: BatchOptions, source: Source, endpoint: EndpointOptions
) -> tuple[FoundModel, Signature, tuple[str, ...]]:
    """Returns the model, its version pinned so that late workers load the same one; its signature, with the outputs
    that are wanted; and which input columns to leave out."""
    timeout_secs = min(endpoint.rpc_timeout_secs, _LAUNCH_TIMEOUT_SECS)
    found = find_model(parse_model_uri(options.model), BeamFiles(), endpoint, timeout_secs)
    signatures = found.signatures
    signature = pick_signature(signatures | _with_wanted(options, source, signatures), options.signature)
    left_out = {options.output_prefix + output.name for output in signatures[options.signature].outputs} - {
        options.output_prefix + output.name for output in signature.outputs
    }
    exclude = tuple(name for name in options.exclude_columns if name not in left_out)
    return found, signature, exclude


def _with_wanted(options: BatchOptions, source: Source, signatures: dict[str, Signature]) -> dict[str, Signature]:
    """Returns the chosen signature without the outputs that --exclude_columns names.

    Where an input column has the name too, it is the input column that is left out.
    """
    names = set(options.exclude_columns) - set(source.names)
    signature = signatures.get(options.signature)
    if signature is None or not names:
        return {}
    kept = tuple(spec.name for spec in signature.outputs if options.output_prefix + spec.name not in names)
    if not kept:
        raise UsageError("--exclude_columns leaves out every output of the model, so there is nothing to write")
    return {signature.name: signature.with_outputs(kept)}


def _read_schema(path: str) -> dict[str, pa.DataType]:
    if not path:
        return {}
    try:
        with open_binary(path) as file:
            schema = read_schema_file(file.read().decode())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--input_schema {path} cannot be read: {error}") from error
    return dict(zip(schema.names, schema.types, strict=True))


def parse_defaults(signature: Signature, pairs: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Returns --column_defaults as values of the columns' types.

    Raises:
      UsageError: a value is not of its column's type.
    """
    specs = {spec.name: spec for spec in signature.columns}
    return {name: _default(specs[name], text) if name in specs else text for name, text in pairs}


def _default(spec: ColumnSpec, text: str) -> Any:
    value: Any = text
    try:
        if spec.dtype == "bool":
            value = {"true": True, "false": False}[text.lower()]
        elif spec.dtype != "string":
            value = float(text) if "float" in spec.dtype else int(text)
        default_value(value, spec)
    except (ValueError, KeyError, UsageError) as error:
        raise UsageError(f"--column_defaults {spec.name}={text}: it cannot stand for the column, {spec}") from error
    return value


def _recipe(
    options: BatchOptions, spec: ModelSpec, signature: Signature, defaults: dict[str, Any], endpoint: EndpointOptions
) -> ModelRecipe:
    return ModelRecipe(
        spec,
        ModelOptions(
            signature=options.signature,
            outputs=tuple(output.name for output in signature.outputs),
            defaults=tuple(sorted(defaults.items())),
            intra_op_threads=options.intra_op_threads,
            inter_op_threads=options.inter_op_threads,
            warm_up=options.warm_up,
            endpoint=endpoint,
        ),
        options.scheduler_options(),
        signature if spec.endpoint else None,
    )
