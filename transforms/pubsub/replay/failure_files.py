"""Failures read from files of JSON Lines."""

from collections.abc import Iterator, Sequence

from sluice.models.errors import CorruptFile, SluiceError, UsageError
from sluice.transforms.core.beam_files import match_files, open_text
from sluice.transforms.core.failures import READ, Failure, to_json
from sluice.transforms.decode.formats import DAMAGE
from sluice.transforms.decode.lines import read_blocks
from sluice.transforms.pubsub.replay.stored_failure import StoredFailure, parse_failure


class FailureFiles:
    """Files of JSON Lines, which stay as they are. See `transforms.pubsub.replay.stored_failure.FailureSource`.

    A line that is not a failure comes as a failure of the file, with the line as its payload.

    Attributes:
      size: bytes.
      damaged: why files could not be read to their end.

    Raises:
      UsageError: no file matches, or a file holds something else.
    """

    def __init__(self, pattern: str) -> None:
        try:
            files = match_files(pattern)
        except OSError as error:
            raise UsageError(f"--failures {error}") from error
        if not files:
            raise UsageError(f"--failures {pattern}: no file matches")
        self.paths = [file.path for file in files]
        self.size = sum(file.size_in_bytes for file in files)
        self.damaged: list[str] = []
        self._check_first()

    def chunks(self) -> Iterator[list[StoredFailure]]:
        for path in self.paths:
            try:
                for block in _blocks(path):
                    yield [_parse_line(line, f"{path}#byte={at}") for at, line in block]
            except (OSError, *DAMAGE) as error:
                self.damaged.append(f"{path} cannot be read on: {type(error).__name__}: {error}")

    def settle(self, failures: Sequence[StoredFailure]) -> None:
        pass

    def close(self) -> None:
        pass

    def _check_first(self) -> None:
        """Checks one line, so that a file of something else is refused before any of it is sent."""
        for path in self.paths:
            try:
                first = next(iter(_blocks(path)), [])
            except (OSError, *DAMAGE) as error:
                raise UsageError(f"--failures {path} cannot be read: {type(error).__name__}: {error}") from error
            if first:
                try:
                    parse_failure(first[0][1])
                except SluiceError as error:
                    raise UsageError(f"--failures {path} is not a file of failures as JSON Lines: {error}") from error
                return


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
