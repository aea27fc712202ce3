"""The user's sample, grown to as many rows as a measurement needs."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from sluice.transforms.core.formats import CSV, JSONL, TFRECORD

# Formats whose files may follow each other in one file; of CSV, without the header of the second.
_JOINED = (CSV, JSONL, TFRECORD)
# A file that is not joined has at most so many links.
_MAX_LINKS = 2000


class Sample:
    """The files of a sample, and directories in which each is there several times.

    Args:
      files: paths on this machine.
      format_: of all of them, a name of transforms.core.formats.
      plain: the files are text in UTF-8 or TFRecords, not packed, and CSV begins with one line of names.
      directory: for the grown files.
    """

    def __init__(self, files: Sequence[str], format_: str, plain: bool, directory: str) -> None:
        self._files, self._format, self._directory = list(files), format_, directory
        self._join = plain and format_ in _JOINED

    def times(self, count: int) -> str:
        """Returns a directory with the sample so many times."""
        directory = os.path.join(self._directory, f"times-{count}")
        if not os.path.exists(directory):
            unfinished = f"{directory}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            os.mkdir(unfinished)
            for number, path in enumerate(self._files):
                self._grow(path, count, os.path.join(unfinished, f"{number:05d}"))
            os.rename(unfinished, directory)
        return directory

    def _grow(self, path: str, count: int, prefix: str) -> None:
        name = os.path.basename(path)
        if count == 1 or not self._join:
            for number in range(min(count, _MAX_LINKS)):
                os.symlink(os.path.abspath(path), f"{prefix}-{number:05d}-{name}")
            return
        data = Path(path).read_bytes()
        if data and self._format != TFRECORD and not data.endswith(b"\n"):
            data += b"\n"
        body = data[data.find(b"\n") + 1 :] if self._format == CSV else data
        with open(f"{prefix}-{name}", "wb") as file:
            file.write(data)
            for _ in range(count - 1):
                file.write(body)
