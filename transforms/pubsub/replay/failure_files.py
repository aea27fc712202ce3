"""Failures read from files of JSON Lines."""

import os
from collections.abc import Iterator, Sequence

from apache_beam.io.filesystem import FileMetadata

from sluice.models.errors import CorruptFile, SluiceError, UsageError
from sluice.transforms.core.beam_files import match_files, open_text
from sluice.transforms.core.failures import READ, Failure, to_json
from sluice.transforms.decode.formats import DAMAGE
from sluice.transforms.decode.lines import read_blocks
from sluice.transforms.pubsub.replay.stored_failure import StoredFailure, parse_failure

# Of a directory, the files that may hold failures.
_ENDINGS = (".jsonl", ".json", ".ndjson", ".jsonl.gz", ".json.gz", ".ndjson.gz")


class FailureFiles:
    """Files of JSON Lines, which stay as they are. See `transforms.pubsub.replay.stored_failure.FailureSource`.

    A line that is not a failure comes as a failure of the file, with the line as its payload.

    Args:
      pattern: a path or glob; or a directory, which means those of its files whose first line is a failure.
      label: the flag by which it was given, with a space behind it, for errors.

    Attributes:
      size: bytes.
      damaged: why files could not be read to their end.

    Raises:
      UsageError: no file matches, or a file holds something else.
    """

    def __init__(self, pattern: str, label: str = "--failures ") -> None:
        self._label = label
        try:
            # Beam matches a name on gs:// that ends in a slash with all that begins with it.
            is_directory = pattern.endswith("/") if "://" in pattern else os.path.isdir(pattern)
            files = [] if is_directory else match_files(pattern)
            files = files or self._of_directory(pattern.rstrip("/"))
        except OSError as error:
            raise UsageError(f"{label}{error}") from error
        self.paths = [file.path for file in files]
        self.size = sum(file.size_in_bytes for file in files)
        self.damaged: list[str] = []
        self._check_first()

    def chunks(self) -> Iterator[list[StoredFailure]]:
        for path, block in self.blocks():
            yield [_parse_line(line, f"{path}#byte={at}") for at, line in block]

    def blocks(self) -> Iterator[tuple[str, list[tuple[int, bytes]]]]:
        """Yields lines that are not blank, some at a time: their file, and each with its position."""
        for path in self.paths:
            try:
                for block in _blocks(path):
                    yield path, block
            except (OSError, *DAMAGE) as error:
                self.damaged.append(f"{path} cannot be read on: {type(error).__name__}: {error}")

    def settle(self, failures: Sequence[StoredFailure]) -> None:
        pass

    def close(self) -> None:
        pass

    def _of_directory(self, directory: str) -> list[FileMetadata]:
        inside = [file for file in match_files(f"{directory}/*") if file.path.endswith(_ENDINGS)]
        if not inside:
            raise UsageError(f"{self._label}{directory}: no file matches")
        files = [file for file in inside if self._problem(file.path) is None]
        if not files:
            raise UsageError(f"{self._label}{directory}: none of its {len(inside)} files of JSON Lines holds failures")
        return files

    def _check_first(self) -> None:
        """Checks one line, so that a file of something else is refused before any of it is sent."""
        for path in self.paths:
            problem = self._problem(path)
            if problem:
                raise UsageError(f"{self._label}{path} is not a file of failures as JSON Lines: {problem}")
            if problem is None:
                return

    def _problem(self, path: str) -> str | None:
        """Returns why the first line of a file is no failure; None if it is one, "" if there is no line.

        Raises:
          UsageError: the file cannot be read.
        """
        try:
            first = next(iter(_blocks(path)), [])
        except (OSError, *DAMAGE) as error:
            raise UsageError(f"{self._label}{path} cannot be read: {type(error).__name__}: {error}") from error
        if not first:
            return ""
        try:
            parse_failure(first[0][1])
        except SluiceError as error:
            return str(error)
        return None


def _blocks(path: str) -> Iterator[list[tuple[int, bytes]]]:
    """Yields the lines of a file that are not blank, each with its position."""
    with open_text(path) as file:
        for block in read_blocks(file):
            lines = [(at, block.line(number)) for number, at in enumerate(block.positions.tolist())]
            if full := [(at, line) for at, line in lines if line.strip()]:
                yield full


def _parse_line(line: bytes, origin: str) -> StoredFailure:
    try:
        return parse_failure(line)
    except SluiceError as error:
        return parse_failure(to_json(Failure(READ, CorruptFile.__name__, str(error), origin, line)))
