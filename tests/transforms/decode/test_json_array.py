"""JSON arrays: every value with its place, in any spelling, however the file is read; what damage leaves of them."""

import io
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.errors import CorruptFile
from sluice.transforms.decode.json_array import begins_array, read_array
from tests.support.sizes import examples

leaves = st.none() | st.booleans() | st.integers() | st.text(alphabet='a"\\[]{},\né ', max_size=6) | st.floats(0, 9)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab]", max_size=2), inner, max_size=3)
)


def deep(levels: int) -> Any:
    value: Any = "]"
    for level in range(levels):
        value = {"a": value} if level % 2 else [value, "{"]
    return value


def read(data: bytes, block_bytes: int = 1 << 20) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    for block in read_array(io.BytesIO(data), block_bytes):
        found += [(int(place), block.line(row)) for row, place in enumerate(block.positions)]
    return found


@examples(60)
@given(
    st.lists(values | st.integers(0, 9).map(deep), max_size=8),
    st.sampled_from([None, 0, 2]),
    st.sampled_from([1, 2, 7, 4096]),
    st.sampled_from(["", "\ufeff", " \n"]),
)
def test_the_values_are_those_of_the_array(rows: list[Any], indent: int | None, block_bytes: int, before: str) -> None:
    data = (before + json.dumps(rows, indent=indent, ensure_ascii=False) + "\n").encode()
    found = read(data, max(block_bytes, 8))
    assert [json.loads(line) for _, line in found] == rows
    assert all(b"\n" not in line and len(line) for _, line in found)
    for place, line in found:
        assert data[place : place + len(line)].replace(b"\n", b" ") == line


def test_many_values_are_read_in_blocks() -> None:
    rows = [{"n": number, "text": "x" * random.Random(number).randrange(50)} for number in range(20_000)]
    blocks = list(read_array(io.BytesIO(json.dumps(rows).encode()), 1 << 16))
    assert max(len(block.data) for block in blocks) < 1 << 17
    assert sum(map(len, blocks)) == 20_000


@pytest.mark.parametrize(
    ("data", "kept", "text"),
    [
        (b'[{"a": 1}, {"a": 2}', 1, "the array is not closed: the file ends within it, after byte 10"),
        (b'[{"a": 1}', 0, "the array is not closed"),
        (b"[", 0, "the array is not closed"),
        (b'[{"a": 1}, {"a": "]}', 1, "the array is not closed"),
        (b'[{"a": 1},\n]', 1, "a value is expected at byte 11 of the array, which is b']'"),
        (b'[{"a": 1} {"a": 2}]', 0, "a comma is expected at byte 10 of the array, after a value"),
        (b'[{"a": 1}, }]', 1, "a value is expected at byte 11"),
        (b'[{"a": 1}]\n[{"a": 2}]', 1, "the array ends before byte 11, and more follows"),
    ],
)
def test_damage(data: bytes, kept: int, text: str) -> None:
    blocks = read_array(io.BytesIO(data), 4)
    found = 0
    with pytest.raises(CorruptFile) as caught:
        for block in blocks:
            found += len(block)
    assert text in str(caught.value)
    assert found == kept


def test_what_begins_an_array() -> None:
    for data, expected in ((b"[1]", True), (b"\xef\xbb\xbf \n[", True), (b'{"a": []}', False), (b"", False)):
        file = io.BytesIO(data)
        assert begins_array(file) == expected
        assert file.tell() == 0
