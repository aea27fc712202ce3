"""Decides what batch and streaming jobs have in common: the model, its signature, the user's schema and defaults."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import GoogleAuthError

from sluice.models.cache import ModelRecipe
from sluice.models.errors import UsageError
from sluice.models.interface import EndpointOptions
from sluice.models.saved_model.launch import check_devices_here, check_ops
from sluice.models.saved_model.session_options import SessionOptions
from sluice.models.saved_model.signature_reader import pick_signature
from sluice.models.saved_model.versions import read_meta_graph
from sluice.models.signature import Signature
from sluice.models.signatures import FoundModel, find_model
from sluice.models.uri import ModelSpec, parse_model_uri
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.streaming import StreamingOptions
from sluice.transforms.core.beam_files import BeamFiles
from sluice.transforms.core.failures import FULL
from sluice.transforms.core.file_contents import CALL_ROWS
from sluice.transforms.core.observe import Watched, watched_columns

# How long a model's server may take to describe what it serves.
_LAUNCH_TIMEOUT_SECS = 15.0

JobOptions = BatchOptions | StreamingOptions


@contextlib.contextmanager
def launch_errors() -> Iterator[None]:
    """Turns errors of files and of Google's services into usage errors while a job is checked, before it starts.

    Raises:
      UsageError: a file or a service cannot be reached.
    """
    try:
        yield
    except GoogleAuthError as error:
        raise UsageError(
            f"Google's credentials are not valid: {error}; `gcloud auth application-default login` renews yours"
        ) from error
    except (OSError, GoogleAPIError) as error:
        raise UsageError(str(error)) from error


def check_devices(options: JobOptions) -> None:
    """Checks, for a job that runs on this machine, that the devices of --device are there.

    Raises:
      UsageError: one is not; the text lists those that are.
    """
    if options.device and parse_model_uri(options.model).is_here:
        check_devices_here(
            SessionOptions(options.intra_op_threads, options.inter_op_threads, devices=options.device_options())
        )


def check_callable(uri: str) -> None:
    """Checks that a model can be called row by row, as a stream needs it.

    Raises:
      UsageError: it is for managed jobs.
    """
    if parse_model_uri(uri).managed is not None:
        raise UsageError(
            f"--model {uri}: a managed model scores data at rest, by `sluice batch`; deploy it, and give "
            "vertex://projects/P/locations/L/endpoints/E"
        )


def find_signature(
    options: JobOptions, columns: Sequence[str], endpoint: EndpointOptions
) -> tuple[FoundModel, Signature, tuple[str, ...]]:
    """Returns the model, its signature with the wanted outputs, and the input columns to leave out.

    The model's version is pinned, so that workers which start late load the same one.

    Args:
      columns: of the input, as far as they are known.
    """
    timeout_secs = min(endpoint.rpc_timeout_secs, _LAUNCH_TIMEOUT_SECS)
    found = find_model(parse_model_uri(options.model), BeamFiles(), endpoint, timeout_secs)
    if found.on_disk:
        check_ops(options.model, read_meta_graph(found.on_disk.directory, BeamFiles()), options.op_libraries)
    signatures = found.signatures
    signature = pick_signature(signatures | _with_wanted(options, columns, signatures), options.signature)
    left_out = {options.output_prefix + output.name for output in signatures[options.signature].outputs} - {
        options.output_prefix + output.name for output in signature.outputs
    }
    exclude = tuple(name for name in options.exclude_columns if name not in left_out)
    return found, signature, exclude


def _with_wanted(options: JobOptions, columns: Sequence[str], signatures: dict[str, Signature]) -> dict[str, Signature]:
    """Returns the chosen signature without the outputs that --exclude_columns names.

    Where an input column has the same name, the input column is left out.
    """
    names = set(options.exclude_columns) - set(columns)
    signature = signatures.get(options.signature)
    if signature is None or not names:
        return {}
    kept = tuple(spec.name for spec in signature.outputs if options.output_prefix + spec.name not in names)
    if not kept:
        raise UsageError("--exclude_columns leaves out every output of the model, so there is nothing to write")
    return {signature.name: signature.with_outputs(kept)}


def make_recipe(
    options: JobOptions,
    spec: ModelSpec,
    signature: Signature,
    defaults: dict[str, Any],
    endpoint: EndpointOptions,
    poll_secs: float = 0.0,
    reads_files: bool = False,
) -> ModelRecipe:
    """Returns the recipe by which a worker opens the model.

    Args:
      reads_files: an input gets what is in files.
    """
    scheduler = options.scheduler_options()
    if reads_files and not (scheduler.max_batch_size or scheduler.allowed_batch_sizes):
        scheduler = dataclasses.replace(scheduler, max_batch_size=CALL_ROWS)
    return ModelRecipe(
        spec,
        dataclasses.replace(
            options.model_options(endpoint, defaults),
            outputs=tuple(output.name for output in signature.outputs),
            devices=options.device_options(),
            poll_secs=poll_secs,
            private=options.failure_payload != FULL,
        ),
        scheduler,
        None if spec.is_here and not poll_secs else signature,
    )


def without_account(recipe: ModelRecipe) -> ModelRecipe:
    """Returns the recipe for workers elsewhere, which call the model as themselves.

    Beam keeps --impersonate_service_account to the launcher too.
    """
    endpoint = dataclasses.replace(recipe.model.endpoint, google_account="")
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, endpoint=endpoint))


def describe_model(recipe: ModelRecipe, version: int | None) -> str:
    """Returns the model, its version and its signature, for the log."""
    found = "" if version is None else f", version {version}"
    return f"{recipe.spec.uri}{found}, signature {recipe.model.signature}"


def plan_watched(options: JobOptions, signature: Signature) -> Watched | None:
    """Returns what of the rows a report looks at; None: no report is wanted."""
    if not options.report_file:
        return None
    return watched_columns(signature, options.output_prefix, private=options.failure_payload != FULL)
