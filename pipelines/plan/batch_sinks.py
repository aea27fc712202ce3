"""The sinks of a batch job: files and BigQuery tables, checked and prepared before it starts."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.table import FILE_LOADS
from sluice.pipelines.plan.output_paths import Destination, failures_target, payload_directory
from sluice.transforms.bigquery.asked import BY_FLAGS
from sluice.transforms.bigquery.commit import TableCommitter
from sluice.transforms.bigquery.file_loads import LoadCommitter, WriteLoadFiles
from sluice.transforms.bigquery.table import TableOptions
from sluice.transforms.bigquery.table_layout import parse_layout
from sluice.transforms.bigquery.table_target import plan_table
from sluice.transforms.bigquery.write import WriteTableRows
from sluice.transforms.bigquery.write_failures import WriteFailureRows, plan_failure_table
from sluice.transforms.core.beam_files import HIDDEN
from sluice.transforms.core.committer import Committer
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.files.claim import held_text, read_claim
from sluice.transforms.files.commit import FilesCommitter
from sluice.transforms.files.write import Target, WriteFailureShards, WriteShards, check_writable, existing_files

_GCS = "gs://"


@dataclasses.dataclass(frozen=True)
class Sink:
    """Files or a BigQuery table that a batch job writes to.

    Attributes:
      label: of the writer's step; an interface, which a golden test holds.
      writer: writes rows, or failures; returns what `committer` takes.
      committer: publishes what was written, after the job's failure rate is checked.
      target: of files; None for a table.
      table: PROJECT.DATASET.TABLE; "" for files.
      spec: the contents of files of predictions; None: it is another sink.
      earlier: of failures: what `writer` has returned, in an earlier job, for those of reading; None: nothing yet.
    """

    label: str
    writer: beam.PTransform
    committer: Committer
    target: Target | None = None
    table: str = ""
    spec: OutputSpec | None = None
    earlier: tuple[Any, ...] | None = None

    def files(self) -> list[str]:
        """Returns the files that exist at the sink now; a table has none."""
        return existing_files(self.target) if self.target else []


def plan_output_files(options: BatchOptions, target: Target, spec: OutputSpec) -> Sink:
    """Returns the files for predictions."""
    return Sink("Write", WriteShards(target, spec), _committer(options, target, spec), target, spec=spec)


def _committer(options: BatchOptions, target: Target, spec: OutputSpec | None = None) -> FilesCommitter:
    return FilesCommitter(target, spec, options.overwrite, read_claim(target) if options.overwrite else "")


def plan_output_table(options: BatchOptions, schema: pa.Schema, job: str, temp_location: str) -> Sink:
    """Returns the table for predictions; creates it unless it exists.

    Args:
      schema: see transforms.bigquery.table_target.plan_table.
      job: the job's own name.
      temp_location: a directory where a load job may read files; "": there is none.

    Raises:
      UsageError: the table does not fit, or cannot be made.
    """
    files = _load_files(temp_location, job) if options.write_method == FILE_LOADS else None
    target = plan_table(
        options.output_table,
        schema,
        job,
        options.write_disposition,
        TableOptions(
            parse_layout(options.partition_by, options.cluster_by),
            options.allow_schema_update,
            dry=options.check,
            asked=BY_FLAGS,
        ),
        options.bigquery_endpoint or None,
        loaded=files is not None,
    )
    if files:
        check_writable(files)
        return Sink("Write", WriteLoadFiles(target, files), LoadCommitter(target, files), table=target.table)
    endpoint = options.bigquery_storage_endpoint or None
    writer = WriteTableRows(target.rows_table, target.schema, endpoint=endpoint)
    return Sink("Write", writer, TableCommitter(target, endpoint=endpoint), table=target.table)


def _load_files(temp_location: str, job: str) -> Target:
    if not temp_location.startswith(_GCS):
        raise UsageError(
            "--write_method file_loads writes files that BigQuery reads: give --temp_location gs://BUCKET/DIRECTORY, "
            "or leave --write_method out"
        )
    temp = f"{temp_location.rstrip('/')}/{HIDDEN}{job}"
    return Target(f"{temp}/rows", ".parquet", temp)


def plan_failure_sinks(
    options: BatchOptions, files: Target | None, job: str, temp_location: str = ""
) -> Iterator[Sink]:
    """Yields the sinks for failures: files, a table, or both. Creates the table unless it exists.

    Args:
      files: see `plan_failure_files`.
      job: the job's own name.
      temp_location: see pipelines.plan.output_paths.payload_directory.

    Raises:
      UsageError: the table does not fit, or cannot be made.
    """
    if files:
        writer = WriteFailureShards(files, options.failure_payload)
        yield Sink("WriteFailures", writer, _committer(options, files), files)
    if options.failures_table:
        endpoint = options.bigquery_endpoint or None
        target = plan_failure_table(options.failures_table, f"{job}-failures", endpoint, dry=options.check)
        endpoint = options.bigquery_storage_endpoint or None
        payload_dir = payload_directory(options, (options.failures, options.output), temp_location)
        writer = WriteFailureRows(target, options.failure_payload, endpoint=endpoint, payload_dir=payload_dir)
        yield Sink("WriteFailuresTable", writer, TableCommitter(target, endpoint=endpoint), table=target.table)


def plan_failure_files(options: BatchOptions, destination: Destination | None, job: str) -> Target | None:
    """Returns where files of failures go: to --failures, or beside the predictions if there is no other sink.

    Args:
      destination: --output taken apart, if it is given.
      job: the job's own name.
    """
    if options.failures and not destination:
        return failures_target(options.failures, job)
    if destination and (options.failures or not options.failures_table):
        return destination.failures(options.failures, job)
    return None


def check_files(target: Target, overwrite: bool) -> None:
    """Checks that files can be written.

    Raises:
      UsageError: there are files that must not be replaced, another job writes there, or none can be written.
    """
    existing = existing_files(target)
    if existing and not overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UsageError(f"{existing[0]}{more} exists; give --overwrite to replace it, or another name")
    holder = "" if overwrite else read_claim(target)
    if holder:
        raise UsageError(held_text(target, holder))
    check_writable(target)
