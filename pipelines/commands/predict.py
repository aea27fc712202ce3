"""`sluice predict`: scores a few rows and prints them. It imports neither Beam nor Python TensorFlow."""

import argparse
import contextlib
import io
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence

from sluice.models.cache import ModelRecipe, open_scheduler
from sluice.models.errors import FailedRow, SluiceError, UsageError
from sluice.models.files import ModelFiles
from sluice.models.saved_model.native.library import begin_to_load
from sluice.models.saved_model.signature_reader import pick_signature
from sluice.models.signatures import find_model
from sluice.models.uri import parse_model_uri
from sluice.pipelines.commands.json_output import write_json
from sluice.pipelines.commands.predict_rows import JsonColumns, JsonRow, json_lines, parse_rows, read_rows
from sluice.pipelines.commands.without_pandas import without_pandas
from sluice.pipelines.logs import tell
from sluice.pipelines.options import flags
from sluice.pipelines.options.predict import PredictOptions
from sluice.pipelines.outcome import EXIT_FAILED, EXIT_FAILURES, EXIT_OK
from sluice.pipelines.plan.defaults import parse_defaults
from sluice.transforms.core.model_files import files_of
from sluice.transforms.predict.data import score_columns

HELP = "score a few JSON rows, and print them with their predictions"
DESCRIPTION = """Scores rows of JSON, and prints each with the model's outputs, an object a line. A row that cannot be
scored is told on standard error, and the exit code is 3."""
EPILOG = """examples:
  sluice predict --model work/model --json '{"x": 1.5}'
  head -n 3 rows.jsonl | sluice predict --model grpc://localhost:8500/criteo"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice predict`."""
    flags.add_arguments(parser, PredictOptions)


def run(args: argparse.Namespace) -> int:
    """Prints the rows with their predictions; returns the exit code.

    Raises:
      UsageError: there is no such model, or no row.
    """
    options = flags.from_namespace(PredictOptions, args)
    if parse_model_uri(options.model).is_here:
        begin_to_load()
    with without_pandas():
        rows = _rows(options)
    try:
        with _quiet(args.verbose):
            return _predict(options, rows)
    except UsageError:
        raise
    except SluiceError as error:  # the model cannot be called
        tell(f"sluice predict: {type(error).__name__}: {error}\n", logging.ERROR)
        return EXIT_FAILED


@contextlib.contextmanager
def _quiet(verbose: bool) -> Iterator[None]:
    """Logs warnings only: beside a line of predictions, one that the model is loaded would be too much."""
    logger, level = logging.getLogger("sluice"), logging.getLogger("sluice").level
    logger.setLevel(level if verbose else logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _rows(options: PredictOptions) -> list[JsonRow]:
    if options.json is not None:
        return parse_rows(options.json)
    if sys.stdin.isatty():
        raise UsageError("there is no row: give --json '{\"x\": 1}', or send rows to standard input, one object a line")
    if isinstance(sys.stdin, io.TextIOWrapper):  # a line that is not UTF-8 fails alone
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    return read_rows(sys.stdin)


def _predict(options: PredictOptions, rows: Sequence[JsonRow]) -> int:
    spec = parse_model_uri(options.model)
    files = files_of(spec)
    scheduler = open_scheduler(_recipe(options, files), files)
    try:
        answers = score_columns(JsonColumns(rows), scheduler, options.output_prefix)
    finally:
        scheduler.close()
    write_json("".join(f"{line}\n" for line in json_lines(rows, answers)))
    sys.stdout.flush()
    return _tell(answers.failures)


def _tell(failures: Iterable[FailedRow]) -> int:
    code = EXIT_OK
    for failure in failures:
        said = f"{failure.error_type}: {failure.error_message}"
        tell(f"sluice predict: row {failure.row}: {said}\n", logging.ERROR)
        code = EXIT_FAILURES
    return code


def _recipe(options: PredictOptions, files: ModelFiles) -> ModelRecipe:
    spec, endpoint, defaults = parse_model_uri(options.model), options.endpoint_options(), {}
    if options.column_defaults:  # their types are those of the signature
        found = find_model(spec, files, endpoint, endpoint.rpc_timeout_secs)
        spec = found.spec
        defaults = parse_defaults(pick_signature(found.signatures, options.signature), options.column_defaults)
    return ModelRecipe(spec, options.model_options(endpoint, defaults), options.scheduler_options())
