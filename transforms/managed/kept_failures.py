"""Failures kept between two jobs, whole: those that users see may lack the payload, and have no public text beside."""

import base64
import dataclasses
from collections.abc import Iterator
from typing import BinaryIO

import orjson

from sluice.models.wording import Message
from sluice.transforms.core.failures import Failure
from sluice.transforms.files.open_file import Writer

_PUBLIC = "public"


@dataclasses.dataclass(frozen=True)
class KeptFormat:
    """Failures as JSON Lines of our own; a transforms.files.open_file.Format."""

    def open(self, file: BinaryIO) -> Writer[Failure]:
        return _KeptWriter(file)


class _KeptWriter:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, failure: Failure) -> int:
        self._file.write(to_line(failure))
        return 1

    def close(self) -> None:
        pass


def to_line(failure: Failure) -> bytes:
    """Returns a failure as a line."""
    record = dataclasses.asdict(failure) | {"payload": base64.b64encode(failure.payload).decode()}
    text = failure.error_message
    record["error_message"] = str.__str__(text)
    if isinstance(text, Message):
        record[_PUBLIC] = text.public
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def from_line(line: bytes) -> Failure:
    """Returns the failure of a line."""
    record = orjson.loads(line)
    public = record.pop(_PUBLIC, None)
    if public is not None:
        record["error_message"] = Message(record["error_message"], public)
    record["payload"] = base64.b64decode(record["payload"])
    record["attributes"] = tuple((name, value) for name, value in record["attributes"])
    return Failure(**record)


def read_failures(file: BinaryIO) -> Iterator[Failure]:
    """Yields the failures of a file."""
    return map(from_line, iter(file.readline, b""))
