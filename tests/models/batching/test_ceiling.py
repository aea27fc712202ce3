"""Ceiling: rejected calls lower it, answered calls raise it again."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from sluice.models.batching.ceiling import Ceiling
from sluice.models.errors import BatchTooLarge, MessageTooLarge
from tests.support.fakes import x_feeds


def test_rows_and_bytes_are_learnt_apart(caplog: pytest.LogCaptureFixture) -> None:
    ceiling = Ceiling(512, 1000)
    ceiling.lower(MessageTooLarge("too many bytes"), {"s": np.array([b"x" * 100], object)})
    assert (ceiling.rows, ceiling.bytes) == (512, 141)
    ceiling.lower(BatchTooLarge("too many rows"), x_feeds(*range(9)))
    assert (ceiling.rows, ceiling.bytes) == (9, 141)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert caplog.messages == [
        "Calls are cut to 141 bytes of tensors: too many bytes",
        "Calls are cut to 9 rows: too many rows",
    ]


def test_it_is_not_raised_by_a_refusal(caplog: pytest.LogCaptureFixture) -> None:
    ceiling = Ceiling(4, 1000)
    ceiling.lower(BatchTooLarge("x"), x_feeds(*range(4)))
    ceiling.lower(MessageTooLarge("x"), x_feeds(*range(200)))
    assert (ceiling.rows, ceiling.bytes, ceiling.lowered, caplog.messages) == (4, 1000, False, [])


def test_more_is_tried_after_many_full_calls_and_then_more_seldom() -> None:
    ceiling = Ceiling(64, 1 << 20)
    waits = []
    for _ in range(3):
        ceiling.lower(BatchTooLarge("x"), x_feeds(*range(8)))
        calls = 0
        while ceiling.rows == 8:
            ceiling.on_answer(8, 64)
            ceiling.on_answer(3, 24)  # too small to count
            calls += 1
        waits.append(calls)
        assert ceiling.rows == 16
    assert waits == [100, 200, 400]


def test_it_ends_at_what_was_asked_for() -> None:
    ceiling = Ceiling(10, 100)
    ceiling.lower(BatchTooLarge("x"), x_feeds(*range(8)))
    for _ in range(1000):
        ceiling.on_answer(ceiling.rows, 50)
    assert (ceiling.rows, ceiling.bytes, ceiling.lowered) == (10, 100, False)
