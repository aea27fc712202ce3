"""Arrow arrays made of lengths and of repeated values."""

import numpy as np
import pyarrow as pa


def list_array(lengths: np.ndarray, values: pa.Array, mask: pa.Array | None = None) -> pa.ListArray:
    """Returns lists of these lengths (int [rows]) over flat values.

    Args:
      mask: bool [rows]: the rows that are null; their length is 0.
    """
    offsets = np.append(0, np.cumsum(lengths)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=mask)


def repeated(text: str, rows: int) -> pa.DictionaryArray:
    """Returns the same text in every row, stored once."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text], pa.string()))
