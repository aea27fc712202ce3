"""Lines of result files, found by shard: where the answers to each shard stand, without holding them.

The service writes answers in any order into any file. Those of one shard mostly stand together, since it reads a file
of instances from its beginning to its end; then nothing is copied. Where they are scattered, they are written anew,
sorted by key. So whoever joins a shard reads some stretches of files, whatever the size of the whole.
"""

import dataclasses
import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from sluice.models.endpoints.instances import read_answer
from sluice.transforms.core.beam_files import open_binary
from sluice.transforms.decode.lines import LineBlock, read_blocks
from sluice.transforms.decode.ranges import FileRange
from sluice.transforms.managed.place import Stretch

# More stretches than so many in a range of a file, and than twice its shards, are scattered answers.
_FEW_STRETCHES = 16


class AnswerLine(NamedTuple):
    """A line with an answer.

    Attributes:
      shard, row: its key.
      start: its first byte in the file.
      text: with its line end.
    """

    shard: str
    row: int
    start: int
    text: bytes

    @property
    def key(self) -> tuple[str, int]:
        return self.shard, self.row


@dataclasses.dataclass(frozen=True)
class Found:
    """A stretch of answers, and which rows of the shard it answers.

    Attributes:
      rows: packed, see `_pack`.
    """

    stretch: Stretch
    rows: bytes


def read_lines(part: FileRange) -> Iterator[AnswerLine]:
    """Yields the answers whose lines begin in a range of a result file. Other lines are passed over."""
    with open_binary(part.path) as file:
        for block in read_blocks(file, part.start, part.stop):
            yield from _answers(block)


def _answers(block: LineBlock) -> Iterator[AnswerLine]:
    for start, end in zip(block.starts.tolist(), block.ends.tolist(), strict=True):
        text = block.data[start:end]
        answer = read_answer(text)
        if answer is not None:
            yield AnswerLine(answer.shard, answer.row, block.offset + start, text)


def find_stretches(
    part: FileRange, new_path: Callable[[], str], create: Callable[[str], BinaryIO]
) -> Iterator[tuple[str, Found]]:
    """Yields (shard, stretch) for all answers of a range.

    Args:
      new_path: returns the path for a copy, if the answers are scattered.
      create: opens a new file.
    """
    lines = list(read_lines(part))
    path = part.path
    if _is_scattered(lines):
        path = new_path()
        lines = _write_sorted(lines, path, create)
    for shard, group in itertools.groupby(lines, lambda line: line.shard):
        members = list(group)
        stretch = Stretch(path, members[0].start, members[-1].start + len(members[-1].text))
        yield shard, Found(stretch, _pack([line.row for line in members]))


def _is_scattered(lines: Sequence[AnswerLine]) -> bool:
    changes = sum(line.shard != other.shard for line, other in itertools.pairwise(lines))
    return changes >= max(_FEW_STRETCHES, 2 * len({line.shard for line in lines}))


def _write_sorted(lines: Sequence[AnswerLine], path: str, create: Callable[[str], BinaryIO]) -> list[AnswerLine]:
    """Writes the lines sorted by key; returns them as they stand there."""
    moved, position = [], 0
    with create(path) as file:
        for line in sorted(lines, key=lambda line: line.key):
            text = line.text if line.text.endswith(b"\n") else line.text + b"\n"
            file.write(text)
            moved.append(line._replace(start=position, text=text))
            position += len(text)
    return moved


def _pack(rows: list[int]) -> bytes:
    """Returns numbers of rows in few bytes: packed, where many stand together, and never more than some for each.

    Where answers are scattered there are stretches of every shard in every file, each with few rows.
    """
    return zlib.compress(np.array(rows, np.int32).tobytes(), level=1)


def _unpack(data: bytes) -> np.ndarray:
    return np.frombuffer(zlib.decompress(data), np.int32)


def answered_rows(found: Sequence[Found], rows: int) -> np.ndarray:
    """Returns bool [rows]: which rows of a shard have an answer."""
    mask = np.zeros(rows, bool)
    for each in found:
        numbers = _unpack(each.rows)
        mask[numbers[numbers < rows]] = True
    return mask


def lines_of(stretch: Stretch) -> Iterator[AnswerLine]:
    """Yields the answers of a stretch; answers of other shards may stand among them."""
    return read_lines(FileRange(stretch.path, stretch.start, stretch.stop))
