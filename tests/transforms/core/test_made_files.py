"""Files that are made as they are read."""

import bz2
import io
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa
import pytest

from sluice.models.errors import CorruptFile
from sluice.transforms.core.beam_files import is_storage_error, open_text
from sluice.transforms.core.made_files import CrFile, in_utf8, unpacked

TEXT = b"".join(b"line %d of some text\n" % number for number in range(20_000))


@pytest.fixture(params=["bz2", "zstd"])
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, bytes]:
    """A codec, and TEXT packed by it."""
    codec = request.param
    path = tmp_path / "packed"
    if codec == "bz2":
        path.write_bytes(bz2.compress(TEXT))
    else:
        with pa.CompressedOutputStream(str(path), codec) as stream:
            stream.write(TEXT)
    return codec, path.read_bytes()


def test_bytes_come_out_as_they_went_in(packed: tuple[str, bytes]) -> None:
    codec, data = packed
    assert unpacked(io.BytesIO(data), codec).read() == TEXT
    file = unpacked(io.BytesIO(data), codec)
    assert b"".join(iter(lambda: file.read(777), b"")) == TEXT
    assert file.tell() == len(TEXT)
    for place in (5, 100_000, 99_999, 0, len(TEXT) + 1):
        file.seek(place)
        assert file.read(9) == TEXT[place : place + 9]
    twice = unpacked(io.BytesIO(data + data), codec)
    assert twice.read() == TEXT + TEXT, "several streams, as parallel packers write them"


def test_what_comes_before_damage_is_read(packed: tuple[str, bytes]) -> None:
    codec, data = packed
    file = unpacked(io.BytesIO(data[: len(data) // 2]), codec)
    found, error = b"", None
    while error is None:
        try:
            piece = file.read(1 << 16)
        except OSError as raised:
            error = raised
        else:
            assert piece, "a truncated file is no whole file"
            found += piece
    assert TEXT.startswith(found)
    with pytest.raises(OSError):
        file.read(1)


def test_errors_of_the_storage_are_told_from_damage(packed: tuple[str, bytes]) -> None:
    class Away:
        def read(self, size: int = -1) -> bytes:
            error = ConnectionResetError("the network")
            error.sluice_of_storage = True  # type: ignore[attr-defined]
            raise error

    file = unpacked(cast(BinaryIO, Away()), packed[0])
    with pytest.raises(ConnectionResetError) as caught:
        file.read(1)
    assert is_storage_error(caught.value)


@pytest.mark.parametrize("ending", [".bz2", ".zst"])
def test_files_are_unpacked_by_their_names(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"f.csv{ending}"
    if ending == ".bz2":
        path.write_bytes(bz2.compress(TEXT))
    else:
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(TEXT)
    with open_text(str(path)) as file:
        assert file.read() == TEXT


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "shift_jis"])
def test_other_encodings_become_utf8(encoding: str) -> None:
    text = "".join(
        f"{number};caf\u00e9\n" if encoding != "shift_jis" else f"{number};\u30c6\n" for number in range(30_000)
    )
    file = in_utf8(io.BytesIO(text.encode(encoding)), encoding)
    assert file.read() == text.encode()
    file.seek(7)
    assert file.read(100) == text.encode()[7:107]


@pytest.mark.parametrize(
    ("data", "encoding", "expected"),
    [
        (b"a\n\x81\nb\n", "cp1252", b"a\n\x81\nb\n"),
        (b"a\n\x81\nb\n", "shift_jis", b"a\n\x81\nb\n"),
        ("a\n\ud841\nb\n".encode("utf-16-le", "surrogatepass"), "utf-16-le", b"a\n\xff\nb\n"),
        ("a\n".encode("utf-16-le") + b"b", "utf-16-le", b"a\n\xff"),
    ],
)
def test_bytes_that_are_not_of_the_encoding(data: bytes, encoding: str, expected: bytes) -> None:
    assert in_utf8(io.BytesIO(data), encoding).read() == expected


def test_utf_16_that_does_not_say_its_byte_order() -> None:
    with pytest.raises(CorruptFile, match=r"the text is not utf-16: .*; give another --csv_encoding"):
        in_utf8(io.BytesIO("a\n".encode("utf-16-le")), "utf-16").read()


def test_carriage_returns_become_newlines() -> None:
    file = CrFile(io.BytesIO(b"a,b\r1,2\r"))
    assert file.read(4) + file.read() == b"a,b\n1,2\n"
    file.seek(4)
    assert (file.read(1), file.tell()) == (b"1", 5)
