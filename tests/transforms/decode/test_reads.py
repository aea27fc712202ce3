"""How much of a file its ranges read together: about all of it once, whatever it holds."""

from pathlib import Path
from typing import Any, BinaryIO

import pytest
from apache_beam.io.filesystems import FileSystems

from sluice.transforms.core.formats import AVRO, CSV, JSONL, TFRECORD
from sluice.transforms.decode import csv_file
from sluice.transforms.decode.spec import InputSpec
from tests.support.formats.decode_cases import COLUMNS, put, read_file, sample_rows, to_avro, to_tfrecord

_LENGTH = 400_000
_RANGE = 10_000


class _Counted:
    def __init__(self, file: BinaryIO, sizes: list[int]) -> None:
        self._file, self._sizes = file, sizes

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._sizes.append(len(data))
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.mark.parametrize(
    ("format_", "data"),
    [
        (CSV, b"x" * _LENGTH),
        (CSV, b"\n" * _LENGTH),
        (CSV, b"id,x,name,tags\n" + b"x" * _LENGTH),
        (JSONL, b"{" * _LENGTH),
        (TFRECORD, to_tfrecord(sample_rows(3)) + b"\0" * _LENGTH),
        (AVRO, to_avro(sample_rows(3)) + b"\0" * _LENGTH),
    ],
    ids=["a header", "blank lines", "csv", "jsonl", "tfrecord", "avro"],
)
def test_a_file_without_ends_is_not_read_once_for_each_range(
    format_: str, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    open_file = FileSystems.open
    monkeypatch.setattr(FileSystems, "open", lambda *args, **more: _Counted(open_file(*args, **more), sizes))
    monkeypatch.setattr(csv_file, "MAX_HEAD_BYTES", 5_000)
    monkeypatch.setattr(csv_file, "_HEAD_BYTES", 1_000)
    monkeypatch.setattr("sluice.transforms.decode.avro_container._SCAN_BYTES", 1_000)
    monkeypatch.setattr("sluice.transforms.decode.tfrecord._SCAN_BYTES", 1_000)
    monkeypatch.setattr("sluice.transforms.decode.json_file._BLOCK_BYTES", 1_000)
    monkeypatch.setattr("sluice.transforms.decode.lines.read_blocks.__defaults__", (0, None, b"", b",", 1_000, 0))
    decoded = read_file(put(tmp_path, "f", data), InputSpec(format_, COLUMNS), _RANGE)
    assert len(decoded.failures) == 1
    assert sum(sizes) < 4 * len(data)
