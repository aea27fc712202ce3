"""Versions that TensorFlow loads, from `open_model` to a scheduler that is called while they change."""

from __future__ import annotations

import logging
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from sluice.models.batching.options import SchedulerOptions
from sluice.models.batching.scheduler import Scheduler
from sluice.models.cache import open_model
from sluice.models.errors import ModelNotFound
from sluice.models.interface import ModelOptions
from sluice.models.saved_model.followed import Changes, FollowedModel
from sluice.models.saved_model.loader import SavedModel
from sluice.models.tensors.binding import Feeds
from sluice.models.uri import ModelSpec
from tests.support.fakes import PATIENCE_SECS
from tests.support.saved_models.followed import export_version

# Nothing is looked at by the clock: a test that takes so long has failed.
OPTIONS = ModelOptions(poll_secs=3600.0, intra_op_threads=1, inter_op_threads=1)
_VARIABLES = "variables/variables.data-00000-of-00001"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 to 4, of which 3 fails on any row."""
    base = tmp_path_factory.mktemp("exported")
    for number in range(1, 5):
        export_version(str(base / str(number)), number, fails=number == 3)
    return base


@pytest.fixture
def publish(exported: Path, tmp_path: Path) -> Callable[[int], Path]:
    """Copies a version to the base path, which is `tmp_path`."""
    return lambda number: Path(shutil.copytree(exported / str(number), tmp_path / str(number)))


@contextmanager
def opened(base: Path) -> Iterator[FollowedModel]:
    model = open_model(str(base), OPTIONS)
    assert isinstance(model, FollowedModel)
    try:
        yield model
    finally:
        model.close()


def poll(model: FollowedModel) -> int | None:
    for _ in range(2):
        model.poll()
    return model.version


def feeds_of(*x: float) -> Feeds:
    return {"x": np.array(x, np.float32)}


def test_versions_come_fail_and_go(publish: Callable[[int], Path], tmp_path: Path) -> None:
    publish(1)
    with opened(tmp_path) as model:
        assert model.call(feeds_of(1)).arrays["y"].tolist() == [1001]
        publish(2)
        assert poll(model) == 2
        outputs = model.call(feeds_of(1))
        assert (outputs.version, outputs.arrays["y"].tolist()) == (2, [2001])
        publish(3)
        assert poll(model) == 2
        assert model.take_changes().rejected == 1
        publish(4)
        assert poll(model) == 4
        for number in (4, 3):
            shutil.rmtree(tmp_path / str(number))
        assert poll(model) == 2
        assert model.call(feeds_of(1)).arrays["y"].tolist() == [2001]


def unknown_op(version: Path) -> None:
    file = version / "saved_model.pb"
    file.write_bytes(file.read_bytes().replace(b"AddV2", b"AddV9"))


def cut_short(version: Path) -> None:
    file = version / _VARIABLES
    file.write_bytes(file.read_bytes()[:-1])


def flipped(version: Path) -> None:
    file = version / _VARIABLES
    file.write_bytes(bytes(byte ^ 255 for byte in file.read_bytes()))


@pytest.mark.parametrize("spoil", [unknown_op, cut_short, flipped])
def test_a_version_that_tensorflow_cannot_load_is_rejected(
    publish: Callable[[int], Path], tmp_path: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    publish(1)
    with opened(tmp_path) as model:
        spoil(publish(2))
        assert poll(model) == poll(model) == 1
        assert model.take_changes() == Changes((), 1)
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [line.split(": TensorFlow")[0] for line in warned] == [
        f"Model {tmp_path}: version 2 is not taken, and version 1 stays"
    ]
    with opened(tmp_path) as model:  # a worker that starts now
        assert model.version == 1


def test_rows_carry_the_version_that_predicted_them(publish: Callable[[int], Path], tmp_path: Path) -> None:
    publish(1)
    with opened(tmp_path) as model:
        scheduler = Scheduler(model, SchedulerOptions(max_batch_size=64, max_in_flight=2))
        over = threading.Event()
        one_more = threading.Condition()
        rows = Counter[int | None]()
        wrong: list[object] = []

        def submit_on() -> None:
            x = np.arange(10, dtype=np.float32)
            while not over.is_set():
                prediction = scheduler.submit({"x": x}).future.result(PATIENCE_SECS)
                versions = np.concatenate([np.full(count, version) for count, version in prediction.versions])
                with one_more:
                    if prediction.failures or prediction.arrays["y"].tolist() != (x + 1000 * versions).tolist():
                        wrong.append(prediction)
                    rows.update(versions.tolist())
                    one_more.notify_all()

        def followed(number: int) -> bool:
            """Whether the model goes to a version, and rows come that it predicted."""
            with one_more:
                rows.clear()
            assert poll(model) == number
            with one_more:
                return one_more.wait_for(lambda: bool(rows[number]), PATIENCE_SECS)

        threads = [threading.Thread(target=submit_on) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for number in (2, 4):
                publish(number)
                assert followed(number)
            for number, below in ((4, 2), (2, 1)):
                shutil.rmtree(tmp_path / str(number))
                assert followed(below)
        finally:
            over.set()
            for thread in threads:
                thread.join(PATIENCE_SECS)
        assert not wrong
        assert len(model.take_changes().load_msecs) == 4
        scheduler.close()


def test_what_is_not_followed(publish: Callable[[int], Path], tmp_path: Path) -> None:
    publish(1)
    base = str(tmp_path)
    for uri, options in (
        (ModelSpec(base, 1), OPTIONS),  # pinned
        (ModelSpec(f"{base}/1"), OPTIONS),  # a SavedModel by itself
        (ModelSpec(base), ModelOptions()),
    ):
        model = open_model(uri, options)
        assert isinstance(model, SavedModel)
        model.close()
    with pytest.raises(ModelNotFound, match=r"there is nothing at this path"):
        open_model(f"{base}/none", OPTIONS)
