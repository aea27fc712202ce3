"""Inspects --input at launch: format, dialect, columns, first rows."""

import contextlib
import dataclasses
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.models.wording import message, text_of
from sluice.transforms.core.beam_files import open_binary
from sluice.transforms.core.formats import AVRO, CSV, FILES, JSONL, PACKED, PARQUET, input_ending
from sluice.transforms.decode.csv_file import has_cr_ends
from sluice.transforms.decode.formats import READERS
from sluice.transforms.decode.json_file import is_array
from sluice.transforms.decode.json_values import Json
from sluice.transforms.decode.ranges import Look
from sluice.transforms.decode.spec import CsvOptions
from sluice.transforms.files.find_files import InputFiles, find_files

_LOG = logging.getLogger(__name__)

# The number of files that launch opens: to find one with rows, and to compare the headers of CSV.
_OPENED = 20
# What files begin with that are not what their names say, and what to do about it.
_MAGIC = {
    b"\x1f\x8b": "it is gzipped: let its name end in .gz",
    b"BZh": "it is packed by bzip2: let its name end in .bz2",
    b"\x28\xb5\x2f\xfd": "it is packed by Zstandard: let its name end in .zst",
    b"PK\x03\x04": "it is a zip file, or a spreadsheet: unpack it, or export it as CSV",
    b"PAR1": f"it is a Parquet file: give --input_format {PARQUET}",
    b"Obj\x01": f"it is an Avro file: give --input_format {AVRO}",
    b"ARROW1": "it is an Arrow file, which Sluice does not read: write it as Parquet",
}


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
      patterns: globs of its files.
      csv: the dialect of CSV.
      arrays: for JSON: one of the first files is an array.
    """

    format: str
    path: str
    files: int
    size: int
    names: tuple[str, ...]
    types: dict[str, pa.DataType] = dataclasses.field(default_factory=dict)
    sample: tuple[dict[str, Json], ...] = ()
    one_header: bool = True
    patterns: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    csv: CsvOptions = dataclasses.field(default_factory=CsvOptions, compare=False)
    arrays: bool = False


def find_source(inputs: str | Sequence[str], format_: str, csv: CsvOptions) -> Source:
    """Inspects the files that are named.

    Args:
      inputs: see `find_files`; or one of these.
      format_: their format; "": that of the first file's name.
      csv: the dialect, if they are CSV. A delimiter that is "" is found by their names.

    Raises:
      UsageError: no file matches, the format is unknown, or a file cannot be read.
    """
    inputs = [inputs] if isinstance(inputs, str) else inputs
    found = find_files(inputs, format_)
    csv = dataclasses.replace(csv, delimiter=csv.delimiter or _delimiter(found))
    has_rows = (file for file in found.files if file.size_in_bytes or found.format == FILES)
    opened = [file.path for file in itertools.islice(has_rows, _OPENED)]
    if found.format == CSV and any(_is(path, lambda path: has_cr_ends(path, csv)) for path in opened):
        csv = dataclasses.replace(csv, cr_ends=True)
    first = _first_look(opened, found.format, csv)
    if first is None:
        _LOG.warning("--input %s: there is no row in it", ", ".join(inputs))
        first = _First(found.files[0].path, Look((), {}, ()))
    size = sum(file.size_in_bytes for file in found.files)
    one_header = found.format != CSV or all(_has_header(path, first.look.names, csv) for path in opened)
    arrays = found.format == JSONL and any(_is(path, is_array) for path in opened)
    return Source(
        found.format, first.path, len(found.files), size, *first.look, one_header, found.patterns, csv, arrays
    )


def _delimiter(found: InputFiles) -> str:
    tabs = [file.path for file in found.files if input_ending(file.path).startswith(".tsv")]
    if tabs and len(tabs) < len(found.files):
        raise UsageError(f"--input: {tabs[0]} has tabs, by its name, and other files have not; give --csv_delimiter")
    return "\t" if tabs else ","


class _First(NamedTuple):
    """The first file that has columns."""

    path: str
    look: Look


def _first_look(paths: Sequence[str], format_: str, csv: CsvOptions) -> _First | None:
    for path in paths:
        try:
            look = READERS[format_].look(path, csv)
        except Exception as error:
            text = "--input {path} cannot be read as {format}: {}{magic}"
            problem = message(text, text_of(error), path=path, format=format_, magic=_magic(path))
            raise UsageError(problem) from error
        if look.names:
            return _First(path, look)
    return None


def _is(path: str, test: Callable[[str], bool]) -> bool:
    """Whether a file is so, by its beginning. An unreadable one is not: its error is told when its rows are read."""
    with contextlib.suppress(Exception):
        return test(path)
    return False


def _magic(path: str) -> str:
    """Returns what the first bytes of a file say that its name does not, for the end of an error; "": nothing."""
    if path.endswith(PACKED):
        return ""
    begin = b""
    with contextlib.suppress(Exception), open_binary(path) as file:
        begin = file.read(8)
    return next((f" ({text})" for magic, text in _MAGIC.items() if begin.startswith(magic)), "")


def _has_header(path: str, names: tuple[str, ...], csv: CsvOptions) -> bool:
    """Whether a file has these names. An empty or unreadable file has no rows under other names."""
    try:
        return READERS[CSV].look(path, csv).names in ((), names)
    except Exception:  # noqa: BLE001  whatever a damaged file makes a parser raise
        return True
