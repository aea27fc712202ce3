"""The flags that say which BigQuery tables a job writes, and how BigQuery is reached; for batch and streaming jobs."""

import dataclasses

from sluice.models.errors import UsageError
from sluice.pipelines.options.flags import flag, parse_bool, parse_names

STORAGE_WRITE_API, FILE_LOADS, STREAMING_INSERTS = "storage_write_api", "file_loads", "streaming_inserts"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableFlags:
    """Where rows go in BigQuery."""

    output_table: str = flag(
        "BigQuery table for predictions: PROJECT.DATASET.TABLE; made unless it exists", "", group="Output",
        metavar="TABLE",
    )  # fmt: skip
    allow_schema_update: bool = flag(
        "Add the columns that --output_table lacks to it", False, parse_bool, group="Output"
    )
    partition_by: str = flag(
        "If --output_table is made: partition it by this column, of days or of --partition_by COLUMN:HOUR|MONTH|YEAR",
        "",
        group="Output",
        metavar="COLUMN",
    )
    cluster_by: tuple[str, ...] = flag(
        "If --output_table is made: cluster it by these columns, four at most", (), parse_names, group="Output",
        metavar="A,B,...",
    )  # fmt: skip
    failures_table: str = flag(
        "BigQuery table for failed rows: PROJECT.DATASET.TABLE; made unless it exists", "", group="Failures",
        metavar="TABLE",
    )  # fmt: skip
    bigquery_endpoint: str = flag(
        "URL of another BigQuery than Google's (a proxy, an emulator); default: $BIGQUERY_EMULATOR_HOST, if it is set. "
        "To http:// no credentials are sent",
        "",
        group="BigQuery",
        metavar="URL",
    )
    bigquery_storage_endpoint: str = flag(
        "HOST:PORT of its Storage API, which speaks gRPC, or http://HOST:PORT for one without TLS and credentials; "
        "default: $BIGQUERY_STORAGE_EMULATOR_HOST, if it is set",
        "",
        group="BigQuery",
        metavar="HOST:PORT",
    )

    def check_tables(self) -> None:
        """
        Raises:
          UsageError: a flag about a table is given, and no table.
        """
        for name in ("allow_schema_update", "partition_by", "cluster_by"):
            if getattr(self, name) and not self.output_table:
                raise UsageError(f"--{name} is about --output_table, which is not given")
        if self.output_table and _plain(self.output_table) == _plain(self.failures_table):
            raise UsageError(f"--failures_table {self.failures_table} is --output_table: give it a table of its own")


def _plain(table_id: str) -> str:
    """Returns an id in the one of its two forms that has dots."""
    return table_id.replace(":", ".")
