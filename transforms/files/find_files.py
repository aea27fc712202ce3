"""The files that --input names: paths, globs and directories, together."""

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from apache_beam.io.filesystem import FileMetadata

from sluice.models.errors import UsageError
from sluice.transforms.core.beam_files import match_files
from sluice.transforms.core.formats import FILES, FORMATS, INPUT_ENDINGS, PACKED, input_ending, input_format

# In a directory, files whose names begin with one of these are no data: .DS_Store, _SUCCESS.
_HIDDEN = "._"
_AS_ROWS = f"--input_format {FILES} makes a row of each file"


class InputFiles(NamedTuple):
    """The files of an input.

    Attributes:
      patterns: paths and globs that match them, where the job runs too.
      files: that match now, sorted by name, each once.
      format: of all of them.
    """

    patterns: tuple[str, ...]
    files: list[FileMetadata]
    format: str


def match_all(patterns: Iterable[str]) -> list[FileMetadata]:
    """Returns the files that match any of these globs, sorted by name, each once."""
    return _once(file for pattern in patterns for file in match_files(pattern))


def _once(files: Iterable[FileMetadata]) -> list[FileMetadata]:
    found = {absolute(file.path): file for file in files}
    return sorted(found.values(), key=lambda file: file.path)


def absolute(path: str) -> str:
    """Returns the one name of a file that has a relative and an absolute path."""
    return path if "://" in path else os.path.abspath(path)


def find_files(inputs: Sequence[str], format_: str) -> InputFiles:
    """Returns the files that are named.

    Args:
      inputs: paths, globs and directories.
      format_: their format; "": by their names.

    Raises:
      UsageError: one of them names no file, or their formats are not clear, or differ.
    """
    patterns: list[str] = []
    files: list[FileMetadata] = []
    formats: dict[str, str] = {}
    for each in inputs:
        own, found = _find(each, format_)
        patterns += own
        files += found
        formats.setdefault(format_ or _format_of(found[0].path), each)
    if len(formats) > 1:
        (one, first), (other, second) = list(formats.items())[:2]
        raise UsageError(f"--input {first} is {one}, and --input {second} is {other}; a job reads files of one format")
    return InputFiles(tuple(patterns), _once(files), next(iter(formats)))


def _find(each: str, format_: str) -> tuple[list[str], list[FileMetadata]]:
    """Returns the globs of one --input, which is its own unless it is a directory, and the files that match them."""
    # Beam matches a name on gs:// that ends in a slash with all that begins with it.
    is_directory = each.endswith("/") if "://" in each else os.path.isdir(each)
    files = [] if is_directory else match_files(each)
    if files:
        return [each], files
    directory = each.rstrip("/")
    found = [file.path for file in match_files(f"{directory}/[!{_HIDDEN}]*")]
    if not found:
        deeper = bool(match_files(f"{directory}/**"))
        hint = f"; it has files in directories of its own: give --input '{directory}/**'" if deeper else ""
        hint = hint or ("; give --input again for each further path" if "," in each else "")
        raise UsageError(f"--input {each}: no file matches{hint}")
    patterns = _of_one_format(directory, found, format_)
    return patterns, match_all(patterns)


def _of_one_format(directory: str, paths: Sequence[str], format_: str) -> list[str]:
    endings = sorted({ending for path in paths if (ending := input_ending(path))})
    formats = sorted({input_format(f"f{ending}") for ending in endings})
    if format_:
        endings = [ending for ending in endings if input_format(f"f{ending}") == format_] or [""]
    elif not formats:
        raise UsageError(
            f"--input {directory}: none of its {len(paths)} files has the ending of a format ("
            f"{', '.join(INPUT_ENDINGS)}; also with {', '.join(PACKED)}); give --input_format. {_AS_ROWS}"
        )
    elif len(formats) > 1:
        raise UsageError(
            f"--input {directory}: the directory holds {' and '.join(formats)} files; give one of them, as --input "
            f"'{directory}/*{endings[0]}', or --input_format"
        )
    return [f"{directory}/[!{_HIDDEN}]*{ending}" for ending in endings]


def _format_of(path: str) -> str:
    format_ = input_format(path)
    if not format_:
        raise UsageError(
            f"--input {path}: the format is not clear from the name; give --input_format, one of "
            f"{', '.join(FORMATS)}. {_AS_ROWS}"
        )
    return format_
