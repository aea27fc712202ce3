"""Single rows as RecordBatches."""

from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from sluice.transforms.files.row_batches import GatherRows, rows_to_batch


def test_names_come_in_their_order_and_what_a_row_lacks_is_null() -> None:
    batch = rows_to_batch([{"b": 1, "a": np.array([1.5])}, {"c": "x", "b": 2}], None)
    assert batch.schema == pa.schema([("b", pa.int64()), ("a", pa.list_(pa.float64())), ("c", pa.string())])
    assert batch.to_pylist() == [{"b": 1, "a": [1.5], "c": None}, {"b": 2, "a": None, "c": "x"}]


def test_a_schema_decides() -> None:
    schema = pa.schema({"a": pa.float32(), "b": pa.string()})
    assert rows_to_batch([{"a": 1, "z": 2}], schema).to_pydict() == {"a": [1.0], "b": [None]}


@pytest.mark.parametrize(("values", "schema"), [([1, "a"], None), ([1.5], pa.schema({"x": pa.int64()}))])
def test_values_that_are_no_column(values: list[Any], schema: pa.Schema | None) -> None:
    with pytest.raises(TypeError, match=r"column 'x': .*pyarrow schema"):
        rows_to_batch([{"x": value} for value in values], schema)


def test_rows_of_a_bundle_gather() -> None:
    fn = GatherRows(None)
    fn.start_bundle()
    early = [batch for x in range(5000) for batch in fn.process({"x": x})]
    late = [value.value for value in fn.finish_bundle()]
    assert [batch.num_rows for batch in (*early, *late)] == [4096, 904]
    assert list(fn.process(early[0])) == early and not list(fn.finish_bundle())
    large = {"x": b"x" * (9 << 20)}
    assert [batch.num_rows for row in (large, beam.Row(**large)) for batch in fn.process(row)] == [2]
    with pytest.raises(TypeError, match="found <class 'int'>"):
        list(fn.process(5))
