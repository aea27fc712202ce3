"""Which version is followed, and which is not. See tests/support/saved_models/followed.py."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sluice.models.errors import BadInput, ModelNotFound
from sluice.models.interface import Outputs
from sluice.models.saved_model.followed import Changes
from sluice.models.tensors.binding import Feeds
from tests.support.fakes import double, refusing, x_feeds
from tests.support.saved_models.followed import FLOAT, SHARD, Setting, write_version


@pytest.fixture
def setting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Setting]:
    """Version 1 is there."""
    caplog.set_level(logging.INFO, "sluice")
    made = Setting(tmp_path, caplog)
    made.write("1")
    yield made
    made.close()


def test_a_new_version_is_gone_to_at_the_second_look(setting: Setting) -> None:
    seconds = iter([10.0, 12.5])
    model = setting.use(clock=lambda: next(seconds))
    assert (model.version, model.remote, model.uri) == (1, False, str(setting.base))
    assert setting.poll() == 1
    setting.write("2")
    assert setting.poll(1) == 1 and not setting.logged()
    assert setting.poll(1) == 2
    assert setting.logged() == ["INFO Model BASE: version 1 -> 2 (loaded in 2.5 s)"]
    assert setting.opener.models[1].closed and not setting.opener.models[2].closed
    assert model.take_changes() == Changes((2500.0,), 0)
    assert model.take_changes() == Changes()
    assert setting.poll() == 2 and setting.opener.opened == [1, 2]


def test_rows_that_were_bound_before_are_called_by_the_version_after(setting: Setting) -> None:
    setting.opener.answers[2] = lambda feeds: Outputs({**double(feeds).arrays, "y": -feeds["x"]}, 2)
    (group,) = setting.model.bind(pa.RecordBatch.from_pydict({"x": [3, 4]})).groups
    assert setting.model.call(group.feeds).version == 7
    setting.write("2")
    setting.poll()
    outputs = setting.model.call(group.feeds)
    assert (outputs.version, outputs.arrays["y"].tolist()) == (2, [-3, -4])


def test_a_failure_names_the_version_that_failed_though_another_is_in_use_by_then(setting: Setting) -> None:
    setting.use()

    def fail(feeds: Feeds) -> Outputs:
        setting.write("2")
        setting.poll()
        setting.poll()
        raise BadInput("no")

    setting.opener.models[1]._answer = fail
    with pytest.raises(BadInput) as caught:
        setting.model.call(x_feeds(1))
    assert (caught.value.version, setting.model.version) == (1, 2)


def garbage(version: Path) -> None:
    (version / "saved_model.pb").write_bytes(b"half of a mod")


def no_shard(version: Path) -> None:
    (version / SHARD).unlink()


@pytest.mark.parametrize(
    ("how", "spoil", "why"),
    [
        ({}, garbage, "saved_model.pb is not a SavedModel"),
        ({}, no_shard, "0 of 1 shards of variables are in"),
        ({"signature": "other"}, None, "has no signature 'serving_default'; it has other"),
        ({"x": FLOAT}, None, r"input 'x' is float32 \[\?\], not int64"),
        ({"y": FLOAT}, None, r"output 'y' is float32 \[\?\], not int64"),
        ({}, ModelNotFound("TensorFlow cannot load it"), "TensorFlow cannot load it"),
        ({}, KeyError("no such tensor"), "KeyError: 'no such tensor'"),
        ({}, refusing(frozenset({5})), r"it fails on 3 rows that version 2 answers: \[5\] are poison"),
        ({}, lambda feeds: Outputs({"y": feeds["x"]}), "version 2 answers: the answer lacks output 'text'"),
        ({}, lambda feeds: double(x_feeds(1)), "version 2 answers: output 'text': 1 rows for a batch of 3 rows"),
    ],
)
def test_a_version_that_fails_is_rejected_once(
    setting: Setting, how: Any, spoil: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    setting.write("2")
    setting.model.call(x_feeds(3, 4, 5))
    version = setting.write("3", **how)
    if spoil in (garbage, no_shard):
        spoil(version)
    elif isinstance(spoil, Exception):
        setting.opener.errors[3] = spoil
    elif spoil:
        setting.opener.answers[3] = spoil
    assert setting.poll(5) == 2
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(f"Model {setting.base}: version 3 is not taken, and version 2 stays: ")
    assert re.search(why, record.getMessage())
    assert setting.opener.opened.count(3) <= 1
    assert setting.model.take_changes() == Changes((), 1)
    assert all(model.closed == (number == 3) for number, model in setting.opener.models.items())
    assert setting.model.call(x_feeds(5)).arrays["y"].tolist() == [10]

    setting.write("4")
    assert setting.poll() == 4
    assert setting.model.take_changes().rejected == 0


def test_a_rejected_version_is_tried_again_when_its_files_change(setting: Setting) -> None:
    setting.model.call(x_feeds(1))
    version = setting.write("2")
    (version / SHARD).unlink()
    assert setting.poll(4) == 1
    (version / SHARD).write_bytes(b"shard")
    assert setting.poll() == 2
    assert setting.model.take_changes().rejected == 1
    assert [line.split(":")[0] for line in setting.logged()] == ["WARNING Model BASE", "INFO Model BASE"]


def test_a_version_that_is_written_over_is_read_anew(setting: Setting) -> None:
    setting.poll()
    setting.write("2", y=FLOAT)
    assert setting.poll() == 1
    shutil.rmtree(setting.base / "2")
    setting.write("2")
    assert setting.poll() == 2


def test_a_version_that_is_being_copied_waits_until_it_is_whole_and_steady(setting: Setting, tmp_path: Path) -> None:
    whole = write_version(tmp_path / "elsewhere", "2")
    parts = ["saved_model.pb", "variables/variables.index", SHARD]
    assert setting.poll() == 1
    (setting.base / "2/variables").mkdir(parents=True)
    for part in parts:
        content = (whole / part).read_bytes()
        for end in (len(content) // 2, len(content)):
            (setting.base / "2" / part).write_bytes(content[:end])
            assert setting.poll(1) == 1
    assert setting.poll(1) == 2
    assert setting.model.take_changes().rejected == 0 and setting.opener.opened == [1, 2]


def test_of_several_the_newest_that_is_fit_for_use_is_followed(setting: Setting) -> None:
    assert setting.poll() == 1
    for name in ("0009", "10", "11"):
        setting.write(name)
    garbage(setting.base / "11")
    setting.opener.errors[10] = ModelNotFound("no")
    assert setting.poll() == 9
    assert setting.opener.opened == [1, 10, 9]
    assert setting.model.take_changes().rejected == 2


def test_a_version_that_is_removed_is_gone_back_from(setting: Setting) -> None:
    for name in ("2", "3", "4"):
        setting.write(name)
    assert setting.poll() == 4
    shutil.rmtree(setting.base / "4")
    no_shard(setting.base / "3")
    assert setting.poll(1) == 4
    assert setting.poll(1) == 2
    assert setting.opener.models[4].closed
    shutil.rmtree(setting.base / "2")
    shutil.rmtree(setting.base / "3")
    assert setting.poll() == 1


def test_where_no_version_is_left_the_last_one_stays(setting: Setting) -> None:
    setting.poll()
    for _ in range(2):
        shutil.rmtree(setting.base / "1")
        assert setting.poll(3) == 1
        assert setting.logged() == ["WARNING Model BASE: no version is there any more, and version 1 stays"]
        setting.write("1")
        assert setting.poll() == 1 and not setting.logged()
    assert setting.model.call(x_feeds(1)).arrays["y"].tolist() == [2]
    shutil.rmtree(setting.base / "1")
    setting.write("2")
    assert setting.poll() == 2


def test_a_version_in_use_that_is_written_over_is_left_alone(setting: Setting) -> None:
    setting.poll()
    garbage(setting.base / "1")
    assert setting.poll(3) == 1
    assert setting.opener.opened == [1] and not setting.logged()


@pytest.mark.parametrize("fault", [OSError("no network"), RuntimeError("a library's own error")])
def test_a_base_path_that_cannot_be_read_is_looked_at_again(setting: Setting, fault: Exception) -> None:
    setting.poll()
    for _ in range(2):
        setting.files.fault = fault
        assert setting.poll(3) == 1
        setting.files.fault = None
        assert setting.logged() == [
            "WARNING Model BASE: looking for other versions fails, and version 1 stays until it works again: "
            f"{type(fault).__name__}: {fault}"
        ]
        assert setting.poll() == 1
        assert setting.logged() == ["INFO Model BASE: looking for other versions works again"]
    setting.write("2")
    assert setting.poll() == 2
    assert setting.model.take_changes().rejected == 0


def test_a_version_that_cannot_be_read_now_is_not_rejected(setting: Setting) -> None:
    error = ModelNotFound("it is not a SavedModel")
    error.__cause__ = PermissionError("not yours")
    setting.poll()
    setting.write("2")
    setting.opener.errors[2] = error
    assert setting.poll(4) == 1
    del setting.opener.errors[2]
    assert setting.poll(1) == 2
    assert setting.model.take_changes().rejected == 0
    assert len(setting.logged()) == 3  # it fails, it works again, and the swap


def test_outputs_that_a_version_has_besides_are_not_asked_for(setting: Setting) -> None:
    setting.poll()
    setting.write("2", more=FLOAT)
    assert setting.poll() == 2
    assert [options.outputs for options in setting.opener.options] == [(), ("text", "y")]
    assert [spec.name for spec in setting.model.signature.outputs] == ["text", "y"]
