"""The label of a managed job: what the job is for, so that the same command finds its job again.

Two commands have the same label if the job of one would give the other what it wants: the same rows, scored by the same
version of the model, and written to the same place.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence

from google.cloud import bigquery

from sluice.models.signature import Signature
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.schema import AUTO
from sluice.pipelines.plan.declared import read_input_schema
from sluice.transforms.bigquery.clients import call_options, open_client
from sluice.transforms.bigquery.read_session import TableInput, dry_run
from sluice.transforms.core.beam_files import match_files
from sluice.transforms.files.find_files import absolute

# Raised when the files that a job leaves change their form, so that jobs of an earlier Sluice are not followed.
_FORM = "2"
# The groups of flags that change nothing of what the job gives: how servers are reached, and what is reported.
_GROUPS_APART = ("Endpoint", "BigQuery", "Run")
# Flags likewise; and those whose meaning is in the label already: `input` in the files that it matches.
_APART = (
    "input", "model", "overwrite", "max_failure_rate", "detach", "cancel_on_interrupt", "vertex_job",
    "vertex_max_rescore_rate",
)  # fmt: skip
_PATHS = ("output", "failures", "failure_payload_dir", "read_paths_root")
# Values of labels have 63 characters at most, of a-z, 0-9, _ and -. A letter is first, so that no filter takes it for a
# number.
_LETTER, _DIGITS = "s", 40
LABEL = rf"{_LETTER}[0-9a-f]{{{_DIGITS}}}"


def job_label(inputs: Sequence[str], model: str, signature: Signature, options: BatchOptions) -> str:
    """Returns the label of a job.

    Args:
      inputs: see `files_state` and `table_state`.
      model: projects/P/locations/L/models/M@VERSION, where VERSION is a number and no alias.
      signature: with the outputs that are wanted.
    """
    return make_label(list(inputs), flags_label(model, signature, options))


def flags_label(model: str, signature: Signature, options: BatchOptions) -> str:
    """Returns the label of all but the input: two jobs share it if one scores what the other's input has become.

    For the arguments see `job_label`.
    """
    return make_label(model, repr(signature), _options(options))


def make_label(*parts: object) -> str:
    """Returns a label that stands for these parts."""
    text = json.dumps([_FORM, *parts], sort_keys=True)
    return _LETTER + hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _options(options: BatchOptions) -> dict[str, str]:
    """Returns the flags that change what a job gives, as text. They hold no secret: those are in the group Endpoint."""
    kept = [
        field.name
        for field in dataclasses.fields(options)
        if field.metadata["group"] not in _GROUPS_APART and field.name not in _APART
    ]
    return {name: _value(name, getattr(options, name)) for name in kept}


def _value(name: str, value: object) -> str:
    if name == "input_schema" and value != AUTO:  # which is of the rows, and these are in the label
        return repr(read_input_schema(str(value)))  # the types in the file: it may be written anew
    if name in _PATHS and value and "://" not in str(value):
        return os.path.abspath(str(value))  # the same command, started in another directory, writes elsewhere
    return repr(value)


def files_state(pattern: str) -> tuple[str, ...]:
    """Returns the files that match a glob as they are now: names, sizes, and times of the last change.

    Raises:
      OSError: the storage does not answer.
    """
    return tuple(
        f"{absolute(file.path)} {file.size_in_bytes} {file.last_updated_in_seconds!r}" for file in match_files(pattern)
    )


def table_state(table: TableInput, retry_secs: float = 30.0) -> tuple[str, ...]:
    """Returns a table as it is now; for a query or a view, its text and the tables that it reads.

    Of functions such as RAND(), and of tables past the 50 that BigQuery names, nothing shows.

    Raises:
      GoogleAPICallError, RetryError: BigQuery refuses, or does not answer.
    """
    client = open_client(table.project, table.endpoint)
    try:
        if table.stored:
            return (table_text(client.get_table(table.table, **call_options(retry_secs))),)
        job = dry_run(table, retry_secs)
        names = {f"{each.project}.{each.dataset_id}.{each.table_id}" for each in job.referenced_tables or ()}
        if table.table and not table.table.endswith("*"):
            names.add(table.table)  # a view: its own text may change
        return (
            table.sql(),
            *(table_text(client.get_table(name, **call_options(retry_secs))) for name in sorted(names)),
        )
    finally:
        client.close()


def table_text(table: bigquery.Table) -> str:
    """Returns a stored table as it is now: its name, its last change, its size, and what is on its way in."""
    waiting = table.streaming_buffer.estimated_rows if table.streaming_buffer else 0
    return f"{table.reference} {table.modified} {table.num_rows} {table.num_bytes} {waiting}"
