"""Which way a model is run, and that the first way imports no Python TensorFlow."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sluice.models.cache import open_model
from sluice.models.errors import ModelNotFound, TimedOut, UsageError
from sluice.models.files import LocalFiles
from sluice.models.interface import Model, ModelOptions
from sluice.models.saved_model.native.library import Library, open_library
from sluice.models.saved_model.native.session import Session
from sluice.models.saved_model.python_ways import PythonSession
from sluice.models.saved_model.reasons import NoSuchTensor, TensorFlowError
from sluice.models.saved_model.signature_reader import read_signatures
from sluice.models.saved_model.versions import read_meta_graph
from sluice.models.saved_model.ways import load
from tests.support.fakes import PATIENCE_SECS
from tests.support.processes import Forked
from tests.support.saved_models.twins import same
from tests.support.steps import Step, run_steps

# Opens a model, binds a column of text, and calls it. TensorFlow has lines of its own to say when it is
# loaded, which nobody sees.
_OPEN = """
import os
import pyarrow as pa
from sluice.models.cache import open_model
model = open_model(MODEL)
(group,) = model.bind(pa.RecordBatch.from_pydict({"text": ["one", "two" * 20]})).groups
answer = model.call(group.feeds)
assert answer.arrays["upper"].tolist() == [b"ONE", b"TWO" * 20]
assert os.fstat(2).st_size == 0
"""
# Serves a model to a client of our own.
_SERVE = """
import pyarrow as pa
from sluice.models.cache import open_model
from sluice.models.server.reference import ReferenceServer
with ReferenceServer({"m": MODEL}) as server:
    for uri in (f"grpc://127.0.0.1:{server.grpc_port}/m", f"http://127.0.0.1:{server.rest_port}/v1/models/m"):
        model = open_model(uri)
        (group,) = model.bind(pa.RecordBatch.from_pydict({"text": ["one"]})).groups
        assert model.call(group.feeds).arrays["upper"].tolist() == [b"ONE"]
        model.close()
"""
# Scores a file.
_BATCH = """
from sluice.pipelines.cli import main
assert main(["batch", "--model", MODEL, "--input", ROWS, "--output", ROWS + ".jsonl"]) == 0
"""
# What a worker of any runner does: it unpickles the DoFn, sets it up, and gives it a bundle.
_WORKER = """
import apache_beam as beam
import pyarrow as pa
from apache_beam.internal import pickler
from sluice.models.cache import ModelRecipe
from sluice.models.uri import parse_model_uri
from sluice.transforms.core.beam_files import BeamFiles
from sluice.transforms.predict.batches import PredictBatches
recipe = ModelRecipe(parse_model_uri(MODEL))
do_fn = pickler.loads(pickler.dumps(PredictBatches(recipe, "", BeamFiles(), False)))
do_fn.setup()
do_fn.start_bundle()
window, now = beam.transforms.window.GlobalWindow(), beam.utils.timestamp.Timestamp(0)
made = [*do_fn.process(pa.RecordBatch.from_pydict({"text": ["one", "two"]}), window, now), *do_fn.finish_bundle()]
assert [row["upper"] for each in made for row in each.value.to_pylist()] == ["ONE", "TWO"], made
do_fn.teardown()
"""
# A stream over a subscription in memory, by the graph of `sluice streaming`, until its messages are acknowledged.
_STREAM = """
import threading
from sluice.pipelines.dataflow.runner import beam_options
from sluice.pipelines.options.streaming import StreamingOptions
from sluice.pipelines.plan.streaming_job import plan_streaming
from sluice.pipelines.streaming import _segment
from sluice.transforms.pubsub.message_buffer import BundleOptions
from sluice.transforms.pubsub.source_parts import SourceOptions
from sluice.transforms.pubsub.read_local import close_source, open_source
from tests.support.pubsub.memory_subscription import MemorySubscription
name, output = "projects/project/subscriptions/memory", ROWS + ".streamed.jsonl"
plan = plan_streaming(
    StreamingOptions(model=MODEL, input_subscription=name, output=output, failures=ROWS + ".failed"), False
)
subscription = MemorySubscription(name)
source = open_source(subscription, SourceOptions(BundleOptions(interval_secs=0.0, idle_secs=0.02), pull_threads=1))
thread = threading.Thread(target=_segment(plan, beam_options([])), daemon=True)
thread.start()
subscription.publish([b'{"text": "one"}', b'{"text": "two"}', b"no JSON"])
while thread.is_alive() and len(subscription.acknowledged) < 3:
    thread.join(0.05)
source.drain()
thread.join()
close_source(source)
assert len(subscription.acknowledged) == 3
"""
# Python TensorFlow, and what Beam uses of TFX, where models of the C API have been called.
_AFTER = """
from tests.models.saved_model.native import test_ways
test_ways.answer_alike(test_ways.open_native(MODEL), test_ways.open_python(MODEL))
"""
_OURS_ALONE = {"tensorflow", "keras", "tensorflow_serving"}
# One process runs them, in this order.
_STEPS = {
    "open": Step(_OPEN, _OURS_ALONE),
    "serve": Step(_SERVE, _OURS_ALONE),
    "worker of Dataflow": Step(_WORKER, {"tensorflow", "keras"}),
    "batch": Step(_BATCH, {"tensorflow", "keras"}),
    "streaming": Step(_STREAM, {"tensorflow", "keras"}),
    "Python TensorFlow afterwards": Step(_AFTER, set()),
}


@pytest.fixture(scope="module")
def wrong(cases: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is wrong with each step."""
    directory = tmp_path_factory.mktemp("ways")
    rows = directory / "rows.csv"
    rows.write_text("text\none\ntwo\n")
    return run_steps(_STEPS, directory, MODEL=cases("string_only"), ROWS=str(rows))


@pytest.mark.job
@pytest.mark.parametrize("name", _STEPS)
def test_a_command_does_without_python_tensorflow(name: str, wrong: dict[str, str]) -> None:
    """And where another library imports it later, both work."""
    assert wrong[name] == ""


def open_native(directory: str) -> Model:
    model = open_model(directory)
    assert isinstance(model._way, Session)  # type: ignore[attr-defined]
    return model


def open_python(directory: str) -> Any:
    import tensorflow as tf
    from tfx_bsl.coders import example_coder

    rows = pa.RecordBatch.from_pydict({"text": [[b"one"], [b"two"]]})
    assert len(example_coder.RecordBatchToExamplesEncoder().encode(rows)) == 2
    assert tf.strings.upper(["one"]).numpy().tolist() == [b"ONE"]
    return tf.saved_model.load(directory)


def answer_alike(model: Model, loaded: Any) -> None:
    """Calls a model of the C API, and the same one of Python TensorFlow, in turn."""
    for _ in range(3):
        found = call(model, text=["one", "two" * 20])["upper"]
        wanted = loaded.signatures["serving_default"](text=np.array([b"one", b"two" * 20], object))
        assert found == wanted["upper"].numpy().tolist() == [b"ONE", b"TWO" * 20]
    model.close()


def open_python_first(directory: str) -> None:
    """In a fork of a process that has imported Python TensorFlow, and has not loaded a model."""
    assert "tensorflow" in sys.modules
    loaded = open_python(directory)
    answer_alike(open_native(directory), loaded)
    print("done", flush=True)


@pytest.mark.job
def test_python_tensorflow_may_come_first(cases: Callable[[str], str], tmp_path: Path) -> None:
    printed = tmp_path / "printed"
    process = Forked(open_python_first, cases("string_only"), output=str(printed))
    assert process.wait(PATIENCE_SECS) == 0, printed.read_text()
    assert printed.read_text().splitlines()[-1] == "done"


def call(model: Model, **columns: Any) -> dict[str, Any]:
    (group,) = model.bind(pa.RecordBatch.from_pydict(columns)).groups
    return {name: np.asarray(array).tolist() for name, array in model.call(group.feeds).arrays.items()}


@pytest.mark.slow
def test_a_model_whose_graph_leaves_variables_unset_is_run_by_python(
    cases: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "sluice"):
        model = open_model(cases("keras3_saved"))
    assert "is run by Python TensorFlow: its graph does not restore 2 of its variables" in caplog.text
    (given,), (output,) = model.signature.inputs, model.signature.outputs
    assert call(model, **{given.name: [1.0, -4.0]})[output.name] == [[2.5], [-7.5]]
    model.close()


def test_an_op_that_is_not_there_is_named_with_what_to_do(tmp_path: Path, cases: Callable[[str], str]) -> None:
    content = Path(cases("no_variables"), "saved_model.pb").read_bytes()
    (tmp_path / "saved_model.pb").write_bytes(content.replace(b"AddV2", b"AddV9"))
    with pytest.raises(ModelNotFound, match="it has no op AddV9; give the library that has it with --op_libraries"):
        open_model(str(tmp_path))


class OtherVersion(Library):
    """A library of TensorFlow 3."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self.version = "3.0.0"


class OtherStrings(Library):
    """A library whose strings are not those that are known."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self.TF_StringCopy = lambda entry, value, size: None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (OtherVersion, "its version is 3.0.0"),
        (OtherStrings, r"strings of version 2\.\d+\.\d+ have another layout"),
        (lambda directory: Library(f"{directory}/nowhere"), "cannot open shared object"),
    ],
)
def test_a_library_that_is_not_known_is_not_used(
    make: Callable[[str], Library], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    spec = importlib.util.find_spec("tensorflow")
    assert spec is not None and spec.submodule_search_locations
    assert open_library(spec.submodule_search_locations[0], make) is None
    assert re.search(f"TensorFlow's C API is not used, and its Python API is.*{words}", caplog.text)


@pytest.mark.slow
def test_without_the_c_api_the_python_session_serves(cases: Callable[[str], str]) -> None:
    directory = cases("multi_label")
    meta_graph = read_meta_graph(directory, LocalFiles())
    signature = read_signatures(meta_graph)["serving_default"]
    way = load(directory, meta_graph, ModelOptions(), signature, lambda: None)
    assert isinstance(way, PythonSession)
    fetches = [name for spec in signature.outputs for name in spec.tensors]
    run = way.prepare([spec.tensors[0] for spec in signature.inputs], fetches)
    feeds = [np.array([[0.25, 0.75]], np.float32)]
    twin = load(directory, meta_graph, ModelOptions(), signature)
    assert all(map(same, run(feeds), twin.prepare([signature.inputs[0].tensors[0]], fetches)(feeds)))
    with pytest.raises(NoSuchTensor):
        way.prepare([], ["nothing:0"])
    with pytest.raises(TensorFlowError):
        run([np.array([[1.0]], np.float32)])
    way.close()
    twin.close()


@pytest.mark.parametrize("content", [None, b"no library"])
def test_a_library_of_ops_that_cannot_be_loaded(
    content: bytes | None, tmp_path: Path, cases: Callable[[str], str]
) -> None:
    path = tmp_path / "ops.so"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"--op_libraries .*ops\.so (is no file|cannot be loaded)"):
        open_model(cases("picky"), ModelOptions(op_libraries=(str(path),)))


def test_a_call_that_passes_the_time_limit(cases: Callable[[str], str]) -> None:
    model = open_model(cases("loop"), ModelOptions(time_limit_secs=0.2))
    with pytest.raises(TimedOut):
        call(model, x=[1e9])
    give_up = time.monotonic() + PATIENCE_SECS
    while time.monotonic() < give_up:  # on a busy machine a short call may pass the limit as well
        with contextlib.suppress(TimedOut):
            assert call(model, x=[2.0]) == {"y": [6.0]}
            break
    else:
        pytest.fail("no call is answered any more")
    model.close()
