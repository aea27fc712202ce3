"""Arrow arrays made of NumPy's, of lengths and of repeated values."""

import numpy as np
import pyarrow as pa


def number_array(values: np.ndarray) -> pa.Array:
    """Returns numbers [n] as an Arrow array over the same memory.

    As pyarrow.array does, which first imports numpy.ma: a tenth of the time in which `sluice predict` answers.
    """
    if values.dtype == np.bool_:  # Arrow has them as bits
        return pa.array(values)
    buffers = [None, pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), buffers)


def list_array(lengths: np.ndarray, values: pa.Array, mask: pa.Array | None = None) -> pa.ListArray:
    """Returns lists of these lengths (int [rows]) over flat values.

    Args:
      mask: bool [rows]: the rows that are null; their length is 0.
    """
    offsets = np.append(0, np.cumsum(lengths)).astype(np.int32)
    return pa.ListArray.from_arrays(number_array(offsets), values, mask=mask)


def repeated(text: str, rows: int) -> pa.DictionaryArray:
    """Returns the same text in every row, stored once."""
    return pa.DictionaryArray.from_arrays(number_array(np.zeros(rows, np.int32)), pa.array([text], pa.string()))
