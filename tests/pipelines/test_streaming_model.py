"""A model whose versions come and go under a streaming job."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.pubsub.streams import Ends, LocalJob, make_ends
from tests.support.saved_models.followed import export_version
from tests.support.servers import Pubsub


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 to 4, of which 3 fails on any row."""
    base = tmp_path_factory.mktemp("exported")
    for number in range(1, 5):
        export_version(str(base / str(number)), number, fails=number == 3)
    return base


class Load:
    """Publishes some 500 messages a second while the `with` block runs."""

    def __init__(self, ends: Ends) -> None:
        self.published = 0
        self._ends = ends
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            numbers = range(self.published, self.published + 10)
            self._ends.publish([b'{"x": %d}' % number for number in numbers], [{"id": str(n)} for n in numbers])
            self.published += 10


def test_versions_that_come_and_go_under_load(
    pubsub: Pubsub, exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """1 to 2, past a broken 3, to 4, and back: no row fails, each says which version it is of, and none is of 3."""
    base, ends = tmp_path / "model", make_ends(pubsub)
    shutil.copytree(exported / "1", base / "1")

    def put(number: int) -> None:
        shutil.copytree(exported / str(number), tmp_path / "coming")
        os.rename(tmp_path / "coming", base / str(number))

    flags = [f"--model={base}", *ends.flags, "--model_poll_secs=0.2"]
    with LocalJob(flags) as job, Load(ends) as load:
        job.wait_for(200)
        put(2)
        job.wait_for(1, "model_swaps")
        put(3)
        job.wait_for(1, "model_versions_rejected")
        put(4)
        job.wait_for(2, "model_swaps")
        now = job.figures()
        assert now["stuck_after_secs"] == 600 + 2 * 605, "what a call and its second try may take is no standstill"
        job.wait_for(now["messages"] + 200)
        shutil.rmtree(base / "4")
        shutil.rmtree(base / "3")
        job.wait_for(3, "model_swaps")
        load.__exit__()
        job.wait_for(load.published)
        assert job.stop() == 0
    messages = ends.predictions(load.published)
    assert Counter(Counter(message.attributes["id"] for message in messages).values()) == {1: load.published}
    for message in messages:
        row, version = json.loads(message.data), int(message.attributes["sluice_version"])
        assert row["y"] == row["x"] + 1000 * version
    assert runs([int(message.attributes["sluice_version"]) for message in in_order(messages)]) == [1, 2, 4, 2]
    assert job.summary["failures"] == 0
    assert (job.summary["model_swaps"], job.summary["model_versions_rejected"]) == (3, 1)
    assert "version 3 is not taken" in caplog.text


def in_order(messages: list[Any]) -> list[Any]:
    """By the number of the row: the order in which they were published, and, by one bundle after the other, scored."""
    return sorted(messages, key=lambda message: (message.publish_time, int(message.attributes["id"])))


def runs(versions: list[int]) -> list[int]:
    """The versions, each once as long as it lasts."""
    return [version for place, version in enumerate(versions) if not place or versions[place - 1] != version]
