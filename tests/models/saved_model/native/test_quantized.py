"""Quantized types: a session takes the whole numbers that they are stored as; as a column they are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sluice.models.cache import open_model
from sluice.models.errors import SignatureError
from sluice.models.saved_model.reasons import TensorFlowError
from tests.support.saved_models.twins import Lent, Twins

# By TensorFlow's name: the NumPy type of the same bytes.
STORED = {"qint8": "int8", "quint8": "uint8", "qint16": "int16", "quint16": "uint16", "qint32": "int32"}


def build(directory: str, dtype: str) -> None:
    """Answers with what it is fed, and with the whole numbers that it is stored as."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        given = v1.placeholder(tf.as_dtype(dtype), [None, 3], name="given")
        outputs = {"same": tf.identity(given), "stored": tf.bitcast(given, STORED[dtype])}
        v1.saved_model.simple_save(session, directory, {"given": given}, outputs)


@pytest.mark.parametrize(("dtype", "stored"), STORED.items(), ids=STORED)
def test_a_session_takes_and_gives_what_is_stored(dtype: str, stored: str, tmp_path: Path) -> None:
    build(str(tmp_path / "model"), dtype)
    twins = Twins(str(tmp_path / "model"))
    limits = np.iinfo(stored)
    numbers = np.array([[limits.min, 0, limits.max], [1, 2, 3]], stored)
    lent = Lent([numbers])
    found = twins.native(lent.tensors)
    lent.spoil()
    for tensor in (*found, *map(np.asarray, twins.twin([numbers.view([(dtype, stored)])]))):
        assert tensor.tobytes() == numbers.tobytes()
    assert [np.asarray(tensor).dtype for tensor in found] == [stored, stored]
    with pytest.raises(TensorFlowError):
        twins.native([numbers.astype(np.float32)])
    twins.close()


@pytest.mark.parametrize("dtype", STORED)
def test_a_model_with_a_quantized_column_is_refused(dtype: str, tmp_path: Path) -> None:
    build(str(tmp_path / "model"), dtype)
    with pytest.raises(SignatureError, match=f"input 'given' .*{dtype}"):
        open_model(str(tmp_path / "model"))
