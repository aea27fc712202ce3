"""Files of scored rows loaded into a BigQuery table once the job is judged.

https://cloud.google.com/bigquery/docs/batch-loading-data
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.cloud import bigquery

from sluice.models.errors import SluiceError
from sluice.transforms.bigquery.jobs import JobFailed, JobRunner, with_key
from sluice.transforms.bigquery.read_session import quoted
from sluice.transforms.bigquery.staging_table import drop_staging, staging_id, staging_table
from sluice.transforms.bigquery.table import open_client, parse_table_id
from sluice.transforms.bigquery.table_target import APPEND, EMPTY, TRUNCATE, TableTarget, required_columns
from sluice.transforms.bigquery.write_load_files import LoadFormat
from sluice.transforms.core.committer import in_groups
from sluice.transforms.files.write import OpenShard, Shard, Target, remove_temp

# What one job may load: https://cloud.google.com/bigquery/quotas#load_jobs
_MAX_FILES = 10_000
_MAX_BYTES = 15 * 10**12

_DISPOSITIONS = {
    APPEND: bigquery.WriteDisposition.WRITE_APPEND,
    TRUNCATE: bigquery.WriteDisposition.WRITE_TRUNCATE_DATA,  # the plain one takes the files' schema, drops policies
    EMPTY: bigquery.WriteDisposition.WRITE_EMPTY,
}
_CALL_SECS = 60.0


@dataclasses.dataclass(frozen=True)
class LoadCommitter:
    """A table, as a `Committer`: its parts are the `Shard`s that WriteLoadFiles gave.

    The rows are seen all at once, by one job; if it never succeeds, none is. More files than one job may load are
    first loaded into a table of this job alone, by several.

    Attributes:
      files: where the shards are.
      max_files, max_bytes: what one job may load.
      retry_secs: how long a call is repeated that BigQuery does not answer.
    """

    target: TableTarget
    files: Target
    max_files: int = _MAX_FILES
    max_bytes: int = _MAX_BYTES
    retry_secs: float = 300.0

    def commit(self, shards: Sequence[Shard]) -> tuple[str, ...]:
        groups = list(load_groups(shards, self.max_files, self.max_bytes))
        if not groups and self.target.disposition == TRUNCATE:
            groups = [[OpenShard(self.files, LoadFormat(self.target.schema)).finish()]]
        if groups:
            with self._client() as client:
                self._load(client, groups)
        return ()

    def clean_up(self) -> None:
        remove_temp(self.files)
        drop_staging(self._staging, self.target.endpoint)

    @contextlib.contextmanager
    def _client(self) -> Iterator[bigquery.Client]:
        with contextlib.closing(open_client(parse_table_id(self.target.table).project, self.target.endpoint)) as client:
            yield client

    @property
    def _options(self) -> dict[str, Any]:
        return {"retry": bigquery.DEFAULT_RETRY.with_timeout(self.retry_secs), "timeout": _CALL_SECS}

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
            name = f"sluice_{self.target.job}_load"  # of the one job by which the rows are seen
            if len(groups) == 1:
                config = with_key(_load_config(self.target.disposition), table)
                runner.load(name, _uris(groups[0]), self.target.table, config)
            elif not runner.has_run(name):
                self._stage(client, runner, table, groups)
                self._show(runner, name, table)
        except JobFailed as error:
            if error.reason == "duplicate" and self.target.disposition == EMPTY:
                raise SluiceError(
                    f"table {self.target.table} has got rows since the job began, and --write_disposition empty says "
                    "that it has none; its predictions are not written"
                ) from error
            raise SluiceError(f"table {self.target.table}: its rows cannot be loaded: {error}") from error
        except (GoogleAPICallError, RetryError) as error:
            raise SluiceError(f"table {self.target.table}: its rows cannot be loaded: {error}") from error

    def _stage(
        self, client: bigquery.Client, runner: JobRunner, table: bigquery.Table, groups: list[list[Shard]]
    ) -> None:
        """Has all rows in the other table."""
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
        """Has the rows of the other table in the target, in one job.

        To append takes a copy: of a query's results no column is REQUIRED. To replace rows takes a query, since a copy
        replaces the schema as well; but for a table with REQUIRED columns a copy, whose schema is the same: that of the
        table for rows to wait in was taken from it. A copy misses none of those, as load jobs leave them in no buffer.
        """
        disposition = _DISPOSITIONS[self.target.disposition]
        never = bigquery.CreateDisposition.CREATE_NEVER
        truncate = self.target.disposition == TRUNCATE
        if truncate and not required_columns(field.to_api_repr() for field in table.schema):
            config = bigquery.QueryJobConfig(
                destination=self.target.table,
                write_disposition=disposition,
                create_disposition=never,
                use_query_cache=False,
            )
            runner.query(name, f"SELECT * FROM {quoted(self._staging)}", with_key(config, table))
        else:
            disposition = bigquery.WriteDisposition.WRITE_TRUNCATE if truncate else disposition
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
    """Returns the table with the other's layout, since only such a one can be copied to it.

    Its partitions do not expire, and need no filter to be read: all of its rows are.
    """
    partitioning = like.time_partitioning
    if partitioning is not None:
        table.time_partitioning = bigquery.TimePartitioning(partitioning.type_, partitioning.field)
    table.range_partitioning = like.range_partitioning
    table.clustering_fields = like.clustering_fields
    return table
