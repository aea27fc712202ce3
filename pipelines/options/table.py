"""The flags for BigQuery tables that batch and streaming jobs write, and for how to reach BigQuery."""

import dataclasses

from sluice.models.errors import UsageError
from sluice.pipelines.options.flags import flag, parse_bool, parse_names

STORAGE_WRITE_API, FILE_LOADS, STREAMING_INSERTS = "storage_write_api", "file_loads", "streaming_inserts"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BigQueryFlags:
    """How BigQuery is reached."""

    bigquery_endpoint: str = flag(
        "URL of a proxy or an emulator instead of Google's BigQuery; default: $BIGQUERY_EMULATOR_HOST, if it is set. "
        "An http:// URL gets no credentials",
        "",
        group="BigQuery",
        metavar="URL",
    )
    bigquery_storage_endpoint: str = flag(
        "HOST:PORT of its Storage API (gRPC), or http://HOST:PORT for one without TLS and credentials; "
        "default: $BIGQUERY_STORAGE_EMULATOR_HOST, if it is set",
        "",
        group="BigQuery",
        metavar="HOST:PORT",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableFlags(BigQueryFlags):
    """Which tables a job writes."""

    output_table: str = flag(
        "BigQuery table for predictions: PROJECT.DATASET.TABLE; created unless it exists", "", group="Output",
        metavar="TABLE",
    )  # fmt: skip
    allow_schema_update: bool = flag("Add missing columns to --output_table", False, parse_bool, group="Output")
    partition_by: str = flag(
        "If --output_table is created: partition it by this column, by day or, as COLUMN:HOUR|MONTH|YEAR, otherwise",
        "",
        group="Output",
        metavar="COLUMN",
    )
    cluster_by: tuple[str, ...] = flag(
        "If --output_table is created: cluster it by these columns, four at most", (), parse_names, group="Output",
        metavar="A,B,...",
    )  # fmt: skip
    failures_table: str = flag(
        "BigQuery table for failed rows: PROJECT.DATASET.TABLE; created unless it exists", "", group="Failures",
        metavar="TABLE",
    )  # fmt: skip

    def check_tables(self) -> None:
        """Checks the flags of tables.

        Raises:
          UsageError: a flag for a table is given without the table.
        """
        for name in ("allow_schema_update", "partition_by", "cluster_by"):
            if getattr(self, name) and not self.output_table:
                raise UsageError(f"--{name} applies to --output_table, which is not given")
        if self.output_table and _plain(self.output_table) == _plain(self.failures_table):
            raise UsageError(f"--failures_table {self.failures_table} is the table of --output_table; give another one")


def _plain(table_id: str) -> str:
    """Returns a table's id with dots: PROJECT:DATASET.TABLE is the same as PROJECT.DATASET.TABLE."""
    return table_id.replace(":", ".")
