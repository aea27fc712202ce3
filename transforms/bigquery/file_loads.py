"""Scored rows to a BigQuery table by load jobs: bundles write Parquet files, and the last step has them loaded.

https://cloud.google.com/bigquery/docs/loading-data-cloud-storage-parquet#parquet_conversions
https://cloud.google.com/bigquery/docs/batch-loading-data
"""

import contextlib
import dataclasses
import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, Self

import pyarrow as pa
from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.cloud import bigquery

from sluice.models.errors import SluiceError
from sluice.transforms.bigquery.clients import call_options, open_client
from sluice.transforms.bigquery.jobs import JobFailed, JobRunner, replace_rows, with_key
from sluice.transforms.bigquery.schema import required_columns
from sluice.transforms.bigquery.table import parse_table_id
from sluice.transforms.bigquery.table_columns import append_columns
from sluice.transforms.bigquery.table_target import (
    APPEND,
    EMPTY,
    TRUNCATE,
    TableTarget,
    drop_staging,
    no_more_empty,
    staging_id,
    staging_table,
)
from sluice.transforms.core.committer import in_groups
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.encode.parquet import ParquetEncoder
from sluice.transforms.files.write import OpenShard, Shard, Target, WriteShards, remove_temp

# What one job may load: https://cloud.google.com/bigquery/quotas#load_jobs
_MAX_FILES = 10_000
_MAX_BYTES = 15 * 10**12

_DISPOSITIONS = {
    APPEND: bigquery.WriteDisposition.WRITE_APPEND,
    TRUNCATE: bigquery.WriteDisposition.WRITE_TRUNCATE_DATA,  # the plain one takes the files' schema, drops policies
    EMPTY: bigquery.WriteDisposition.WRITE_EMPTY,
}


class WriteLoadFiles(WriteShards):
    """Writes RecordBatches to Parquet; returns the `Shard`s, which `LoadCommitter` loads, and failures.

    A row that the table cannot hold is a failure.

    Args:
      files: its `temp` is a directory that BigQuery can read, of this job alone.
      clock: seconds since the epoch, for `_predicted_at`: the time at which a batch came here.
    """

    def __init__(self, target: TableTarget, files: Target, clock: Callable[[], float] = time.time) -> None:
        super().__init__(files, LoadFormat(target.schema, clock))


@dataclasses.dataclass(frozen=True)
class LoadFormat:
    """Parquet that BigQuery reads as the types of the table.

    Attributes:
      schema: see transforms.bigquery.table_columns.append_schema.
    """

    schema: pa.Schema
    clock: Callable[[], float] = time.time

    def open(self, file: BinaryIO) -> "_LoadWriter":
        return _LoadWriter(file, self)


class _LoadWriter:
    def __init__(self, file: BinaryIO, format_: LoadFormat) -> None:
        self._schema, self._clock = format_.schema, format_.clock
        self._encoder = ParquetEncoder(file, OutputSpec("parquet", file_schema(format_.schema)))

    def write(self, batch: pa.RecordBatch) -> int:
        now = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC)
        self._encoder.write(append_columns(batch, self._schema, now))
        return batch.num_rows

    def close(self) -> None:
        self._encoder.close()


def file_schema(schema: pa.Schema) -> pa.Schema:
    """Returns a file's columns.

    Each decimal is written with all the digits that its type can have. BigQuery reads one as the first of NUMERIC and
    BIGNUMERIC that holds its digits, which for a BIGNUMERIC(5, 2) would be the wrong one.
    https://cloud.google.com/bigquery/docs/reference/rest/v2/Job#JobConfigurationLoad (decimalTargetTypes)

    Args:
      schema: see transforms.bigquery.table_columns.append_schema.
    """
    return pa.schema([field.with_type(_file_type(field.type)) for field in schema])


def _file_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_file_type(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_file_type(kind.value_type)))
    return pa.decimal256(76, 38) if pa.types.is_decimal256(kind) else kind


@dataclasses.dataclass(frozen=True)
class LoadCommitter:
    """A table, as a `Committer`: its parts are the `Shard`s that WriteLoadFiles returned.

    All rows become visible at once, by one job, or none ever does. If there are more files than one job may load,
    several jobs first load them into a table of this Sluice job alone.

    Attributes:
      files: where the shards are.
      max_files, max_bytes: what one job may load.
      retry_secs: how long a call that BigQuery does not answer is repeated.
    """

    target: TableTarget
    files: Target
    max_files: int = _MAX_FILES
    max_bytes: int = _MAX_BYTES
    retry_secs: float = 300.0

    def claim(self, shards: Sequence[Shard]) -> None:
        """A load job adds its rows at once, so that jobs need not wait for each other."""

    def commit(self, shards: Sequence[Shard]) -> tuple[str, ...]:
        groups = list(load_groups(shards, self.max_files, self.max_bytes))
        if not groups and self.target.disposition == TRUNCATE:
            groups = [[OpenShard(self.files, LoadFormat(self.target.schema)).finish()]]
        if groups:
            project = parse_table_id(self.target.table).project
            with contextlib.closing(open_client(project, self.target.endpoint)) as client:
                self._load(client, groups)
        return ()

    def clean_up(self) -> None:
        remove_temp(self.files)
        drop_staging(self._staging, self.target.endpoint)

    def note(self, shards: Sequence[Shard]) -> dict[str, Any]:
        """See transforms.core.committer.Resumable."""
        files = self.files.prefix, self.files.suffix, self.files.temp
        return {"job": self.target.job, "files": files, "shards": [dataclasses.astuple(shard) for shard in shards]}

    def noted(self, note: dict[str, Any]) -> tuple[Self, list[Shard]]:
        target = dataclasses.replace(self.target, job=note["job"])
        made = dataclasses.replace(self, target=target, files=Target(*note["files"]))
        return made, [Shard(*each) for each in note["shards"]]

    @property
    def _options(self) -> dict[str, Any]:
        return call_options(self.retry_secs)

    @property
    def _table(self) -> str:
        """The table as a whole, of which the target may be a partition."""
        return self.target.table.partition("$")[0]

    @property
    def _staging(self) -> str:
        return staging_id(self._table, self.target.job)

    def _load(self, client: bigquery.Client, groups: list[list[Shard]]) -> None:
        try:
            table = client.get_table(self._table, **self._options)
            runner = JobRunner(client, table.location, self.retry_secs)
            name = f"sluice_{self.target.job}_load"  # of the one job that makes the rows visible
            if len(groups) == 1:
                config = with_key(_load_config(self.target.disposition), table)
                runner.load(name, _uris(groups[0]), self.target.table, config)
            elif not runner.has_run(name):
                self._stage(client, runner, table, groups)
                self._show(runner, name, table)
        except (GoogleAPICallError, RetryError, JobFailed) as error:
            if isinstance(error, JobFailed) and error.reason == "duplicate" and self.target.disposition == EMPTY:
                raise no_more_empty(self.target) from error
            raise SluiceError(f"table {self.target.table}: its rows cannot be loaded: {error}") from error

    def _stage(
        self, client: bigquery.Client, runner: JobRunner, table: bigquery.Table, groups: list[list[Shard]]
    ) -> None:
        """Loads all rows into the staging table."""
        client.create_table(_laid_out(staging_table(self._staging, table), table), exists_ok=True, **self._options)
        for number, group in enumerate(groups):
            runner.load(f"sluice_{self.target.job}_part{number}", _uris(group), self._staging, _load_config(APPEND))
        found = client.get_table(self._staging, **self._options).num_rows
        rows = sum(shard.rows for group in groups for shard in group)
        if found != rows:  # it was dropped after an earlier try
            raise SluiceError(
                f"table {self._staging}, where rows waited, has {found} of {rows} rows; {self.target.table} is as it "
                "was: run the job again"
            )

    def _show(self, runner: JobRunner, name: str, table: bigquery.Table) -> None:
        """Brings the rows of the staging table into the target, in one job.

        Rows are appended by a copy, since a query's results have no REQUIRED column. They replace others by a query,
        since a copy replaces the schema as well. A table with REQUIRED columns is replaced by a copy nevertheless: the
        staging table's schema was taken from it. No row is left out, as load jobs leave none in a write buffer.
        """
        disposition = _DISPOSITIONS[self.target.disposition]
        if self.target.disposition == TRUNCATE:
            if not required_columns(field.to_api_repr() for field in table.schema):
                replace_rows(runner, name, self._staging, table)
                return
            disposition = bigquery.WriteDisposition.WRITE_TRUNCATE
        never = bigquery.CreateDisposition.CREATE_NEVER
        copy = bigquery.CopyJobConfig(write_disposition=disposition, create_disposition=never)
        runner.copy(name, self._staging, self.target.table, with_key(copy, table))


def load_groups(
    shards: Sequence[Shard], max_files: int = _MAX_FILES, max_bytes: int = _MAX_BYTES
) -> Iterator[list[Shard]]:
    """Yields what one job loads."""
    return in_groups(shards, lambda shard: shard.path, max_files, max_bytes)


def _uris(shards: Sequence[Shard]) -> list[str]:
    return [shard.path for shard in shards]


def _load_config(disposition: str) -> bigquery.LoadJobConfig:
    """Returns how files are loaded: with their own types, which are the table's (see LoadFormat)."""
    parquet = bigquery.format_options.ParquetOptions()
    parquet.enable_list_inference = True
    return bigquery.LoadJobConfig(
        source_format=bigquery.SourceFormat.PARQUET,
        parquet_options=parquet,
        decimal_target_types=[bigquery.DecimalTargetType.NUMERIC, bigquery.DecimalTargetType.BIGNUMERIC],
        write_disposition=_DISPOSITIONS[disposition],
        create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
    )


def _laid_out(table: bigquery.Table, like: bigquery.Table) -> bigquery.Table:
    """Returns the table with the other's layout: BigQuery copies only between tables of the same layout.

    Its partitions do not expire, and it can be read without a filter, since all of its rows are read.
    """
    partitioning = like.time_partitioning
    if partitioning is not None:
        table.time_partitioning = bigquery.TimePartitioning(partitioning.type_, partitioning.field)
    table.range_partitioning = like.range_partitioning
    table.clustering_fields = like.clustering_fields
    return table
