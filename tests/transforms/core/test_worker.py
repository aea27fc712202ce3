"""A worker's process ends where only a new process can help; any other process does not."""

import threading

import pytest

from sluice.models.errors import ModelHangs
from sluice.transforms.core import worker
from tests.support.fakes import PATIENCE_SECS


def test_a_process_of_ours_is_no_worker() -> None:
    assert not worker.is_worker()
    assert worker.replace_worker(ModelHangs("x"), end=lambda code: None) is None


def test_a_worker_ends_after_its_error_has_been_reported() -> None:
    codes: list[int] = []
    timer = worker.replace_worker(ModelHangs("x"), lambda: True, codes.append)
    assert isinstance(timer, threading.Timer) and timer.daemon and timer.interval > 0
    timer.cancel()
    timer.function(*timer.args)
    assert codes == [1]
    timer.join(PATIENCE_SECS)


def test_a_worker_tells_no_row_that_is_private(caplog: pytest.LogCaptureFixture) -> None:
    for private in (False, True):
        timer = worker.replace_worker(ModelHangs("row Jane"), lambda: True, lambda code: None, private)
        assert timer is not None
        timer.cancel()
    assert ["Jane" in text for text in caplog.messages] == [True, False]
