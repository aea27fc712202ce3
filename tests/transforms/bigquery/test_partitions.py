"""Partitions by name, as restrictions."""

from typing import Any

import pytest
from google.cloud.bigquery import PartitionRange, RangePartitioning, SchemaField, Table, TimePartitioning

from sluice.models.errors import UsageError
from sluice.transforms.bigquery.partitions import partition_restriction


def table(how: TimePartitioning | RangePartitioning | None, kind: str = "TIMESTAMP") -> Table:
    made = Table("p.d.t", [SchemaField("at", kind), SchemaField("of", "INTEGER")])
    made.time_partitioning = how if isinstance(how, TimePartitioning) else None
    made.range_partitioning = how if isinstance(how, RangePartitioning) else None
    return made


STEPS = RangePartitioning(PartitionRange(start=-20, end=95, interval=10), "of")


@pytest.mark.parametrize(
    ("kind", "how", "partition", "restriction"),
    [
        ("DATE", TimePartitioning("DAY", "at"), "20240229", "`at` >= DATE '2024-02-29' AND `at` < DATE '2024-03-01'"),
        ("DATE", TimePartitioning("MONTH", "at"), "202312", "`at` >= DATE '2023-12-01' AND `at` < DATE '2024-01-01'"),
        ("DATE", TimePartitioning("YEAR", "at"), "2026", "`at` >= DATE '2026-01-01' AND `at` < DATE '2027-01-01'"),
        ("DATE", TimePartitioning("DAY", "at"), "__NULL__", "`at` IS NULL"),
        (
            "DATETIME",
            TimePartitioning("HOUR", "at"),
            "2026123123",
            "`at` >= DATETIME '2026-12-31 23:00:00' AND `at` < DATETIME '2027-01-01 00:00:00'",
        ),
        (
            "TIMESTAMP",
            TimePartitioning("MONTH", "at"),
            "202601",
            "`at` >= TIMESTAMP '2026-01-01 00:00:00+00' AND `at` < TIMESTAMP '2026-02-01 00:00:00+00'",
        ),
        (
            "DATE",
            TimePartitioning("DAY"),
            "20260101",
            "_PARTITIONTIME >= TIMESTAMP '2026-01-01 00:00:00+00' AND "
            "_PARTITIONTIME < TIMESTAMP '2026-01-02 00:00:00+00'",
        ),
        ("DATE", TimePartitioning("DAY"), "__UNPARTITIONED__", "_PARTITIONTIME IS NULL"),
        ("DATE", STEPS, "-20", "`of` >= -20 AND `of` < -10"),
        ("DATE", STEPS, "90", "`of` >= 90 AND `of` < 95"),
        ("DATE", STEPS, "__NULL__", "`of` IS NULL"),
    ],
)
def test_partitions(kind: str, how: Any, partition: str, restriction: str) -> None:
    assert partition_restriction(table(how, kind), partition) == restriction


@pytest.mark.parametrize(
    ("how", "partition", "text"),
    [
        (TimePartitioning("DAY", "at"), "202601", r"p\.d\.t\$202601: .* DAY of at \(\$YYYYMMDD\)"),
        (TimePartitioning("DAY", "at"), "20260230", "no such partition"),
        (TimePartitioning("DAY", "at"), "__UNPARTITIONED__", "no such partition"),
        (TimePartitioning("HOUR"), "__NULL__", r"HOUR of ingestion \(\$YYYYMMDDHH\)"),
        (STEPS, "15", r"'of' in steps of 10"),
        (STEPS, "100", "no such partition"),
        (STEPS, "x", "no such partition"),
        (None, "20260101", "not partitioned"),
    ],
)
def test_no_such_partition(how: Any, partition: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        partition_restriction(table(how), partition)
