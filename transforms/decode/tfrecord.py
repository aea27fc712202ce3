"""TFRecord files: the records of a byte range, decoded as tf.Examples.

Beam's ReadFromTFRecord does not split files: one worker reads each from its beginning. Here a range finds its first
record by the checksums of the format.
"""

import itertools
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from sluice.models.errors import CorruptFile
from sluice.models.tensors.tfrecord import FOOTER_BYTES, HEADER_BYTES, candidate_starts, read_pieces, read_records
from sluice.transforms.core.beam_files import open_text
from sluice.transforms.decode.examples import decode_examples, example_schema
from sluice.transforms.decode.ranges import SAMPLE_ROWS, FileRange, Look, Read, opened, typed_look
from sluice.transforms.decode.spec import CsvOptions, Decoded, InputSpec

# A batch gathers up to this many records, or up to this many bytes.
_RECORDS = 4096
_RECORD_BYTES = 4 << 20
# The bytes that are searched for the start of a record at a time.
_SCAN_BYTES = 1 << 16


def look_tfrecord(path: str, _: CsvOptions) -> Look:
    """Returns the features of the first tf.Examples."""
    with open_text(path) as file:
        records = [record for _, record in itertools.islice(read_records(file), SAMPLE_ROWS)]
    return typed_look(example_schema(records))


def read_tfrecord_range(part: FileRange, spec: InputSpec) -> Read:
    """Yields the rows of a range, from its first sound record on. The bytes before it belong to the range before.

    The first record of the next range is read too: that range passes over it if it is damaged, so this one reports it.
    """
    with opened(part.path, open_text) as file:
        begin = find_record(file, part.start, part.stop) if part.start else 0
        if begin is None:
            return
        file.seek(begin)
        records: list[bytes] = []
        positions: list[int] = []

        def flush() -> tuple[Decoded, int, int]:
            rows = decode_examples(records, np.array(positions, np.int64), spec, f"{part.path}#byte=")
            stop = positions[-1] + len(records[-1]) + HEADER_BYTES + FOOTER_BYTES if positions else begin
            return rows, stop - (positions[0] if positions else begin), stop

        try:
            for places, found in _until(part.stop, read_pieces(file, begin)):
                done = 0
                while done < len(found):
                    some = slice(done, done + _RECORDS - len(records))
                    records += found[some]
                    positions += places[some].tolist()
                    done = some.stop
                    if len(records) >= _RECORDS or positions[-1] - positions[0] >= _RECORD_BYTES:
                        yield flush()
                        records, positions = [], []
        except Exception:
            yield flush()
            raise
        yield flush()


def _until(
    stop: int | None, pieces: Iterator[tuple[np.ndarray, list[bytes]]]
) -> Iterator[tuple[np.ndarray, list[bytes]]]:
    """Yields the records that begin before `stop`; None: all."""
    for places, records in pieces:
        count = len(records) if stop is None else int(np.searchsorted(places, stop))
        yield places[:count], records[:count]
        if count < len(records):
            return


def find_record(file: BinaryIO, start: int, stop: int | None = None) -> int | None:
    """Returns the offset of the first record that begins in [start, stop); None if there is none.

    A position is the start of a record if the length there has the right checksum, and the record after it, too.

    Args:
      stop: None: the end of the file.
    """
    position = start
    while stop is None or position < stop:
        file.seek(position)
        data = file.read(_SCAN_BYTES)
        for candidate in candidate_starts(data).tolist():
            if stop is not None and position + candidate >= stop:
                return None
            if _is_record(file, position + candidate):
                return position + candidate
        if len(data) < _SCAN_BYTES:
            return None
        position += len(data) - 11  # a header may lie across the edge of two scans
    return None


def _is_record(file: BinaryIO, position: int) -> bool:
    file.seek(position)
    try:
        next(read_records(file, position))
    except CorruptFile:
        return False
    return True
