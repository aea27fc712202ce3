"""Tensors that later calls use again. test_session.py compares their answers with those of Python TensorFlow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from sluice.models.saved_model.native.library import load_library
from sluice.models.saved_model.native.moulds import _MOST_OF_ONE, _MOST_SHAPES, _MOST_VALUES, Mould, Moulds
from sluice.models.saved_model.native.tensors import dtype_of, read_tensor
from sluice.models.saved_model.reasons import TensorFlowError
from sluice.models.tensors.strings import Tensor
from tests.support.saved_models.twins import Twins


@pytest.fixture
def echo(cases: Callable[[str], str]) -> Iterator[Twins]:
    """Answers with what it is fed; numbers below -1 are an error."""
    twins = Twins(cases("echo"))
    yield twins
    twins.close()


def feeds(rows: int, value: int = 0) -> list[Tensor]:
    texts = np.empty(rows, object)
    texts[:] = [b"%d of %d" % (value, row) * (row % 5) for row in range(rows)]
    return [np.full((rows, 3), value, np.float32), texts]


def moulds_of(twins: Twins) -> Moulds:
    assert twins.native._moulds is not None
    return twins.native._moulds


def same(twins: Twins, found: list[Any], fed: list[Tensor]) -> bool:
    named = dict(zip([spec.name for spec in twins.signature.outputs], found, strict=True))
    return named["same"].tolist() == fed[1].tolist() and named["numbers"].tolist() == fed[0].tolist()


def test_calls_of_one_shape_use_the_same_tensors_and_each_has_its_own_values(echo: Twins) -> None:
    answers = [(fed, echo.native(fed)) for fed in (feeds(4, value) for value in range(20))]
    assert all(same(echo, found, fed) for fed, found in answers), "an answer changed when its tensors were used again"
    assert [len(free) for free in moulds_of(echo)._free.values()] == [1]


def test_what_is_large_or_of_another_dtype_has_tensors_of_its_own(echo: Twins) -> None:
    rows = _MOST_VALUES // 4
    assert moulds_of(echo).take(feeds(rows)) is not None
    assert moulds_of(echo).take(feeds(rows + 1)) is None
    numbers, texts = feeds(2)
    assert moulds_of(echo).take([numbers.astype(np.float64), texts]) is None  # type: ignore[union-attr]


def test_the_tensors_of_a_call_that_failed_are_not_used_again(echo: Twins) -> None:
    for value in (-9, 1):
        try:
            assert same(echo, echo.native(feeds(3, value)), feeds(3, value))
        except TensorFlowError:
            assert value == -9
            assert not moulds_of(echo)._free


def test_so_many_are_kept_and_no_more(echo: Twins) -> None:
    for rows in range(1, 3 * _MOST_SHAPES):
        echo.native(feeds(rows))
    moulds = moulds_of(echo)
    assert len(moulds._free) <= _MOST_SHAPES
    for taken in [moulds.take(feeds(1)) for _ in range(2 * _MOST_OF_ONE)]:
        assert taken is not None
        moulds.give(taken)
    assert len(moulds._free[feeds(1)[0].shape, feeds(1)[1].shape]) == _MOST_OF_ONE


def test_threads_have_tensors_of_their_own(echo: Twins) -> None:
    wrong: list[int] = []

    def work(value: int) -> None:
        fed = feeds(6, value)
        for _ in range(60):
            if not same(echo, echo.native(fed), fed):
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_graph_that_keeps_what_it_is_fed_has_none(cases: Callable[[str], str]) -> None:
    twins = Twins(cases("variables"))
    assert twins.native.keeper
    assert twins.native._moulds is None
    twins.close()


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3)])
def test_whatever_is_filled_is_what_tensorflow_reads(shape: tuple[int, ...]) -> None:
    """Of all dtypes, and again after the first time: TensorFlow has made no copy."""
    library = load_library()
    assert library is not None
    kinds = {number: dtype for number in range(1, 24) if (dtype := dtype_of(number)) is not None}
    mould = Mould(library, list(kinds), list(kinds.values()), (shape,) * len(kinds))
    for value in (1, 0, 1):
        tensors = [np.full(shape, b"%d" % value * 30 if kind.hasobject else value, kind) for kind in kinds.values()]
        _kept = mould.fill(tensors)
        found = [read_tensor(library, handle) for handle in mould.handles]
        assert [(each.dtype, each.shape, each.tolist()) for each in found] == [
            (each.dtype, each.shape, each.tolist()) for each in tensors
        ]
