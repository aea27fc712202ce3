"""Where a batch job's predictions and failures go, decided and looked at before it starts."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.table import FILE_LOADS
from sluice.pipelines.plan.output import Destination, failures_target
from sluice.transforms.core.beam_files import HIDDEN
from sluice.transforms.core.committer import Committer
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.files.commit import FilesCommitter
from sluice.transforms.files.write import Target, check_writable, existing_files

if TYPE_CHECKING:
    from sluice.transforms.bigquery.table_target import TableTarget

_GCS = "gs://"


@dataclasses.dataclass(frozen=True)
class FilesOutput:
    """Predictions to files."""

    target: Target
    spec: OutputSpec

    @property
    def committer(self) -> Committer:
        return FilesCommitter(self.target, self.spec)


@dataclasses.dataclass(frozen=True)
class TableOutput:
    """Predictions to a BigQuery table.

    Attributes:
      files: of load jobs: where they are written first; None: rows are appended by the Storage Write API.
      storage_endpoint: see transforms.bigquery.clients.write_client.
    """

    target: "TableTarget"
    files: Target | None
    storage_endpoint: str | None

    @property
    def committer(self) -> Committer:
        if self.files:
            from sluice.transforms.bigquery.file_loads import LoadCommitter

            return LoadCommitter(self.target, self.files)
        from sluice.transforms.bigquery.commit import TableCommitter

        return TableCommitter(self.target, endpoint=self.storage_endpoint)


@dataclasses.dataclass(frozen=True)
class FailureSinks:
    """Where failures go: to files, to a table, or to both; None: not there."""

    files: Target | None
    table: "TableTarget | None"
    payload_mode: str
    storage_endpoint: str | None

    @property
    def committers(self) -> Iterator[Committer]:
        """In the order of WriteFailures, WriteFailuresTable."""
        if self.files:
            yield FilesCommitter(self.files)
        if self.table:
            from sluice.transforms.bigquery.commit import TableCommitter

            yield TableCommitter(self.table, endpoint=self.storage_endpoint)


def plan_failure_files(options: BatchOptions, destination: Destination | None, job: str) -> Target | None:
    """Returns where files of failures go: to --failures, or beside the predictions if there is no other place.

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
    """
    Raises:
      UsageError: there are files, and they are not to be replaced; or none can be written.
    """
    existing = existing_files(target)
    if existing and not overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UsageError(f"{existing[0]}{more} exists; give --overwrite to replace it, or another name")
    check_writable(target)


def plan_output_table(options: BatchOptions, schema: pa.Schema, job: str, temp_location: str) -> TableOutput:
    """Returns where rows of a table go; makes the table unless it is there.

    Args:
      schema: see transforms.bigquery.table_target.plan_table.
      temp_location: a directory where a load job may read files; "": there is none.

    Raises:
      UsageError: the table does not fit, or cannot be made.
    """
    from sluice.transforms.bigquery.table import TableOptions
    from sluice.transforms.bigquery.table_layout import parse_layout
    from sluice.transforms.bigquery.table_target import plan_table

    layout = parse_layout(options.partition_by, options.cluster_by)
    files = _load_files(temp_location, job) if options.write_method == FILE_LOADS else None
    target = plan_table(
        options.output_table,
        schema,
        job,
        options.write_disposition,
        TableOptions(layout, options.allow_schema_update),
        options.bigquery_endpoint or None,
        loaded=files is not None,
    )
    if files:
        check_writable(files)
    return TableOutput(target, files, options.bigquery_storage_endpoint or None)


def _load_files(temp_location: str, job: str) -> Target:
    if not temp_location.startswith(_GCS):
        raise UsageError(
            "--write_method file_loads writes files that BigQuery reads: give --temp_location gs://BUCKET/DIRECTORY, "
            "or leave --write_method out"
        )
    temp = f"{temp_location.rstrip('/')}/{HIDDEN}{job}"
    return Target(f"{temp}/rows", ".parquet", temp)


def plan_failure_sinks(options: BatchOptions, files: Target | None, job: str) -> FailureSinks:
    """Returns where failures go; makes the table unless it is there.

    Raises:
      UsageError: the table does not fit, or cannot be made.
    """
    table = None
    if options.failures_table:
        from sluice.transforms.bigquery.write_failures import plan_failure_table

        table = plan_failure_table(options.failures_table, f"{job}-failures", options.bigquery_endpoint or None)
    storage_endpoint = options.bigquery_storage_endpoint or None
    return FailureSinks(files, table, options.failure_payload, storage_endpoint)
