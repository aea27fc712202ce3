"""Quantized types: a session takes the whole numbers that they are stored as; as a column they are refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sluice.models.cache import open_model
from sluice.models.errors import SignatureError
from sluice.models.saved_model.reasons import TensorFlowError
from tests.support.saved_models.special import QUANTIZED
from tests.support.saved_models.twins import Lent, Twins


def numbers_of(stored: str) -> np.ndarray:
    limits = np.iinfo(stored)
    return np.array([[limits.min, 0, limits.max], [1, 2, 3]], stored)


@pytest.mark.parametrize(("dtype", "stored"), QUANTIZED.items(), ids=QUANTIZED)
def test_a_session_takes_and_gives_what_is_stored(dtype: str, stored: str, cases: Callable[[str], str]) -> None:
    twins = Twins(cases(dtype))
    numbers = numbers_of(stored)
    lent = Lent([numbers])
    found = twins.native(lent.tensors)
    lent.spoil()
    assert [np.asarray(tensor).tobytes() for tensor in found] == [numbers.tobytes()] * 2
    assert [np.asarray(tensor).dtype for tensor in found] == [stored, stored]
    with pytest.raises(TensorFlowError):
        twins.native([numbers.astype(np.float32)])
    twins.close()


@pytest.mark.parametrize(("dtype", "stored"), QUANTIZED.items(), ids=QUANTIZED)
def test_python_tensorflow_gives_the_same_bytes(dtype: str, stored: str, cases: Callable[[str], str]) -> None:
    twins = Twins(cases(dtype))
    numbers = numbers_of(stored)
    found = map(np.asarray, twins.twin([numbers.view([(dtype, stored)])]))
    assert [tensor.tobytes() for tensor in found] == [numbers.tobytes()] * 2
    twins.close()


@pytest.mark.parametrize("dtype", QUANTIZED)
def test_a_model_with_a_quantized_column_is_refused(dtype: str, cases: Callable[[str], str]) -> None:
    with pytest.raises(SignatureError, match=f"input 'given' .*{dtype}"):
        open_model(cases(dtype))
