"""Files of any kind, each of them a row that holds its path.

What is in a file is read where the row is bound: see transforms.core.file_contents.
"""

from collections.abc import Sequence

import pyarrow as pa

from sluice.models.reserved import FILE
from sluice.models.wording import message
from sluice.transforms.core.failures import READ, Failure
from sluice.transforms.core.formats import PATH
from sluice.transforms.core.render import clean_text
from sluice.transforms.decode.ranges import FileRange, Look, Read, typed_look, unsplit
from sluice.transforms.decode.spec import INVALID_ROW, CsvOptions, Decoded, InputSpec


def look_file(_: str, __: CsvOptions) -> Look:
    """Returns the columns, which are the same whatever the files are."""
    return typed_look(pa.schema([(PATH, pa.string())]))


def split_file_whole(path: str, size: int, _: InputSpec, __: int) -> list[FileRange]:
    """Returns the one range of a file."""
    return unsplit(path, size)


def read_file(part: FileRange, spec: InputSpec) -> Read:
    """Yields the row that a file is."""
    yield file_rows([part.path], spec), 0, 0


def file_rows(paths: Sequence[str], spec: InputSpec) -> Decoded:
    """Returns the rows that files are, without opening them. A file whose name is no text fails.

    Args:
      spec: all of its columns hold the path.
    """
    named = [path for path in paths if _is_text(path)]
    unnamed = [_failure(path) for path in paths if not _is_text(path)] if len(named) < len(paths) else []
    if not named:
        return Decoded([], unnamed)
    column = pa.array(named, pa.string())
    batch = pa.RecordBatch.from_arrays([column] * len(spec.schema), schema=spec.schema)
    return Decoded([batch.append_column(FILE, column.dictionary_encode())], unnamed)


def _is_text(path: str) -> bool:
    """Whether a name is text: names on a disk may be any bytes."""
    return path.isascii() or clean_text(path) == path


def _failure(path: str) -> Failure:
    return Failure(READ, INVALID_ROW, message("the file's name {} is not UTF-8", clean_text(path)), path)
