"""Where batch prediction jobs read and write."""

import glob
import os
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Protocol

from sluice.models.server.status import invalid


class JobFiles(Protocol):
    """A file system, as far as a job needs it."""

    def match(self, pattern: str) -> list[str]:
        """Returns the files that match a glob, sorted."""

    def open(self, path: str) -> BinaryIO:
        """Opens a file to read."""

    def create(self, path: str) -> BinaryIO:
        """Opens a new file to write; its directory is made. It is there once it is closed."""


class JobTables(Protocol):
    """BigQuery, as far as a job needs it. A table is bq://PROJECT.DATASET.TABLE."""

    def read(self, uri: str) -> Iterator[dict[str, Any]]:
        """Yields the rows of a table as JSON has them: bytes in base64, times as text."""

    def write(self, uri: str, rows: Sequence[dict[str, Any]]) -> None:
        """Makes a table of rows, which have the same columns."""


class LocalJobFiles:
    """Directories of this machine, in place of gs://."""

    def match(self, pattern: str) -> list[str]:
        _check_local(pattern)
        return sorted(path for path in glob.glob(pattern) if os.path.isfile(path))

    def open(self, path: str) -> BinaryIO:
        _check_local(path)
        return open(path, "rb")

    def create(self, path: str) -> BinaryIO:
        _check_local(path)
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        return open(path, "wb")


def _check_local(path: str) -> None:
    if "://" in path:
        raise invalid(f"{path} is not on this machine, and this service has no other storage.")
