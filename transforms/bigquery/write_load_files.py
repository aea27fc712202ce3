"""Scored rows as Parquet files for BigQuery's load jobs.

https://cloud.google.com/bigquery/docs/loading-data-cloud-storage-parquet#parquet_conversions
"""

import dataclasses
import datetime
import time
from collections.abc import Callable
from typing import BinaryIO

import pyarrow as pa

from sluice.transforms.bigquery.table_columns import append_columns
from sluice.transforms.bigquery.table_target import TableTarget
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.encode.parquet import ParquetEncoder
from sluice.transforms.files.write import Target, WriteFiles


class WriteLoadFiles(WriteFiles):
    """Writes RecordBatches to Parquet; gives the `Shard`s, which `LoadCommitter` loads, and failures.

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

    Of a decimal BigQuery takes the first of NUMERIC and BIGNUMERIC that holds its digits, which of a BIGNUMERIC(5, 2)
    would be the wrong one: each goes with all the digits that it can have.
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
