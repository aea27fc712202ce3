"""Inspects --input at launch: format, columns, first rows."""

import dataclasses
from collections.abc import Sequence

import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.models.wording import message, text_of
from sluice.transforms.core.beam_files import match_files
from sluice.transforms.core.formats import CSV, FORMATS, input_format
from sluice.transforms.decode.formats import READERS
from sluice.transforms.decode.json_values import Json
from sluice.transforms.decode.ranges import Look
from sluice.transforms.decode.spec import CsvOptions

# The number of files that launch opens: to find one with rows, and to compare the headers of CSV.
_OPENED = 20


@dataclasses.dataclass(frozen=True)
class Source:
    """The input as launch finds it.

    Attributes:
      path: the first file with rows; the first of all if no file has rows.
      size: the bytes of all files together.
      names: the columns, as far as they are known: of JSON and tf.Examples, those of the first rows.
      types: the types of the columns, if the format has types.
      sample: the first rows of JSON.
      one_header: for CSV: the first files all have the same header.
    """

    format: str
    path: str
    files: int
    size: int
    names: tuple[str, ...]
    types: dict[str, pa.DataType] = dataclasses.field(default_factory=dict)
    sample: tuple[dict[str, Json], ...] = ()
    one_header: bool = True


def find_source(pattern: str, format_: str, csv: CsvOptions) -> Source:
    """Inspects the files that match a glob.

    Args:
      format_: their format; "": that of the first file's name.

    Raises:
      UsageError: no file matches, the format is unknown, or a file cannot be read.
    """
    files = match_files(pattern)
    if not files:
        raise UsageError(f"--input {pattern}: no file matches")
    format_ = format_ or _format_of(files[0].path)
    opened = [file.path for file in files if file.size_in_bytes][:_OPENED]
    path, look = _first_look(opened, format_, csv) or (files[0].path, Look((), {}, ()))
    size = sum(file.size_in_bytes for file in files)
    one_header = format_ != CSV or all(_has_header(path, look.names, csv) for path in opened)
    return Source(format_, path, len(files), size, *look, one_header)


def _format_of(path: str) -> str:
    format_ = input_format(path)
    if not format_:
        raise UsageError(
            f"--input {path}: the format is not clear from the name; give --input_format, one of {', '.join(FORMATS)}"
        )
    return format_


def _first_look(paths: Sequence[str], format_: str, csv: CsvOptions) -> tuple[str, Look] | None:
    """Returns the first file that has columns."""
    for path in paths:
        try:
            look = READERS[format_].look(path, csv)
        except Exception as error:
            text = message("--input {path} cannot be read as {format}: {}", text_of(error), path=path, format=format_)
            raise UsageError(text) from error
        if look.names:
            return path, look
    return None


def _has_header(path: str, names: tuple[str, ...], csv: CsvOptions) -> bool:
    """Whether a file has these names. An empty or unreadable file has no rows under other names."""
    try:
        return READERS[CSV].look(path, csv).names in ((), names)
    except Exception:  # noqa: BLE001  whatever a damaged file makes a parser raise
        return True
