"""TFRecord framing: records are read as written, and damage is noticed wherever it is."""

from __future__ import annotations

import io

import google_crc32c
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sluice.models.errors import CorruptFile
from sluice.models.tensors.tfrecord import (
    FOOTER_BYTES,
    HEADER_BYTES,
    candidate_starts,
    frame,
    masked_crc,
    read_records,
    write_records,
)

RECORDS = st.lists(st.binary(max_size=20), max_size=5)
SOME = [b"first", b"", b"\x00" * 9, b"last"]
# Made with tf.io.TFRecordWriter of TensorFlow 2.21: the records b"" and b"sluice".
BY_TENSORFLOW = bytes.fromhex(
    "0000000000000000 29039807 d8ea82a2 0600000000000000 7369d537 736c75696365 707d3ddb"  # length, crc, data, crc
)


def written(records: list[bytes]) -> bytes:
    file = io.BytesIO()
    write_records(file, records)
    return file.getvalue()


def starts_of(records: list[bytes]) -> list[int]:
    sizes = [HEADER_BYTES + len(record) + FOOTER_BYTES for record in records]
    return [sum(sizes[:number]) for number in range(len(records))]


def read(data: bytes) -> list[bytes]:
    return [record for _, record in read_records(io.BytesIO(data))]


@given(RECORDS)
def test_records_are_read_as_they_were_written(records: list[bytes]) -> None:
    found = list(read_records(io.BytesIO(written(records))))
    assert found == list(zip(starts_of(records), records, strict=True))


def test_the_checksum_is_the_one_of_the_format() -> None:
    assert written([b"", b"sluice"]) == BY_TENSORFLOW and read(BY_TENSORFLOW) == [b"", b"sluice"]
    data = b"123456789"
    assert google_crc32c.value(data) == 0xE3069283  # the check value of CRC-32C
    assert masked_crc(data) == (((0xE3069283 >> 15) | (0xE3069283 << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def test_a_file_cut_short_is_noticed_unless_it_ends_between_records() -> None:
    starts = [*starts_of(SOME), len(written(SOME))]
    for end in range(len(written(SOME)) + 1):
        records = read_records(io.BytesIO(written(SOME)[:end]))
        whole = sum(start <= end for start in starts) - 1
        assert [next(records)[1] for _ in range(whole)] == SOME[:whole]
        if end in starts:
            assert list(records) == []
        else:
            with pytest.raises(CorruptFile, match=f"at byte {starts[whole]}.*cut short"):
                next(records)


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_any_byte_that_is_flipped_is_noticed(mask: int) -> None:
    starts = starts_of(SOME)
    for place in range(len(written(SOME))):
        data = bytearray(written(SOME))
        data[place] ^= mask
        hit = sum(start <= place for start in starts) - 1
        records = read_records(io.BytesIO(bytes(data)))
        assert [next(records)[1] for _ in range(hit)] == SOME[:hit]
        with pytest.raises(CorruptFile, match=f"at byte {starts[hit]}"):
            next(records)


@given(RECORDS, st.data())
def test_every_record_belongs_to_the_range_that_it_begins_in(records: list[bytes], data: st.DataObject) -> None:
    whole, starts = written(records), starts_of(records)
    first = data.draw(st.sampled_from([*starts, len(whole)]))
    end = data.draw(st.integers(0, len(whole) + 5))
    file = io.BytesIO(whole)
    file.seek(first)
    found = [start for start, _ in read_records(file, first, end)]
    assert found == [start for start in starts if first <= start < end]


@given(st.binary(max_size=30), RECORDS, st.binary(max_size=30))
@example(b"", [], b"")
@example(frame(b"a")[:11], [b"b"], b"")
def test_candidates_are_what_a_reader_of_every_offset_finds(before: bytes, records: list[bytes], after: bytes) -> None:
    data = before + written(records) + after
    found = candidate_starts(data)
    assert found.dtype == np.int64
    assert found.tolist() == [
        offset
        for offset in range(len(data) - HEADER_BYTES + 1)
        if masked_crc(data[offset : offset + 8]) == int.from_bytes(data[offset + 8 : offset + 12], "little")
    ]
    assert set(found.tolist()) >= {len(before) + start for start in starts_of(records)}
