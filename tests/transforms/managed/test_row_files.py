"""Rows kept as they were read."""

import io

import pyarrow as pa
import pytest

from sluice.models.errors import CorruptFile
from sluice.models.tensors.arrays import repeated
from sluice.transforms.managed.row_files import read_batches, write_batch

BATCHES = [
    pa.RecordBatch.from_pydict({"a": [1, 2], "file": repeated("x", 2)}),
    pa.RecordBatch.from_pydict({"b": ["text", None]}).slice(1),
    pa.RecordBatch.from_pydict({"a": [3], "file": repeated("y", 1)}),
]


def written() -> bytes:
    file = io.BytesIO()
    for batch in BATCHES:
        write_batch(file, batch)
    return file.getvalue()


def test_batches_of_any_schemas_come_back_in_order() -> None:
    assert list(read_batches(io.BytesIO(written()))) == BATCHES
    assert list(read_batches(io.BytesIO())) == []


@pytest.mark.parametrize("left_out", [1, 100])
def test_half_a_file_is_not_taken_for_a_whole_one(left_out: int) -> None:
    data = written()
    with pytest.raises(CorruptFile, match="ends within a batch"):
        list(read_batches(io.BytesIO(data[:-left_out])))
    with pytest.raises(CorruptFile, match="ends within a batch"):
        list(read_batches(io.BytesIO(data[:5])))
