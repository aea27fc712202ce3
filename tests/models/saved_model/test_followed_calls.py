"""Calls of a model that follows its versions: what a new version is tried on, its first version, its thread."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sluice.models.errors import BadInput, ModelNotFound, SignatureError
from sluice.models.interface import Outputs
from sluice.models.saved_model.followed import Changes, _sample, take_changes
from sluice.models.signature import Signature, TensorSpec
from sluice.models.tensors.binding import Feeds
from tests.support.fakes import PATIENCE_SECS, X_TO_Y, FakeModel, double, refusing, x_feeds
from tests.support.saved_models.followed import FLOAT, SHARD, Setting


@pytest.fixture
def setting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Setting]:
    """Version 1 is there."""
    caplog.set_level(logging.INFO, "sluice")
    made = Setting(tmp_path, caplog)
    made.write("1")
    yield made
    made.close()


def fed(setting: Setting, version: int) -> list[list[int]]:
    """What a version was called with."""
    return [feeds["x"].tolist() for feeds in setting.opener.models[version].calls]


def test_a_version_is_tried_on_the_first_rows_of_a_call_since_the_last_look(setting: Setting) -> None:
    setting.model.call(x_feeds(1, 2))
    setting.model.call(x_feeds(3))
    setting.write("2")
    setting.poll()
    assert fed(setting, 2) == [[1, 2]]
    setting.model.call(x_feeds(*range(100)))
    setting.write("3")
    setting.poll()
    assert fed(setting, 3) == [[*range(32)]]


def test_rows_too_large_to_keep_leave_the_sample_as_it_was(setting: Setting) -> None:
    setting.opener.answers[1] = lambda feeds: double(x_feeds(1))
    setting.model.call(x_feeds(5))
    setting.poll()
    setting.model.call({"x": np.zeros((1, 2 << 20), np.int64)})
    setting.write("2")
    assert setting.poll() == 2
    assert fed(setting, 2) == [[5]]


def test_a_version_is_not_tried_on_rows_that_no_version_was_called_with(setting: Setting) -> None:
    setting.poll()
    setting.write("2")
    assert setting.poll() == 2
    assert fed(setting, 2) == []


def pairs(feeds: Feeds) -> Outputs:
    """A model that takes pairs of rows."""
    if len(feeds["x"]) % 2:
        raise BadInput("an odd row")
    return double(feeds)


def test_a_call_that_failed_is_no_trial(setting: Setting) -> None:
    setting.opener.answers[1] = pairs
    with pytest.raises(BadInput):
        setting.model.call(x_feeds(1, 2, 3))
    setting.model.call(x_feeds(4, 5))
    setting.write("2")
    assert setting.poll() == 2
    assert fed(setting, 2) == [[4, 5]]


def test_a_version_that_fails_where_the_one_in_use_fails_too_is_taken(setting: Setting) -> None:
    def dozens(feeds: Feeds) -> Outputs:
        if len(feeds["x"]) % 12:  # as 32 rows are not, cut from 36
            raise BadInput("not in dozens")
        return double(feeds)

    setting.opener.answers = {1: dozens, 2: dozens}
    setting.model.call(x_feeds(*range(36)))
    setting.write("2")
    assert setting.poll() == 2
    assert len(fed(setting, 2)[0]) == 32


def test_a_sample_is_a_small_copy() -> None:
    big = np.zeros((40, 1 << 20), np.uint8)
    one = {"x": big[:, : 1 << 19]}
    sizes = {"few": x_feeds(1, 2), "many": x_feeds(*range(50)), "large": {"x": big}, "half": one}
    samples = {name: _sample(feeds, X_TO_Y) for name, feeds in sizes.items()}
    assert {name: feeds and len(feeds["x"]) for name, feeds in samples.items()} == {
        "few": 2,
        "many": 32,
        "large": 1,
        "half": 1,
    }
    assert not any(feeds and np.shares_memory(feeds["x"], sizes[name]["x"]) for name, feeds in samples.items())
    assert _sample({"x": np.zeros((1, 9 << 20), np.uint8)}, X_TO_Y) is None


def test_a_sample_has_as_many_rows_as_the_signature_fixes() -> None:
    fixed = Signature("s", "predict", (TensorSpec("x", "int64", (50,)),), X_TO_Y.outputs)
    sample = _sample(x_feeds(*range(50)), fixed)
    assert sample and len(sample["x"]) == 50
    assert _sample({"x": np.zeros((50, 1 << 20), np.uint8)}, fixed) is None


def test_a_version_is_closed_when_its_last_call_ends(setting: Setting) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(feeds: Feeds) -> Outputs:
        begun.set()
        assert go_on.wait(PATIENCE_SECS)
        return Outputs(double(feeds).arrays, 1)

    setting.opener.answers = {1: slow, 2: lambda feeds: Outputs(double(feeds).arrays, 2)}
    setting.poll()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(setting.model.call, x_feeds(1))
        assert begun.wait(PATIENCE_SECS)
        setting.write("2")
        assert setting.poll() == 2
        assert setting.model.call(x_feeds(1)).version == 2
        assert not setting.opener.models[1].closed
        go_on.set()
        assert call.result(PATIENCE_SECS).version == 1
    assert setting.opener.models[1].closed


def test_a_worker_that_starts_late_takes_the_newest_version_that_is_fit_for_use(setting: Setting) -> None:
    for name in ("2", "3", "4", "5"):
        setting.write(name)
    (setting.base / "5" / SHARD).unlink()
    setting.opener.errors = {4: ModelNotFound("TensorFlow cannot load it"), 3: OSError("not readable now")}
    assert setting.model.version == 2
    assert setting.model.take_changes() == Changes((), 2)
    del setting.opener.errors[3]
    assert setting.poll() == 3
    (setting.base / "5" / SHARD).write_bytes(b"shard")
    assert setting.poll() == 5
    assert setting.opener.opened == [4, 3, 2, 3, 5]


def test_versions_have_to_fit_the_signature_that_the_launcher_read(setting: Setting) -> None:
    setting.write("2", y=FLOAT)
    assert setting.use(signature=X_TO_Y).version == 1
    setting.close()
    assert setting.use().version == 2


def test_the_newest_versions_fault_is_told_where_none_is_fit_for_use(setting: Setting) -> None:
    setting.write("2", y=FLOAT)
    setting.opener.errors[1] = OSError("not readable now")
    with pytest.raises(SignatureError, match="output 'y' is float32"):
        setting.use(signature=X_TO_Y)


def test_the_thread_looks_now_and_then_until_the_model_is_closed(setting: Setting) -> None:
    waits: list[float] = []
    asleep, wake = threading.Semaphore(0), threading.Semaphore(0)

    def sleep(secs: float) -> None:
        waits.append(secs)
        asleep.release()
        assert wake.acquire(timeout=PATIENCE_SECS)

    draws = iter([0.0, 0.5, 1.0, 0.25])
    model = setting.use(sleep=sleep, uniform=lambda: next(draws))
    model.start()
    setting.write("2")
    versions = []
    for _ in range(3):
        assert asleep.acquire(timeout=PATIENCE_SECS)
        versions.append(model.version)
        wake.release()
    assert asleep.acquire(timeout=PATIENCE_SECS)
    assert versions == [1, 1, 2]
    assert waits == pytest.approx([48.0, 60.0, 72.0, 54.0])
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(model.close)
        assert model._closing.wait(PATIENCE_SECS)
        wake.release()
        closing.result(PATIENCE_SECS)
    assert setting.opener.models[2].closed
    assert model._thread and not model._thread.is_alive()


def test_closing_ends_a_thread_that_waits(setting: Setting) -> None:
    model = setting.use()
    model.start()
    assert model._thread and model._thread.is_alive() and model._thread.daemon
    model.close()
    assert not model._thread.is_alive()
    assert setting.opener.models[1].closed


def test_other_models_have_no_changes() -> None:
    assert take_changes(FakeModel()) == Changes()


def test_a_version_that_is_rejected_tells_no_row_that_is_private(setting: Setting) -> None:
    setting.model._options = dataclasses.replace(setting.model._options, private=True)
    setting.model.call(x_feeds(3, 4, 5))
    setting.opener.answers[2] = refusing(frozenset({5}))
    setting.write("2")
    assert setting.poll() == 1
    why = "BadOutput: it fails on 3 rows that version 1 answers: [withheld]"
    assert setting.logged() == [f"WARNING Model BASE: version 2 is not taken, and version 1 stays: {why}"]
