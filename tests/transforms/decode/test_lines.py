import io
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.errors import CorruptFile
from sluice.transforms.decode import lines
from sluice.transforms.decode.lines import (
    LineBlock,
    is_utf8,
    line_block,
    open_quotes,
    read_blocks,
    stray_returns,
    unpaired_quotes,
)
from tests.support.sizes import examples

# Little beside the bytes that matter to lines, so that short texts meet all cases.
DATA = st.lists(st.sampled_from([b"\n", b"\r\n", b"\r", b'"', b'""', b",", b"a", b"bc", b"\xc3\xa9"]), max_size=24).map(
    b"".join
)
BOM = b"\xef\xbb\xbf"


def is_open(data: bytes, quote: int = ord('"'), delimiter: int = ord(",")) -> bool:
    """The brute-force twin: whether data that begins a row ends within quotes."""
    state, at = "field begins", 0
    while at < len(data):
        byte = data[at]
        if state == "quoted":
            if byte == quote and data[at + 1 : at + 2] == bytes([quote]):
                at += 1
            elif byte == quote:
                state = "bare"
        elif byte in (delimiter, ord("\n")):
            state = "field begins"
        else:
            state = "quoted" if byte == quote and state == "field begins" else "bare"
        at += 1
    return state == "quoted"


def split_lines(data: bytes, quoted: bool) -> list[bytes]:
    found, begin = [], 0
    for at, byte in enumerate(data):
        if byte == ord("\n") and not (quoted and is_open(data[begin:at])):
            found.append(data[begin : at + 1])
            begin = at + 1
    return [*found, data[begin:]] if begin < len(data) else found


def parts(block: LineBlock) -> list[tuple[int, bytes]]:
    """Each line with its position in the file."""
    texts = [block.data[start:end] for start, end in zip(block.starts, block.ends, strict=True)]
    assert block.texts().to_pylist() == [text.rstrip(b"\r\n") for text in texts]
    return list(zip(block.positions.tolist(), texts, strict=True))


@given(DATA, st.lists(st.integers(0, 40), max_size=5), st.integers(1, 30))
def test_every_line_is_in_the_range_that_its_first_byte_is_in(data: bytes, cuts: list[int], block_bytes: int) -> None:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    found = []
    for start, stop in itertools.pairwise(edges):
        blocks = list(read_blocks(io.BytesIO(data), start, stop, block_bytes=block_bytes))
        places = [place for block in blocks for place in block.positions]
        assert all(start <= place < stop for place in places)
        found += [part for block in blocks for part in parts(block)]
    assert b"".join(line for _, line in found) == data
    assert [line for _, line in found] == split_lines(data, quoted=False)
    assert all(data[place:].startswith(line) for place, line in found)


@examples(120)
@given(DATA, st.integers(1, 30))
def test_newlines_within_quotes_end_no_row(data: bytes, block_bytes: int) -> None:
    expected = split_lines(data, quoted=True)
    found = [
        part for block in read_blocks(io.BytesIO(data), quote=b'"', block_bytes=block_bytes) for part in parts(block)
    ]
    assert [line for _, line in found] == expected
    assert [place for place, _ in found] == np.cumsum([0, *map(len, expected)])[:-1].tolist()
    assert parts(line_block(data, 0, b'"')) == found


@examples(120)
@given(DATA)
def test_lines_that_leave_a_quote_open(data: bytes) -> None:
    block = line_block(data, 0)
    found = [block.line(number) for number in range(len(block))]
    assert open_quotes(block, b'"', b",").tolist() == list(map(is_open, found))
    assert unpaired_quotes(block, b'"', b",").tolist() == [is_open(line) or line.count(b'"') % 2 == 1 for line in found]
    assert not unpaired_quotes(block, b"", b",").any()


@examples(120)
@given(DATA, st.sampled_from([b'"', b""]))
def test_lines_with_a_carriage_return_outside_of_quotes(data: bytes, quote: bytes) -> None:
    block = line_block(data, 0)
    block = block.take(~open_quotes(block, b'"', b","))
    assert stray_returns(block, quote, b",").tolist() == [
        any(byte == ord("\r") and not (quote and is_open(line[:at])) for at, byte in enumerate(line))
        for line in (block.line(number) for number in range(len(block)))
    ]


@given(DATA, st.data())
def test_a_choice_of_lines_keeps_their_places(data: bytes, choice: st.DataObject) -> None:
    block = line_block(data, 100)
    keep = np.array(choice.draw(st.lists(st.booleans(), min_size=len(block), max_size=len(block))), bool)
    taken = block.take(keep)
    assert parts(taken) == [part for part, kept in zip(parts(block), keep, strict=True) if kept]
    start = choice.draw(st.integers(0, len(taken)))
    stop = choice.draw(st.integers(start, len(taken)))
    assert parts(taken.slice(start, stop)) == parts(taken)[start:stop]
    assert taken.blank().tolist() == [not line.strip(b"\r\n") for _, line in parts(taken)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (BOM + b"a\nb\n", [(3, b"a\n"), (5, b"b\n")]),
        (BOM + b'"a\nb"\n', [(3, b'"a\nb"\n')]),
        (BOM, []),
        (b"a\n" + BOM + b"b\n", [(0, b"a\n"), (2, BOM + b"b\n")]),
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 2, 4, 100])
def test_a_byte_order_mark_is_left_out_at_the_beginning(
    data: bytes, expected: list[tuple[int, bytes]], block_bytes: int
) -> None:
    blocks = read_blocks(io.BytesIO(data), quote=b'"', block_bytes=block_bytes)
    assert [part for block in blocks for part in parts(block)] == expected


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_byte_order_mark_cut_by_a_range(stop: int) -> None:
    data = BOM + b"\nab\ncd"
    found = [
        part
        for start, end in ((0, stop), (stop, len(data)))
        for block in read_blocks(io.BytesIO(data), start, end)
        for part in parts(block)
    ]
    assert found == [(3, b"\n"), (4, b"ab\n"), (7, b"cd")]


class CountingFile(io.BytesIO):
    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.sizes: list[int] = []

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        self.sizes.append(len(found))
        return found


@pytest.mark.parametrize("quote", [b"", b'"'])
def test_a_long_line_is_read_in_steps_that_double(quote: bytes) -> None:
    file = CountingFile(b'"' + b"x" * 1_000_000 + b'"\nlast\n')
    blocks = list(read_blocks(file, quote=quote, block_bytes=1000))
    assert [len(block) for block in blocks] == [2]
    assert len(file.sizes) < 16


@pytest.mark.parametrize(
    ("data", "quote", "text"),
    [
        (b"x" * 500, b"", "the line at byte 0 is longer than 100 bytes; is this a text file?"),
        (b"ab\n" + b"x" * 500, b"", "the line at byte 3 is longer"),
        (b'a\n"b\n' + b"c\n" * 200, b'"', "the line at byte 2 is longer than 100 bytes; a quote in it is never closed"),
    ],
)
def test_a_line_without_end_is_an_error(data: bytes, quote: bytes, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)
    file = CountingFile(data)
    with pytest.raises(CorruptFile, match=text.replace("?", r"\?")):
        list(read_blocks(file, quote=quote, block_bytes=10))
    assert sum(file.sizes) < len(data)


def test_a_range_reads_little_beyond_its_end() -> None:
    file = CountingFile(b"0123456789\n" * 10_000)
    assert sum(len(block) for block in read_blocks(file, 5_500, 6_600, block_bytes=100)) == 100
    assert sum(file.sizes) < 1_500


def test_the_ranges_of_an_endless_line_are_read_once() -> None:
    """Each range after the first would read to the end of the file for the end of its line."""
    data = b"x" * 100_000
    files = []
    for start in range(0, len(data), 1000):
        files.append(CountingFile(data))
        assert sum(len(block) for block in read_blocks(files[-1], start, start + 1000, block_bytes=100)) == (not start)
    assert sum(sum(file.sizes) for file in files) < 3 * len(data)


_UTF8 = ["", "a", "\u00e9", "\u20ac", "\U0010ffff", "a" * 40 + "\u00e9"]
_NOT_UTF8 = [b"\xff", b"\xc3", b"\xc0\x80", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a" * 40 + b"\xfe"]


@given(st.lists(st.one_of(st.sampled_from([text.encode() for text in _UTF8] + _NOT_UTF8), st.binary(max_size=6))))
def test_bytes_are_utf8_where_pythons_decoder_says_so(parts: list[bytes]) -> None:
    data = b"".join(parts)
    try:
        data.decode()
        expected = True
    except UnicodeDecodeError:
        expected = False
    assert is_utf8(data) == expected
