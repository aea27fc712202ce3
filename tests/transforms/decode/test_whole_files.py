"""Files as rows: their paths."""

import os

import pyarrow as pa

from sluice.models.reserved import FED, FILE
from sluice.transforms.core.batches import origin_of, payload_of
from sluice.transforms.core.formats import FILES, PATH
from sluice.transforms.decode.spec import InputSpec
from sluice.transforms.decode.whole_files import file_rows

SPEC = InputSpec(FILES, ((PATH, pa.string()),))


def test_each_file_is_a_row_with_its_path() -> None:
    decoded = file_rows(["d/1.jpg", "d/é [2].jpg"], SPEC)
    (batch,) = decoded.batches
    assert (batch.schema.names, decoded.failures) == ([PATH, FILE], [])
    assert batch[PATH].to_pylist() == ["d/1.jpg", "d/é [2].jpg"]
    assert [origin_of(batch, row) for row in range(2)] == ["d/1.jpg", "d/é [2].jpg"]
    assert payload_of(batch, 0) == b'{"path":"d/1.jpg"}'


def test_an_input_may_take_the_path() -> None:
    (batch,) = file_rows(["1.jpg"], InputSpec(FILES, ((PATH, pa.string()),), mapped=(("name", PATH),))).batches
    assert batch.select([PATH, FED + "name"]).to_pylist() == [{PATH: "1.jpg", FED + "name": "1.jpg"}]


def test_a_name_that_is_no_text_fails_its_file() -> None:
    name = os.fsdecode(b"d/\xff.jpg")
    decoded = file_rows([name, "d/1.jpg"], SPEC)
    assert [batch.num_rows for batch in decoded.batches] == [1]
    (failure,) = decoded.failures
    assert (failure.stage, failure.origin) == ("read", "d/\\xff.jpg")
    assert "is not UTF-8" in failure.error_message
    assert file_rows([name], SPEC).rows == 1
