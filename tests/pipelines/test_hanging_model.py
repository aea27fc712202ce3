"""A SavedModel whose kernel hangs: it reads a pipe that nobody writes to. Every command ends, and says so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sluice.models.batching.watchdog import hanging
from sluice.models.cache import ModelRecipe, clear_cache, open_model, open_scheduler
from sluice.models.errors import ModelHangs
from sluice.models.interface import ModelOptions
from sluice.models.protos import message_class
from sluice.models.tensors.tfrecord import write_records
from sluice.models.uri import parse_model_uri
from tests.support.fakes import PATIENCE_SECS, x_feeds
from tests.support.processes import sluice
from tests.support.pubsub.streams import ProcessJob, make_ends, wait_until
from tests.support.saved_models.faulty import build_file_reader
from tests.support.servers import Pubsub
from tests.support.serving.model_servers import RestClient, served

LIMIT = "--model_timeout_secs=0.3"
SAYS = "has not ended in time, nor when it was tried once more"
CALL = "signature 'serving_default': a call of [x int64 [3]] " + SAYS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base path of a model that reads a pipe in each call. In the end there is a writer, so that calls end."""
    directory = tmp_path_factory.mktemp("hanging")
    pipe = directory / "pipe"
    os.mkfifo(pipe)
    build_file_reader(directory / "model" / "1", pipe)
    yield str(directory / "model")
    writer = os.open(pipe, os.O_RDWR)
    os.write(writer, b"x" * 1000)
    os.close(writer)
    wait_until(lambda: not hanging(), "the end of the calls")
    clear_cache()


def test_a_batch_job_ends_and_publishes_nothing(model: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("x\n1\n2\n3\n")
    log = tmp_path / "log"
    flags = [f"--model={model}", f"--input={tmp_path}/in.csv", f"--output={tmp_path}/out/out.csv", LIMIT]
    job = sluice("batch", *flags, "--progress=none", output=str(log))
    assert job.wait(PATIENCE_SECS * 4) == 1
    assert "no output was published" in log.read_text() and CALL in log.read_text()
    assert not list((tmp_path / "out").glob("*")), "no temporary file is left"


def test_a_streaming_job_ends_and_acknowledges_nothing(model: str, pubsub: Pubsub) -> None:
    ends = make_ends(pubsub)
    ends.publish([b'{"x": 1}'] * 3)
    with ProcessJob([f"--model={model}", *ends.flags, LIMIT]) as job:
        assert job.process.wait(PATIENCE_SECS * 4) == 1
        assert "the job failed after 0 restart(s)" in job.log() and SAYS in job.log()
    assert len(pubsub.pull_all(ends.subscription, 3, 60.0)) == 3


def test_a_library_gets_an_exception(model: str) -> None:
    scheduler = open_scheduler(ModelRecipe(parse_model_uri(model), ModelOptions(time_limit_secs=0.3)))
    for _ in range(2):
        with pytest.raises(ModelHangs) as raised:
            scheduler.submit(x_feeds(1, 2, 3)).future.result(PATIENCE_SECS)
        assert CALL in str(raised.value)
    assert hanging() >= 2
    scheduler.close()


def test_a_warm_up_request_that_hangs_is_said(model: str, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    log = message_class("tensorflow.serving.PredictionLog")()
    tensor = log.predict_log.request.inputs["x"]
    tensor.dtype = 9
    tensor.tensor_shape.dim.add(size=1)
    tensor.int64_val.append(1)
    (tmp_path / "model/1/assets.extra").mkdir()
    with open(tmp_path / "model/1/assets.extra/tf_serving_warmup_requests", "wb") as file:
        write_records(file, [log.SerializeToString()])
    with pytest.raises(ModelHangs, match="a warm-up request has not ended in time"):
        open_model(str(tmp_path / "model"), ModelOptions(time_limit_secs=0.3))


def test_a_server_answers_and_ends(model: str) -> None:
    with served({"m": model}, LIMIT) as server:
        client = RestClient(server.rest_port)
        status, answer = client.predict("m", {"inputs": [1, 2, 3]})
        assert status == 503 and "model m, version 1: a call of [serving_default_x:0 [3]] " + SAYS in answer["error"]
        client.close()
        assert server.wait() == 1
