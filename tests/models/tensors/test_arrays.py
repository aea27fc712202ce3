"""Arrow arrays made of NumPy's."""

import numpy as np
import pyarrow as pa
import pytest

from sluice.models.tensors.arrays import number_array

VALUES = [
    *(np.arange(4, dtype=kind) for kind in (np.int8, np.uint8, np.int32, np.uint64, np.int64)),
    np.array([1.5, np.nan, np.inf, -0.0], np.float32),
    np.array([1.5, np.nan], np.float64),
    np.arange(10)[::2],
    np.empty(0, np.int64),
    np.array([True, False, True]),
]


@pytest.mark.parametrize("values", VALUES, ids=lambda values: f"{values.dtype}{list(values.shape)}")
def test_numbers_are_those_that_pyarrow_makes_of_them(values: np.ndarray) -> None:
    made = number_array(values)
    made.validate(full=True)
    assert made.type == pa.array(values).type and made.null_count == 0
    assert np.array_equal(made.to_numpy(zero_copy_only=False), values, equal_nan=values.dtype.kind == "f")


def test_numbers_are_not_copied() -> None:
    values = np.arange(3)
    made = number_array(values)
    values[0] = 7
    assert made[0].as_py() == 7
