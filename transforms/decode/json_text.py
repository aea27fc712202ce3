"""JSON objects as they are written: keys in every spelling, and what pyarrow reads and Python does not."""

import functools
import re
from collections.abc import Collection, Iterator

import numpy as np
import orjson
import pyarrow as pa

from sluice.transforms.core.search import holds
from sluice.transforms.decode.lines import LineBlock

# A string, and the colon that makes it a key. Found one after the other, they begin where strings begin.
_STRINGS = re.compile(rb'"((?:[^"\\]++|\\.)*+)"(\s*+:)?', re.DOTALL)
# The tokens that tell the members of an object; strings, to step over what is in them.
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[][{},]', re.DOTALL)
# The numbers that pyarrow reads and JSON has not; strings, likewise.
_NOT_FINITE = re.compile(rb'"(?:[^"\\]++|\\.)*+"|(-?(?:NaN|Inf(?:inity)?))', re.DOTALL)


def may_hold(data: bytes, names: tuple[str, ...]) -> bool:
    """Whether an object may have one of these keys; JSON has several spellings of most names."""
    if not names:
        return False
    if any(holds(data, orjson.dumps(name)) for name in names):
        return True
    if not holds(data, b"\\") or not _spelled_otherwise(names).search(data):
        return False
    keys = (match[1] for match in _STRINGS.finditer(data) if match[2] and b"\\" in match[1])
    return any(_unescaped(key) in names for key in keys)


@functools.cache
def _spelled_otherwise(names: tuple[str, ...]) -> re.Pattern[bytes]:
    """Returns a pattern that is in every text that spells a character of these names as an escape."""
    units = {f"{unit:04x}" for name in names for unit in np.frombuffer(name.encode("utf-16-le"), "<u2").tolist()}
    return re.compile(rb"\\(?:[^u]|u(?i:%s))" % "|".join(sorted(units)).encode())


def _unescaped(text: bytes) -> object:
    try:
        return orjson.loads(b'"%s"' % text)
    except orjson.JSONDecodeError:
        return None


def as_python_reads(line: bytes, names: Collection[str]) -> bytes:
    """Returns an object that pyarrow reads as one that Python reads, with the keys of these names.

    Pyarrow steps over the others, whatever they hold and however deep it is.
    """
    kept = (member for member in _members(line) if _key(member) in names)
    return _NOT_FINITE.sub(_as_python_writes_it, b"{%s}" % b",".join(kept))


def _members(line: bytes) -> Iterator[bytes]:
    """Yields the keys of an object with their values, as they are written."""
    depth = begin = 0
    for token in _TOKENS.finditer(line):
        text = token[0]
        depth += (text in b"{[") - (text in b"}]")
        if depth == 1 and text == b"{":
            begin = token.end()
        elif depth == 0 or (depth == 1 and text == b","):
            yield line[begin : token.start()]
            begin = token.end()


def _key(member: bytes) -> object:
    found = _STRINGS.search(member)
    return found and _unescaped(found[1])


def _as_python_writes_it(token: re.Match[bytes]) -> bytes:
    if token[1] is None:  # a string
        return token[0]
    if token[1].endswith(b"NaN"):
        return b"NaN"
    return b"-Infinity" if token[1].startswith(b"-") else b"Infinity"


def member_texts(line: bytes, names: Collection[str]) -> dict[str, str]:
    """Returns the values of these keys of an object, as they are written; nulls are left out.

    Of a key that is there twice the last one counts, as for Python.
    """
    found: dict[object, bytes] = {}
    for member in _members(line):
        key = _STRINGS.match(member.lstrip())
        if key and (name := _unescaped(key[1])) in names:
            found[name] = member.lstrip()[key.end() :].strip()
    return {str(name): text.decode() for name, text in found.items() if text != b"null"}


def text_columns(block: LineBlock, rows: np.ndarray, names: Collection[str]) -> dict[str, pa.Array]:
    """Returns columns that hold the texts of their values.

    Args:
      rows: the lines of the block that are objects.
    """
    found = [member_texts(block.line(row), names) for row in rows.tolist()] if names else []
    return {name: pa.array([each.get(name) for each in found], pa.string()) for name in names}
