"""Tensors as JSON: what the digits of float32 are, and what a large body costs."""

import gc
import json
import sys
from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as numpy_strategies
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.server.rest_request import parse_request
from sluice.models.server.rest_response import render_answer

_SHAPES = numpy_strategies.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)
_FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@given(numpy_strategies.arrays(np.float32, _SHAPES, elements=_FLOATS), st.booleans())
def test_floats_have_their_shortest_digits(array: np.ndarray, turned: bool) -> None:
    """The twin: NumPy's shortest text of each value. An array that is not contiguous is as good."""
    array = array.T if turned else array
    found = json.loads(render_answer({"y": array}, "inputs"))["outputs"]
    assert json.dumps(found) == json.dumps(array.astype(str).astype(np.float64).tolist())


def calls_of(function: Callable[[], Any]) -> int:
    """Returns how many functions of Python a call enters."""
    entered = 0

    def count(frame: Any, event: str, arg: Any) -> None:
        nonlocal entered
        entered += event == "call"

    before = sys.getprofile()
    gc.disable()  # it would enter hypothesis' callbacks
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(before)
        gc.enable()
    return entered


@pytest.mark.parametrize("row", ['{"x": 1.5}', "1.5"])
def test_a_body_of_many_rows_enters_no_function_for_each(row: str) -> None:
    """A body of 60 MB got no answer in 60 s."""

    def serve(rows: int) -> int:
        body = ('{"instances": [' + ", ".join([row] * rows) + "]}").encode()
        return calls_of(lambda: render_answer(parse_request(body, lambda _: {"x": 1})[1], "instances"))

    serve(1)
    assert serve(5000) == serve(50)
