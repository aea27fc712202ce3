"""`sluice inspect`: shows the inputs and outputs of a model, and the form of its predictions. Needs no TensorFlow."""

import argparse
import json
import shlex
from collections.abc import Iterator, Sequence

import pyarrow as pa

from sluice.models.errors import SignatureError, UsageError
from sluice.models.files import ModelFiles
from sluice.models.interface import EndpointOptions
from sluice.models.saved_model.signature_reader import pick_signature
from sluice.models.saved_model.versions import missing_assets, read_meta_graph, what_is_missing
from sluice.models.signature import BYTES_SUFFIX, DEFAULT_SIGNATURE, ColumnSpec, Shape, Signature, TensorSpec
from sluice.models.signatures import FoundModel, find_model
from sluice.models.uri import parse_model_uri
from sluice.pipelines.commands.inspect_text import Description, render
from sluice.pipelines.commands.json_output import write_json
from sluice.pipelines.options import flags
from sluice.pipelines.options.model import EndpointFlags
from sluice.transforms.bigquery.asked import BY_FLAGS
from sluice.transforms.bigquery.schema import arrow_to_bigquery_schema
from sluice.transforms.core.model_files import files_of
from sluice.transforms.core.outputs import MODEL_COLUMN, VERSION_COLUMN, output_schema

HELP = "show a model's signatures, versions and columns"
DESCRIPTION = """Shows a model's versions and signatures, a sample row of input, the columns of its predictions, their
BigQuery schema, and a command that scores with it."""
EPILOG = """examples:
  sluice inspect --model work/model
  sluice inspect --model grpc://localhost:8500/criteo --json
  sluice inspect --model vertex://projects/P/locations/L/endpoints/E"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice inspect`."""
    parser.add_argument(
        "--model",
        required=True,
        metavar="URI",
        help="SavedModel directory, or one of versions of it; or grpc://HOST:8500/NAME, "
        "http://HOST:8501/v1/models/NAME, vertex://projects/P/locations/L/endpoints/E",
    )
    parser.add_argument(
        "--signature",
        metavar="NAME",
        help=f"signature to show in full (default: {DEFAULT_SIGNATURE}, or the only one)",
    )
    parser.add_argument("--output_prefix", default="", metavar="TEXT", help="prefix for the names of the outputs")
    parser.add_argument("--json", action="store_true", help="print JSON, with the whole sample row")
    flags.add_arguments(parser, EndpointFlags)


def run(args: argparse.Namespace) -> int:
    """Prints a description of the model; returns 0.

    Raises:
      UsageError: there is no model, or no such signature.
    """
    endpoint = flags.from_namespace(EndpointFlags, args).endpoint_options()
    files = files_of(parse_model_uri(args.model))
    description = describe(args.model, args.signature, files, args.output_prefix, endpoint)
    if args.json:
        write_json(to_json(description) + "\n")
    else:
        print(render(description))
    return 0


def describe(
    uri: str,
    signature_name: str | None,
    files: ModelFiles,
    prefix: str = "",
    endpoint: EndpointOptions | None = None,
) -> Description:
    """Returns a description of the model as JSON values; tests/pipelines/commands/test_inspect_model.py holds its form.

    Args:
      signature_name: the one to describe in full; None: serving_default, or the only one.
      prefix: for the names of the outputs' columns.
      endpoint: how a served model is reached.

    Raises:
      UsageError: there is no complete model, its server does not answer, or there is no such signature. A signature
        that cannot be served is no error: its "problem" says why.
    """
    endpoint = endpoint or EndpointOptions()
    found = find_model(parse_model_uri(uri), files, endpoint, endpoint.rpc_timeout_secs)
    chosen = _choose(found.signatures, signature_name)
    return {
        "uri": found.spec.uri,
        "directory": found.on_disk.directory if found.on_disk else None,
        "version": found.version,
        "versions": list(_versions(found, files)),
        "missing_assets": _missing_assets(found, files),
        "signatures": [_describe_signature(signature) for signature in found.signatures.values()],
        "signature": chosen.name if chosen else None,
        **_describe_rows(found.spec.uri, chosen, prefix),
    }


def _choose(signatures: dict[str, Signature], name: str | None) -> Signature | None:
    if name is None and DEFAULT_SIGNATURE not in signatures:
        return next(iter(signatures.values())) if len(signatures) == 1 else None
    wanted = name or DEFAULT_SIGNATURE
    return signatures.get(wanted) or pick_signature(signatures, wanted)


def _versions(found: FoundModel, files: ModelFiles) -> Iterator[Description]:
    """Yields the numbered directories under the base that hold a model or a part of one, newest first."""
    base, used = found.spec.uri, found.on_disk
    if used is None or used.number is None:
        return
    paths = [*files.match(f"{base}/*/saved_model.pb"), *files.match(f"{base}/*/variables/*")]
    names = {path.removeprefix(f"{base}/").split("/")[0] for path in paths}
    for name in sorted(filter(str.isdecimal, names), key=int, reverse=True):
        directory = f"{base}/{name}"
        missing = None if directory == used.directory else what_is_missing(directory, files)
        yield {"version": int(name), "directory": directory, "used": directory == used.directory, "missing": missing}


def _missing_assets(found: FoundModel, files: ModelFiles) -> list[str]:
    if found.on_disk is None:
        return []
    directory = found.on_disk.directory
    return missing_assets(directory, read_meta_graph(directory, files), files)


def _describe_signature(signature: Signature) -> Description:
    return {
        "name": signature.name,
        "method": signature.method,
        "problem": _problem(signature),
        "takes_examples": signature.takes_examples,
        "left_out": [spec.name for spec in signature.outputs if spec not in signature.without_handles().outputs],
        "inputs": [_describe_tensor(spec) for spec in signature.inputs],
        "outputs": [_describe_tensor(spec) for spec in signature.outputs],
    }


def _describe_tensor(spec: TensorSpec) -> Description:
    shape = None if spec.shape is None else list(spec.shape)
    return {"name": spec.name, "dtype": spec.dtype, "shape": shape, "kind": spec.kind}


def _problem(signature: Signature) -> str | None:
    try:
        signature.without_handles().checked()
    except SignatureError as error:
        return str(error)
    return None


def _describe_rows(uri: str, signature: Signature | None, prefix: str) -> Description:
    """Returns the columns of rows for the signature and of their predictions; empty if it cannot be served."""
    served = _servable(signature) if signature else None
    if signature is None or served is None:
        return {
            "excluded_outputs": [],
            "columns": [],
            "sample_row": None,
            "output_columns": [],
            "bigquery_schema": None,
            "bigquery_problem": None,
            "command": None,
        }
    excluded = [spec.name for spec in signature.without_handles().outputs if spec not in served.outputs]
    fields = output_schema(served, prefix)
    table, table_problem = _table_schema(fields)
    return {
        "excluded_outputs": excluded,
        "columns": [_describe_column(spec) for spec in served.columns],
        "sample_row": {spec.name: _sample(spec) for spec in served.columns} or None,
        "output_columns": [{"name": field.name, "type": str(field.type)} for field in fields],
        "bigquery_schema": table,
        "bigquery_problem": table_problem,
        "command": _command(uri, served, excluded, prefix),
    }


def _servable(signature: Signature) -> Signature | None:
    """Returns the signature without outputs that cannot be columns; None if none is left."""
    outputs = signature.without_handles().outputs
    good = [spec.name for spec in outputs if not _problem(signature.with_outputs((spec.name,)))]
    return signature.with_outputs(tuple(good)) if good else None


def _describe_column(spec: ColumnSpec) -> Description:
    return {
        "name": spec.name,
        "dtype": spec.dtype,
        "shape": list(spec.shape),
        "type": str(spec.arrow_type),
        "required": spec.required,
    }


def _sample(spec: ColumnSpec) -> object:
    """Returns a value that fits the column, in the JSON form that `sluice batch` reads."""
    return _zeros(_zero(spec), () if spec.is_scalar else spec.shape)


def _zero(spec: ColumnSpec) -> object:
    if spec.dtype == "string":
        return {"b64": ""} if spec.name.endswith(BYTES_SUFFIX) else ""
    if spec.dtype == "bool":
        return False
    return 0.0 if "float" in spec.dtype else 0


def _zeros(zero: object, shape: Shape) -> object:
    """Returns nested lists of the shape, with one entry where the number is free."""
    if not shape:
        return zero
    return [_zeros(zero, shape[1:]) for _ in range(1 if shape[0] is None else shape[0])]


def _table_schema(fields: pa.Schema) -> tuple[list[Description] | None, str | None]:
    """Returns the fields of a BigQuery table for the predictions, or why there can be none."""
    columns = [*fields, pa.field(MODEL_COLUMN, pa.string()), pa.field(VERSION_COLUMN, pa.int64())]
    try:
        return arrow_to_bigquery_schema(pa.schema(columns), BY_FLAGS), None
    except UsageError as error:
        return None, str(error)


def _command(uri: str, signature: Signature, excluded: Sequence[str], prefix: str) -> str:
    words = ["sluice", "batch", "--model", uri]
    words += ["--signature", signature.name] if signature.name != DEFAULT_SIGNATURE else []
    words += ["--exclude_columns", ",".join(excluded)] if excluded else []
    words += ["--output_prefix", prefix] if prefix else []
    ending = "jsonl" if signature.columns else "tfrecord"  # whole tf.Examples if their features are not known
    return shlex.join([*words, "--input", f"rows.{ending}", "--output", f"predictions.{ending}"])


def to_json(description: Description) -> str:
    """Returns the description as JSON, one line per key: otherwise a sample image would fill the screen."""
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in description.items())
    return "{\n" + ",\n".join(lines) + "\n}"
