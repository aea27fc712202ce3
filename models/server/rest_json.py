"""JSON as TF Serving reads it: RapidJSON's rules and the texts of its errors (rapidjson/reader.h, error/en.h).

orjson, which is the fastest, reads what it accepts: it takes less than RapidJSON does. Python's parser reads documents
with NaN or infinities, or bytes that are not UTF-8. A parser of our own reads the rest: errors, documents nested deeper
than Python's stack, surrogates, and numbers beyond a double. One thing is not the same: RapidJSON in its
fast mode rounds some 12 % of doubles to a neighbour, and this one rounds none.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from sluice.models.server.status import StatusError, invalid

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# A document as `_has_huge_number` looks at it: digits and points are a 0, an exponent is an e.
_SHAPE = bytes.maketrans(b"0123456789.E", b"00000000000e")
_MOST_DIGITS = 300
_BEFORE_NUMBER = (b"[", b":", b",", b" ", b"\n", b"\r", b"\t")
_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(rb"[ \n\r\t]*")
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_NO_EXPONENT = re.compile(rb"[eE][+-]?")
_LITERALS: dict[bytes, Any] = {
    b"null": None,
    b"true": True,
    b"false": False,
    b"NaN": float("nan"),
    b"-NaN": float("nan"),
    b"Infinity": float("inf"),
    b"Inf": float("inf"),
    b"-Infinity": -float("inf"),
    b"-Inf": -float("inf"),
}
_LITERAL = re.compile(b"|".join(_LITERALS))
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_ESCAPES = {b'"': b'"', b"\\": b"\\", b"/": b"/", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_HEX = re.compile(rb"[0-9a-fA-F]{4}")

_VALUE = "Invalid value."
_NAME = "Missing a name for object member."
_COLON = "Missing a colon after a name of object member."
_MEMBER = "Missing a comma or } after an object member."
_ELEMENT = "Missing a comma or ] after an array element."

# How much of a value an error shows: json_tensor.cc, kMaxJsonDebugStringBytes.
_MAX_SHOWN = 256


def parse_json(body: bytes) -> Any:
    """Returns the document; of keys that repeat in an object, the last. Bytes that are not UTF-8 are surrogates.

    Raises:
      StatusError: it is not JSON. What follows the document is not read.
    """
    if not body:
        raise _error("The document is empty", None)
    body = body.removeprefix(_BOM)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    if not _is_suspect(body):
        try:
            return json.loads(body.decode("utf-8", "surrogateescape"))
        except (json.JSONDecodeError, RecursionError):
            pass
    return _Reader(body).document()


def _is_suspect(body: bytes) -> bool:
    """Whether Python's parser may read it in another way than RapidJSON."""
    return (b"\\u" in body and _SURROGATE.search(body) is not None) or _has_huge_number(body)


def _has_huge_number(body: bytes) -> bool:
    """Whether some number has an exponent of three digits, or 300 digits in a row."""
    shape = body.translate(_SHAPE)
    if b"0" * _MOST_DIGITS in shape:
        return True
    exponents = (at for mark in (b"0e000", b"0e+000") for at in _places(shape, mark))
    return any(_is_in_number(shape, at) for at in exponents)


def _places(shape: bytes, mark: bytes) -> Iterator[int]:
    at = shape.find(mark)
    while at >= 0:
        yield at
        at = shape.find(mark, at + 1)


def _is_in_number(shape: bytes, at: int) -> bool:
    """Whether the digits that end here are a number's. Strings hold the like: a hash such as "68e12345"."""
    before = shape[max(0, at - _MOST_DIGITS) : at].rstrip(b"0").removesuffix(b"-")
    return not before or before.endswith(_BEFORE_NUMBER)


def _error(text: str, offset: int | None) -> StatusError:
    return invalid(f"JSON Parse error: {text}" + ("" if offset is None else f" at offset: {offset}"))


class _Reader:
    """Reads one document without recursion."""

    def __init__(self, body: bytes) -> None:
        self._body, self._at = body, 0

    def document(self) -> Any:
        self._skip_space()
        if self._at == len(self._body):
            raise self._fail("The document is empty.")
        root: list[Any] = []
        add: Callable[[Any], None] = root.append
        # What is open: its value, and what adds to the value around it.
        stack: list[tuple[Any, Callable[[Any], None]]] = []
        while True:
            opened = self._peek()
            if opened in (b"[", b"{"):
                self._at += 1
                value: Any = [] if opened == b"[" else {}
                stack.append((value, add))
                if self._peek() != (b"]" if opened == b"[" else b"}"):
                    add = self._next_place(value, first=True)
                    continue
                self._at += 1
                value, add = stack.pop()
            else:
                value = self._scalar()
            add(value)
            while stack and self._ends(stack[-1][0]):
                value, add = stack.pop()
                add(value)
            if not stack:
                return root[0]
            add = self._next_place(stack[-1][0], first=False)

    def _next_place(self, value: Any, first: bool) -> Callable[[Any], None]:
        """Reads up to where the next value of a list or object begins; returns what adds it."""
        if isinstance(value, list):
            return value.append
        if self._peek() != b'"':
            raise self._fail(_NAME)
        key = self._string()
        if self._peek() != b":":
            raise self._fail(_COLON)
        self._at += 1
        self._skip_space()
        return lambda item: value.__setitem__(key, item)

    def _ends(self, value: Any) -> bool:
        """Reads what follows a value of a list or object; returns whether that ends it."""
        mark = self._peek()
        if mark == b",":
            self._at += 1
            self._skip_space()
            return False
        if mark != (b"]" if isinstance(value, list) else b"}"):
            raise self._fail(_ELEMENT if isinstance(value, list) else _MEMBER)
        self._at += 1
        return True

    def _scalar(self) -> Any:
        if self._peek() == b'"':
            return self._string()
        if found := _LITERAL.match(self._body, self._at):
            self._at = found.end()
            return _LITERALS[found[0]]
        found = _NUMBER.match(self._body, self._at)
        if found is None:
            raise self._fail(_VALUE)
        self._check_end_of_number(found)
        is_whole = found[1] is None and found[2] is None
        number = float(found[0])
        if number in (float("inf"), -float("inf")):
            raise self._fail("Number too big to be stored in double.")
        self._at = found.end()
        # A whole number beyond 64 bits is a double.
        return int(found[0]) if is_whole and -(2**63) <= number <= 2**64 else number

    def _check_end_of_number(self, found: re.Match[bytes]) -> None:
        """Raises the error for a point or an exponent that no digits follow."""
        after = self._body[found.end() : found.end() + 2]
        if found[2] is not None:
            return
        if found[1] is None and after[:1] == b".":
            raise _error("Missing fraction part in number.", found.end() + 1)
        if exponent := _NO_EXPONENT.match(after):
            raise _error("Missing exponent in number.", found.end() + exponent.end())

    def _string(self) -> str:
        start, pieces = self._at, []
        self._at += 1
        while True:
            found = _PLAIN.match(self._body, self._at)
            assert found is not None, "the pattern matches nothing too"
            pieces.append(found[0])
            self._at = found.end()
            mark = self._body[self._at : self._at + 1]
            if mark == b'"':
                self._at += 1
                return b"".join(pieces).decode("utf-8", "surrogateescape")
            if mark != b"\\":
                text = "Invalid encoding in string." if mark > b"\0" else "Missing a closing quotation mark in string."
                raise _error(text, self._at if mark > b"\0" else start)
            pieces.append(self._escape())

    def _escape(self) -> bytes:
        start, letter = self._at, self._body[self._at + 1 : self._at + 2]
        self._at += 2
        if letter in _ESCAPES and letter:
            return _ESCAPES[letter]
        if letter != b"u":
            raise _error("Invalid escape character in string.", start)
        code = self._hex(start)
        if 0xD800 <= code <= 0xDFFF:
            low = self._low_surrogate(start) if code <= 0xDBFF else 0
            if not 0xDC00 <= low <= 0xDFFF:
                raise _error("The surrogate pair in string is invalid.", start)
            code = 0x10000 + ((code - 0xD800) << 10) + low - 0xDC00
        return chr(code).encode()

    def _low_surrogate(self, start: int) -> int:
        if self._body[self._at : self._at + 2] != b"\\u":
            return 0
        self._at += 2
        return self._hex(start)

    def _hex(self, start: int) -> int:
        found = _HEX.match(self._body, self._at)
        if found is None:
            raise _error("Incorrect hex digit after \\u escape in string.", start)
        self._at = found.end()
        return int(found[0], 16)

    def _peek(self) -> bytes:
        """Returns the byte at the next place that is no space; nothing at the end."""
        self._skip_space()
        return self._body[self._at : self._at + 1]

    def _skip_space(self) -> None:
        found = _SPACE.match(self._body, self._at)
        self._at = found.end() if found else self._at

    def _fail(self, text: str) -> StatusError:
        return _error(text, self._at)


def json_text(value: object) -> str:
    """Returns a value as error messages show it: JsonValueToDebugString. It stops after some 256 bytes."""
    shown: list[str] = []
    size = 0
    for token in _tokens(value, 0):
        if size >= _MAX_SHOWN:
            break
        shown.append(token)
        size += len(token)
    return "".join(shown)


def _tokens(value: object, depth: int) -> Iterator[str]:
    """Yields the parts of a value as rapidjson::PrettyWriter writes them, lists on one line."""
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield ", " if number else "["
            yield from _tokens(item, depth)
        yield "]" if value else "[]"
    elif isinstance(value, dict):
        indent = "    " * (depth + 1)
        for number, (key, item) in enumerate(value.items()):
            yield (",\n" if number else "{\n") + f"{indent}{_scalar_text(key)}: "
            yield from _tokens(item, depth + 1)
        yield "\n" + "    " * depth + "}" if value else "{}"
    else:
        yield _scalar_text(value)


def _scalar_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
