"""Input files of a batch prediction job -> the instances that its model gets."""

import base64
import csv
import dataclasses
import gzip
import io
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from google.cloud.aiplatform_v1 import types

from sluice.models.errors import CorruptFile
from sluice.models.server.status import StatusError
from sluice.models.server.vertex.files import JobFiles, JobTables
from sluice.models.server.vertex.job_checks import BIGQUERY
from sluice.models.server.vertex.wire import loads
from sluice.models.tensors.tfrecord import read_records


@dataclasses.dataclass(frozen=True)
class Instance:
    """One instance.

    Attributes:
      sent: what the model gets.
      shown: what is beside the prediction in a line of the results: the key, or the instance as it was read.
      error: why it cannot be sent; empty if it can.
      names: of the values of an array.
    """

    sent: Any = None
    shown: dict[str, Any] = dataclasses.field(default_factory=dict)
    error: str = ""
    names: tuple[str, ...] = ()

    def columns(self) -> dict[str, Any]:
        """Returns the columns that stand beside a prediction where results are a table."""
        value = self.shown.get("instance")
        if isinstance(value, dict):
            return value
        return dict(zip(self.names, value, strict=True)) if self.names and value else self.shown


class UnreadableFile(Exception):
    """One file that cannot be read, or ends early. The text names it."""


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads the files of a job.

    Attributes:
      form: one of input_config.instances_format.
      config: how instances are made of what is read.
      strict: NaN and Infinity are not JSON.
      tables: None: there is no BigQuery.
    """

    files: JobFiles
    form: str
    config: types.BatchPredictionJob.InstanceConfig
    strict: bool
    tables: JobTables | None = None

    def read(self, path: str) -> Iterator[Instance]:
        """Yields the instances of a file, or of a table.

        Raises:
          UnreadableFile: it cannot be read past some point.
        """
        if self.form == BIGQUERY:
            assert self.tables is not None, "checked when the job was created"
            yield from map(self._of_value, self.tables.read(path))
            return
        try:
            with self.files.open(path) as file:
                yield from self._instances(file)
        except (OSError, EOFError, CorruptFile, UnicodeDecodeError, csv.Error) as error:
            raise UnreadableFile(f"{path}: {type(error).__name__}: {error}") from error

    def _instances(self, file: BinaryIO) -> Iterator[Instance]:
        if self.form == "jsonl":
            return (self._line(line) for line in file if line.strip())
        if self.form == "csv":
            return self._table(file)
        if self.form == "file-list":
            return (_packed(self._whole(line.decode().strip())) for line in file if line.strip())
        records = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if self.form == "tf-record-gzip" else file
        return (_packed(record) for _, record in read_records(records))

    def _whole(self, path: str) -> bytes:
        with self.files.open(path) as file:
            return file.read()

    def _line(self, line: bytes) -> Instance:
        try:
            value = loads(line, "Cannot parse a line of the input:", self.strict)
        except StatusError as error:
            return Instance(error=error.message)
        return self._of_value(value)

    def _of_value(self, value: Any) -> Instance:
        config = self.config
        fields = config.key_field or config.included_fields or config.excluded_fields or config.instance_type
        if not fields and self.form != BIGQUERY:
            return Instance(value, {"instance": value})
        if not isinstance(value, dict):
            return Instance(error="A line of the input is not an object.")
        for name in (*filter(None, [config.key_field]), *config.included_fields):
            if name not in value:
                return Instance(error=f"A line of the input has no field {name}.")
        return Instance(self._fields(value), self._shown(value))

    def _fields(self, value: dict[str, Any]) -> Any:
        config = self.config
        dropped = {config.key_field, *config.excluded_fields}
        names = list(config.included_fields) or [name for name in value if name not in dropped]
        if (config.instance_type or self._default_type) == "array":
            return [value[name] for name in names]
        return {name: value[name] for name in names}

    @property
    def _default_type(self) -> str:
        return "array" if self.form == BIGQUERY else "object"

    def _shown(self, value: dict[str, Any]) -> dict[str, Any]:
        key = self.config.key_field
        return {"key": value[key]} if key else {"instance": value}

    def _table(self, file: BinaryIO) -> Iterator[Instance]:
        """Yields the rows of a CSV file with a header as arrays: the service makes no objects of them."""
        rows = csv.reader(io.TextIOWrapper(file, "utf-8", newline=""))
        header = next(rows, [])
        key = self.config.key_field
        for row in rows:
            if len(row) != len(header) or (key and key not in header):
                yield Instance(error=f"A row of the input has {len(row)} fields; the header is {header}.")
                continue
            values = [_value(text) for text in row]
            at = header.index(key) if key else None
            sent = [value for place, value in enumerate(values) if place != at]
            yield Instance(sent, {"instance": values} if at is None else {"key": values[at]}, names=tuple(header))


def _packed(data: bytes) -> Instance:
    sent = {"b64": base64.b64encode(data).decode()}
    return Instance(sent, {"instance": sent})


def _value(text: str) -> int | float | str:
    """Returns a field of a CSV file: a number if it is one."""
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if text.strip("+-.eE0123456789") == "" else text
    return text
