"""How a BigQuery table is partitioned and clustered, which is decided when it is made; and its encryption key.

https://cloud.google.com/bigquery/docs/partitioned-tables, https://cloud.google.com/bigquery/docs/clustered-tables and
https://cloud.google.com/bigquery/docs/customer-managed-encryption
"""

import dataclasses
from collections.abc import Sequence

from google.cloud import bigquery

from sluice.models.errors import UsageError
from sluice.transforms.bigquery.schema import Field, by_name

_UNITS = ("DAY", "HOUR", "MONTH", "YEAR")
_PARTITION_TYPES = ("DATE", "DATETIME", "TIMESTAMP")
_CLUSTERING_TYPES = (
    *_PARTITION_TYPES, "BIGNUMERIC", "BOOLEAN", "GEOGRAPHY", "INTEGER", "NUMERIC", "STRING",
)  # fmt: skip
_MAX_CLUSTERING_COLUMNS = 4


@dataclasses.dataclass(frozen=True)
class TableLayout:
    """The layout of a table that is yet to be made.

    Attributes:
      partition_by: the column by which the table is partitioned; "": it is not.
      unit: what one partition spans.
      clustering: the columns by which the table is clustered, in order.
    """

    partition_by: str = ""
    unit: str = "DAY"
    clustering: tuple[str, ...] = ()

    def lay_out(self, table: bigquery.Table, fields: Sequence[Field]) -> None:
        """Sets the layout of a table that has these fields.

        Raises:
          UsageError: the fields do not allow it.
        """
        if self.partition_by:
            kind = _type_of("--partition_by", self.partition_by, _PARTITION_TYPES, fields)
            if (kind, self.unit) == ("DATE", "HOUR"):
                raise UsageError(
                    f"--partition_by {self.partition_by}:HOUR: a DATE has no hours; give DAY, MONTH or YEAR"
                )
            table.time_partitioning = bigquery.TimePartitioning(self.unit, self.partition_by)
        for name in self.clustering:
            _type_of("--cluster_by", name, _CLUSTERING_TYPES, fields)
        if self.clustering:
            table.clustering_fields = list(self.clustering)

    def check(self, table: bigquery.Table) -> None:
        """Checks that a table that exists has this layout.

        Raises:
          UsageError: it has another one.
        """
        found = table.time_partitioning
        there = (found.field or "", found.type_) if found else ("", "DAY")
        if self.partition_by and (there[0].lower(), there[1]) != (self.partition_by.lower(), self.unit):
            shown = f"partitioned by {there[0] or 'ingestion time'}:{there[1]}" if found else "not partitioned by time"
            raise UsageError(
                f"table {table.reference} is {shown}, and --partition_by says "
                f"{self.partition_by}:{self.unit}; leave that out, or name a table that does not exist yet"
            )
        clustering = tuple(name.lower() for name in table.clustering_fields or ())
        if self.clustering and clustering != tuple(name.lower() for name in self.clustering):
            raise UsageError(
                f"table {table.reference} is clustered by {', '.join(clustering) or 'nothing'}, and --cluster_by says "
                f"{','.join(self.clustering)}; leave that out, or name a table that does not exist yet"
            )


def parse_layout(partition_by: str = "", clustering: Sequence[str] = ()) -> TableLayout:
    """Returns a layout.

    Args:
      partition_by: FIELD, FIELD:DAY, FIELD:HOUR, FIELD:MONTH or FIELD:YEAR; "": none.
      clustering: names of columns.

    Raises:
      UsageError: `partition_by` has another form, or there are too many columns.
    """
    field, _, unit = partition_by.partition(":")
    unit = unit.upper() or "DAY"
    if unit not in _UNITS or (partition_by and not field):
        raise UsageError(f"--partition_by {partition_by}: write FIELD or FIELD:{'|'.join(_UNITS)}")
    if len(clustering) > _MAX_CLUSTERING_COLUMNS:
        raise UsageError(
            f"--cluster_by names {len(clustering)} columns; BigQuery clusters by {_MAX_CLUSTERING_COLUMNS} at most"
        )
    return TableLayout(field, unit, tuple(clustering))


def key_of(table: bigquery.Table) -> bigquery.EncryptionConfiguration | None:
    """Returns the user's key that encrypts a table; without its version, which BigQuery reports and does not accept."""
    found = table.encryption_configuration
    name = found.kms_key_name if found else None
    return bigquery.EncryptionConfiguration(name.partition("/cryptoKeyVersions/")[0]) if name else None


def _type_of(flag: str, name: str, types: Sequence[str], fields: Sequence[Field]) -> str:
    field = by_name(fields).get(name.lower())
    if field is None:
        raise UsageError(f"{flag} {name}: the table has no such column; it has {', '.join(f['name'] for f in fields)}")
    kind = str(field["type"])
    if field["mode"] == "REPEATED" or kind not in types:
        shown = f"REPEATED {kind}" if field["mode"] == "REPEATED" else kind
        raise UsageError(f"{flag} {name}: the column is {shown}; it must be one of {', '.join(types)}")
    return kind
