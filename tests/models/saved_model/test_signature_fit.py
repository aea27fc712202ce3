"""Which signatures may replace which."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sluice.models.errors import SignatureError
from sluice.models.saved_model.signature_fit import check_fit
from sluice.models.signature import ColumnSpec, Signature, TensorSpec
from tests.support.fakes import X_TO_Y

X, (TEXT, Y) = X_TO_Y.inputs[0], X_TO_Y.outputs
AGE = ColumnSpec("age", "int64")
EXAMPLES = Signature("serve", "predict", (TensorSpec("examples", "string", (None,)),), (Y,), (AGE,))


def changed(spec: Any, **changes: Any) -> Any:
    return dataclasses.replace(spec, **changes)


@pytest.mark.parametrize(
    ("new", "wanted"),
    [
        (X_TO_Y, X_TO_Y),
        (changed(X_TO_Y, inputs=(changed(X, tensors=("serving_default_x:0",)),), method="other"), X_TO_Y),
        (EXAMPLES, changed(EXAMPLES, features=(changed(AGE),))),
    ],
)
def test_what_fits(new: Signature, wanted: Signature) -> None:
    check_fit(new, wanted)


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ({"inputs": (changed(X, dtype="float32"),)}, r"input 'x' is float32 \[\?\], not int64 \[\?\]$"),
        ({"inputs": (changed(X, shape=(8,)),)}, r"input 'x' is int64 \[8\], not int64 \[\?\]"),
        ({"inputs": (changed(X, shape=None),)}, "input 'x' is int64 of unknown rank, not"),
        ({"inputs": (changed(X, name="z"),)}, r"it lacks input 'x', int64 \[\?\]; it has input 'z' besides, int64"),
        (
            {"inputs": (X, changed(X, name="z"))},
            r"serving_default' is not.*uses: it has input 'z' besides, int64 \[\?\]$",
        ),
        ({"outputs": (TEXT, changed(Y, dtype="float64"))}, r"output 'y' is float64 \[\?\], not int64"),
        ({"outputs": (TEXT, changed(Y, shape=(None, 1)))}, r"output 'y' is int64 \[\?, 1\], not int64 \[\?\]"),
        ({"outputs": (TEXT, changed(Y, kind="ragged"))}, r"output 'y' is ragged int64 \[\?\], not int64"),
        ({"outputs": (Y,)}, r"it lacks output 'text', string"),
        ({"features": ()}, "it takes serialized tf.Examples, not no tf.Examples"),
    ],
)
def test_what_does_not_fit(new: dict[str, Any], words: str) -> None:
    with pytest.raises(SignatureError, match=words):
        check_fit(changed(X_TO_Y, **new), X_TO_Y)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ((changed(AGE, required=False),), r"feature 'age' is int64 \[\], optional, not int64 \[\], required"),
        ((changed(AGE, shape=(2,)),), r"feature 'age' is int64 \[2\], required, not"),
        ((), r"it lacks feature 'age', int64 \[\], required"),
        (None, "it lacks feature 'age'.*; it takes no tf.Examples, not serialized tf.Examples"),
    ],
)
def test_examples_of_other_features_do_not_fit(features: Any, words: str) -> None:
    with pytest.raises(SignatureError, match=words):
        check_fit(changed(EXAMPLES, features=features), EXAMPLES)
