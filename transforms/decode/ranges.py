"""Ranges of files: the parts that workers read on their own."""

import contextlib
import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

from sluice.models.errors import CorruptFile
from sluice.transforms.core.formats import PACKED
from sluice.transforms.decode.spec import CsvOptions, Decoded, InputSpec

# One range is some hundred milliseconds of work: enough to be worth a shuffle, small enough to spread over workers.
RANGE_BYTES = 16 << 20
# Launch looks at this many rows of the first file.
SAMPLE_ROWS = 100


@dataclasses.dataclass(frozen=True)
class FileState:
    """What a job finds of a file when it cuts it.

    Attributes:
      size: bytes, as stored.
      changed: when the file was last changed, in seconds since the epoch; 0: the storage does not tell.
    """

    size: int
    changed: float


@dataclasses.dataclass(frozen=True)
class FileRange:
    """A part of a file that is read on its own.

    Attributes:
      start, stop: bytes. stop None: the end of a file that cannot be split.
      stored_bytes: the part of the file's size that a progress display counts for this range.
      found: of the whole file, when it was cut; None: it is not checked whether the file has changed since.
    """

    path: str
    start: int = 0
    stop: int | None = None
    stored_bytes: int = 0
    found: FileState | None = None


class Look(NamedTuple):
    """What launch learns from the beginning of a file.

    Attributes:
      names: of the columns, as far as they are known: of JSON and tf.Examples, those of the first rows.
      types: of the columns, if the format has types.
      sample: the first rows of JSON.
    """

    names: tuple[str, ...]
    types: dict[str, pa.DataType]
    sample: tuple[dict[str, Any], ...]


# What a reader yields: rows, the bytes of the file that they came from, and the position reached, in the unit of the
# origins.
Read: TypeAlias = Iterator[tuple[Decoded, int, int]]


class Reader(NamedTuple):
    """How files of one format are read.

    Attributes:
      look: reads the beginning of a file (path) at launch.
      split: returns the ranges of a file (path, its size, the job's spec, bytes of a range), without opening it: so no
        row waits until all files are opened. They hold every row once.
      read: yields the rows of a range.
      unit: what positions in a file count: "byte" or "row".
    """

    look: Callable[[str, CsvOptions], Look]
    split: Callable[[str, int, InputSpec, int], list[FileRange]]
    read: Callable[[FileRange, InputSpec], Read]
    unit: str = "byte"


def unsplit(path: str, size: int) -> list[FileRange]:
    """Returns the one range of a file that is read from its beginning only."""
    return [FileRange(path, 0, None, size)]


def split_evenly(path: str, size: int, _: InputSpec, range_bytes: int) -> list[FileRange]:
    """The `split` where ranges may begin at any byte: they are of nearly equal size, and a packed file is one."""
    if path.endswith(PACKED):
        return unsplit(path, size)
    edges = np.linspace(0, size, -(-size // range_bytes) + 1).astype(int).tolist()
    return [FileRange(path, start, stop, stop - start) for start, stop in itertools.pairwise(edges)]


class BlockTooLarge(CorruptFile):
    """A part of a file that is read at once would take more memory than it may. What is behind it can be read."""


class BadBeginning(Exception):
    """The beginning of a file, which each of its ranges has to read, cannot be read. Its cause says why."""


@contextlib.contextmanager
def beginning() -> Iterator[None]:
    """Marks what is read for every range of a file, so that its damage is reported once for the file.

    Raises:
      BadBeginning: the block raised an error.
    """
    try:
        yield
    except Exception as error:
        raise BadBeginning from error


@contextlib.contextmanager
def opened(path: str, open_file: Callable[[str], BinaryIO]) -> Iterator[BinaryIO]:
    """Opens a file for a range; that it cannot be opened is reported once for the file."""
    with beginning():
        file = open_file(path)
    with file:
        yield file


def typed_look(schema: pa.Schema) -> Look:
    """Returns the `Look` at a file whose columns have types.

    Raises:
      CorruptFile: two columns have the same name.
    """
    twice = sorted(name for name, count in Counter(schema.names).items() if count > 1)
    if twice:
        raise CorruptFile(f"its schema names {', '.join(map(repr, twice))} more than once")
    return Look(tuple(schema.names), dict(zip(schema.names, schema.types, strict=True)), ())
