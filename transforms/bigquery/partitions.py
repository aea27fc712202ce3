"""One partition of a BigQuery table, as a restriction of its rows: the Storage API does not know partitions by name.

Their names: https://cloud.google.com/bigquery/docs/managing-partitioned-tables#select_partitions
"""

import datetime
import re

from google.cloud import bigquery

from sluice.models.errors import UsageError
from sluice.transforms.bigquery.read_session import quoted

_FORMATS = {"YEAR": "%Y", "MONTH": "%Y%m", "DAY": "%Y%m%d", "HOUR": "%Y%m%d%H"}
_DIGITS = {"YEAR": 4, "MONTH": 6, "DAY": 8, "HOUR": 10}
_NULL, _UNPARTITIONED = "__NULL__", "__UNPARTITIONED__"
_LITERALS = {"DATE": "%Y-%m-%d", "DATETIME": "%Y-%m-%d %H:%M:%S", "TIMESTAMP": "%Y-%m-%d %H:%M:%S+00"}


def partition_restriction(table: bigquery.Table, partition: str) -> str:
    """Returns what stands behind WHERE for one partition.

    Args:
      partition: what stands behind the $ of a table: YYYY to YYYYMMDDHH, the first value of an integer range, __NULL__
        or __UNPARTITIONED__.

    Raises:
      UsageError: the table has no partition of such a name.
    """
    restriction = None
    if table.range_partitioning:
        restriction = _range_restriction(table.range_partitioning, partition)
    elif table.time_partitioning:
        kinds = {field.name: field.field_type for field in table.schema}
        restriction = _time_restriction(table.time_partitioning, kinds, partition)
    if restriction is None:
        how = table.range_partitioning or table.time_partitioning
        raise UsageError(
            f"--input_table {table.reference}${partition}: the table has no such partition; it is "
            f"{f'partitioned by {_shown(how)}' if how else 'not partitioned'}"
        )
    return restriction


def _shown(how: bigquery.TimePartitioning | bigquery.RangePartitioning) -> str:
    if isinstance(how, bigquery.RangePartitioning):
        return f"'{how.field}' in steps of {how.range_.interval} ($0, for instance)"
    digits = "YYYYMMDDHH"[: _DIGITS[how.type_]]
    return f"{how.type_} of {how.field or 'ingestion'} (${digits})"


def _range_restriction(how: bigquery.RangePartitioning, partition: str) -> str | None:
    column, steps = quoted(how.field), how.range_
    if partition == _NULL:
        return f"{column} IS NULL"
    if not re.fullmatch(r"-?\d+", partition):
        return None
    first, start, step = int(partition), int(steps.start), int(steps.interval)
    if (first - start) % step or not start <= first < int(steps.end):
        return None
    return f"{column} >= {first} AND {column} < {min(first + step, int(steps.end))}"


def _time_restriction(how: bigquery.TimePartitioning, kinds: dict[str, str], partition: str) -> str | None:
    column = quoted(how.field) if how.field else "_PARTITIONTIME"
    kind = kinds.get(how.field, "TIMESTAMP") if how.field else "TIMESTAMP"
    if partition == (_NULL if how.field else _UNPARTITIONED):
        return f"{column} IS NULL"
    if len(partition) != _DIGITS[how.type_] or not partition.isdecimal():
        return None
    try:
        first = datetime.datetime.strptime(partition, _FORMATS[how.type_])
    except ValueError:
        return None
    begin, end = (f"{kind} '{each.strftime(_LITERALS[kind])}'" for each in (first, _next(first, how.type_)))
    return f"{column} >= {begin} AND {column} < {end}"


def _next(first: datetime.datetime, unit: str) -> datetime.datetime:
    if unit in ("YEAR", "MONTH"):
        months = first.month + (12 if unit == "YEAR" else 1) - 1
        return first.replace(year=first.year + months // 12, month=months % 12 + 1)
    return first + (datetime.timedelta(hours=1) if unit == "HOUR" else datetime.timedelta(days=1))
