"""A stream whose model is broken for a while by what is around it, or has never worked."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sluice.models.cache import clear_cache
from tests.support.pubsub.streams import Ends, LocalJob, ask, make_ends, wait_until
from tests.support.saved_models.faulty import POISON, build_file_reader
from tests.support.servers import Pubsub
from tests.support.sizes import size

COUNT = size(600, soak=20_000)
BREAKS_AT = size(150, soak=5000)
AWAY_SECS = size(0, soak=30)


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Path]:
    """The base path of a model that reads the file "marker" beside it in each call."""
    build_file_reader(tmp_path / "model" / "1", tmp_path / "marker")
    (tmp_path / "marker").write_text("here")
    yield tmp_path / "model"
    clear_cache()


def publish(ends: Ends, numbers: range) -> None:
    ends.publish([b'{"x": %d}' % number for number in numbers], [{"id": str(number)} for number in numbers])


@pytest.mark.soak
@pytest.mark.parametrize(("max_retry_secs", "figure"), [(300, "throttled_seconds"), (0, "restarts")])
def test_a_model_that_breaks_and_heals_costs_no_message(
    max_retry_secs: int,
    figure: str,
    pubsub: Pubsub,
    model: Path,
    tmp_path: Path,
) -> None:
    """The calls wait, and so does reading once they have waited for --max_retry_secs. One message is at fault."""
    ends = make_ends(pubsub)
    numbers = range(1000, 1000 + COUNT)
    publish(ends, numbers[:BREAKS_AT])
    flags = [f"--model={model}", *ends.flags, f"--max_retry_secs={max_retry_secs}", "--max_bundle_messages=500"]
    with LocalJob(flags) as job:
        job.wait_for(BREAKS_AT)
        os.rename(tmp_path / "marker", tmp_path / "away")
        broke = time.monotonic()
        publish(ends, numbers[BREAKS_AT:])
        publish(ends, range(POISON, POISON + 1))
        job.wait_for(1, figure)
        wait_until(lambda: ask(job.port, "/healthz")[1].get("state") == "paused", "a pause")
        assert (ask(job.port, "/healthz")[0], ask(job.port, "/readyz")[0]) == (200, 503)
        wait_until(lambda: time.monotonic() - broke >= AWAY_SECS, "the time that the model is away")
        before = job.figures()["messages"]
        os.rename(tmp_path / "away", tmp_path / "marker")
        job.wait_for(COUNT + 1)
        assert job.stop() == 0
    assert before == BREAKS_AT, "nothing is acknowledged while the model is away"
    predicted = {message.attributes["id"] for message in ends.predictions(COUNT)}
    assert predicted == {str(number) for number in numbers}
    (failure,) = ends.failed(1)
    assert ends.failed(1, secs=1.0) == []
    assert failure["attributes"]["id"] == str(POISON) and "x must not be 13" in failure["error_message"]
    print(f"{len(predicted):,} of {COUNT:,} predicted; {job.summary}")


def test_a_model_that_has_never_worked_ends_the_job_and_acknowledges_nothing(
    pubsub: Pubsub, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.remove(tmp_path / "marker")
    ends = make_ends(pubsub)
    publish(ends, range(1000, 2200))
    with LocalJob([f"--model={model}", *ends.flags]) as job:
        assert job.wait() == 3
    assert job.summary["predictions"] == 0
    reason = r"has never answered: all \d+ rows of the first \d+ s failed, the first with: .*NOT_FOUND: .*marker"
    assert re.search(reason, capsys.readouterr().err)
    assert ends.failed(1, secs=1.0) == []
    assert len({each.message.attributes["id"] for each in pubsub.pull_all(ends.subscription, 1200, 60.0)}) == 1200
