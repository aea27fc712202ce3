"""Devices of a model: where its ops really run, with three devices of one CPU in place of GPUs."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import logging
import os
import platform
import re
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sluice.models.cache import ModelRecipe, open_model, open_scheduler
from sluice.models.devices import DeviceOptions
from sluice.models.errors import ModelNotFound, UsageError
from sluice.models.files import LocalFiles
from sluice.models.interface import ModelOptions
from sluice.models.protos import message_class
from sluice.models.saved_model.copies import Copies, Spread
from sluice.models.saved_model.native.library import load_library
from sluice.models.saved_model.placement import place_nodes
from sluice.models.saved_model.reasons import TensorFlowError
from sluice.models.saved_model.signature_reader import read_signatures
from sluice.models.saved_model.start_line import served_line, versions
from sluice.models.saved_model.versions import read_meta_graph
from sluice.models.saved_model.way import Way
from sluice.models.saved_model.ways import load
from sluice.models.signature import Signature
from sluice.models.tensors.binding import Feeds
from sluice.models.uri import parse_model_uri
from tests.support.fakes import PATIENCE_SECS
from tests.support.processes import Forked
from tests.support.saved_models.cases import CASES
from tests.support.saved_models.rows import feeds_of
from tests.support.saved_models.traces import traced
from tests.support.saved_models.twins import same

# Python TensorFlow is the second loader.
LOADERS = [pytest.param(True, id="native"), pytest.param(False, id="python", marks=pytest.mark.slow)]


def three_cpus(*devices: str, **options: Any) -> ModelOptions:
    return ModelOptions(devices=DeviceOptions(devices, cpu_devices=3, **options))


def opened(
    directory: str, options: ModelOptions, native: bool = True, name: str = "serving_default"
) -> tuple[Way, Signature]:
    meta_graph = read_meta_graph(directory, LocalFiles())
    signature = read_signatures(meta_graph)[name]
    find = load_library if native else lambda: None
    return load(directory, meta_graph, options, signature, find), signature


def ops_by_device(way: Way, signature: Signature, feeds: Feeds) -> dict[str, list[str]]:
    return traced(way, *names_of(signature), [feeds[spec.name] for spec in signature.inputs])


def names_of(signature: Signature) -> tuple[list[str], list[str]]:
    feeds = [spec.tensors[0] for spec in signature.inputs]
    return feeds, [name for spec in signature.outputs for name in spec.tensors]


# Reference variables and a table; partitioned variables; functions; a graph without any.
PLACED = ("tf1_estimator_predict", "tf1_predict", "multi_label", "string_only", "no_variables")


@pytest.mark.parametrize("name", PLACED)
@pytest.mark.parametrize("placement", ["soft", "strict"])
@pytest.mark.parametrize("native", LOADERS)
def test_every_op_of_a_call_runs_on_the_device(
    name: str, placement: str, native: bool, cases: Callable[[str], str]
) -> None:
    case = next(case for case in CASES if case.name == name)
    way, signature = opened(cases(name), three_cpus("CPU:2", placement=placement), native, case.signature)
    found = ops_by_device(way, signature, feeds_of(case, signature)[0])
    way.close()
    assert list(found) == ["CPU:2"] and found["CPU:2"]


@pytest.mark.parametrize("native", LOADERS)
def test_a_copy_is_loaded_on_each_device_and_called_in_turn(native: bool, cases: Callable[[str], str]) -> None:
    case = next(case for case in CASES if case.name == "tf1_predict")
    way, signature = opened(cases(case.name), three_cpus("CPU:1", "CPU:2"), native, case.signature)
    assert isinstance(way, Copies)
    feeds = feeds_of(case, signature)[0]
    assert [list(ops_by_device(each, signature, feeds)) for each in way._ways] == [["CPU:1"], ["CPU:2"]]
    run = way.prepare(*names_of(signature))
    tensors = [feeds[spec.name] for spec in signature.inputs]
    answers = [run(tensors) for _ in range(4)]
    assert all(same(found, wanted) for answer in answers for found, wanted in zip(answer, answers[0], strict=True))
    assert run._begun == [2, 2]
    way.close()


def test_calls_go_to_the_copy_with_the_least_in_flight() -> None:
    """Three calls at a time, of which one stays: the others share the other two copies."""
    entered, stay = threading.Event(), threading.Event()
    calls = [0, 0, 0]

    def copy(at: int) -> Callable[[Any], list[Any]]:
        def run(tensors: Any) -> list[Any]:
            calls[at] += 1
            if tensors == "long":
                entered.set()
                assert stay.wait(PATIENCE_SECS)
            if tensors == "bad":
                raise TensorFlowError(3, "bad")
            return [at]

        return run

    spread = Spread([copy(at) for at in range(3)])
    long = threading.Thread(target=spread, args=("long",))
    long.start()
    assert entered.wait(PATIENCE_SECS)
    for turn in range(10):
        with pytest.raises(TensorFlowError) if turn % 3 == 0 else contextlib.nullcontext():
            spread("bad" if turn % 3 == 0 else "short")
    stay.set()
    long.join(PATIENCE_SECS)
    assert calls == [1, 5, 5]
    assert [spread("short") for _ in range(4)] == [[0]] * 4  # it has had the least calls


def test_a_scheduler_has_as_many_calls_in_flight_as_copies(cases: Callable[[str], str]) -> None:
    for options, wanted in ((three_cpus("CPU:1", "CPU:2"), 2), (ModelOptions(), 1)):
        recipe = ModelRecipe(parse_model_uri(cases("multi_label")), options)
        scheduler = open_scheduler(recipe)
        assert scheduler.in_flight_limit == wanted
        scheduler.close()


@pytest.mark.parametrize("native", LOADERS)
@pytest.mark.parametrize("placement", ["soft", "strict"])
def test_a_device_that_is_not_there(native: bool, placement: str, cases: Callable[[str], str]) -> None:
    options = three_cpus("CPU:1", "GPU:0", "CPU:3", placement=placement)
    with pytest.raises(UsageError, match=r"--device GPU:0,CPU:3: .* no such device here; it has CPU:0, CPU:1, CPU:2$"):
        opened(cases("multi_label"), options, native)


@pytest.mark.parametrize("native", LOADERS)
@pytest.mark.parametrize("name", ["gpu_in_function", "gpu_in_graph"])
def test_a_graph_that_names_a_device_which_is_not_there(native: bool, name: str, cases: Callable[[str], str]) -> None:
    directory = cases(name)
    with pytest.raises(
        ModelNotFound, match=r"its node '.+' is on GPU:3, and TensorFlow has CPU:0, CPU:1, CPU:2; --dev"
    ):
        opened(directory, three_cpus(placement="strict"), native)
    for options in (three_cpus(), three_cpus("CPU:1"), three_cpus("CPU:1", placement="strict")):
        way, signature = opened(directory, options, native)
        x = np.array([1.5, -2.0], np.float32)
        (answer,) = way.prepare(*names_of(signature))([x])
        assert answer.tolist() == [3.0, -4.0]
        if options.devices.devices:
            assert list(ops_by_device(way, signature, {"x": x})) == ["CPU:1"]
        way.close()


def test_what_an_exporter_keeps_on_the_cpu_stays_there() -> None:
    meta_graph = message_class("tensorflow.MetaGraphDef")()
    for device in ("", "/device:CPU:0", "/gpu:1", "/job:a/replica:0/task:1/device:GPU:0", "/device:TPU:*"):
        meta_graph.graph_def.node.add(name=f"n{len(meta_graph.graph_def.node)}", device=device)
    place_nodes(meta_graph, "GPU:2", strict=False)
    wanted = ["/device:GPU:2", "/device:CPU:0", "/device:GPU:2", "/device:GPU:2", "/device:GPU:2"]
    assert [node.device for node in meta_graph.graph_def.node] == wanted


def test_strict_reaches_the_bodies_of_functions() -> None:
    """Else TensorFlow would run an op of a function elsewhere: the call's own ConfigProto says soft."""
    meta_graph = message_class("tensorflow.MetaGraphDef")()
    soft = message_class("tensorflow.ConfigProto")(allow_soft_placement=True).SerializeToString()
    call = meta_graph.graph_def.node.add(name="call", op="PartitionedCall")
    call.attr["f"].func.name = "body"
    call.attr["config_proto"].s = soft
    meta_graph.graph_def.node.add(name="restore", op="RestoreV2")
    body = meta_graph.graph_def.library.function.add()
    body.signature.name = "body"
    body.node_def.add(name="add", op="Add")
    meta_graph.signature_def["serve"].outputs["y"].name = "call:0"
    place_nodes(meta_graph, "GPU:0", strict=True)
    found = message_class("tensorflow.ConfigProto").FromString(call.attr["config_proto"].s)
    assert not found.allow_soft_placement
    nodes = [*meta_graph.graph_def.node, *body.node_def]
    assert [(node.name, node.device) for node in nodes] == [
        ("call", "/device:GPU:0"),
        ("restore", ""),
        ("add", "/device:GPU:0"),
    ]


def test_the_placed_graph_is_removed_once_it_is_loaded(
    cases: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = Path(cases("multi_label"), "saved_model.pb").read_bytes()
    model = open_model(cases("multi_label"), three_cpus("CPU:1"))
    assert os.listdir(tmp_path) == []
    assert Path(cases("multi_label"), "saved_model.pb").read_bytes() == before
    model.close()


def test_a_line_says_where_and_how_a_model_runs(cases: Callable[[str], str], caplog: pytest.LogCaptureFixture) -> None:
    options = dataclasses.replace(three_cpus("CPU:1", "CPU:2"), intra_op_threads=2, inter_op_threads=3)
    with caplog.at_level(logging.INFO, "sluice"):
        for each in (options, ModelOptions()):
            open_model(cases("multi_label"), each).close()
    cores = len(os.sched_getaffinity(0))
    places = ("CPU:1 and CPU:2", 2, 3), ("CPU:0", cores, cores)
    for record, (devices, within, across) in zip(caplog.records, places, strict=True):
        assert re.fullmatch(
            rf"Model {cases('multi_label')}: is loaded on {devices} by the C API of TensorFlow 2\.\d+\.\d+; "
            rf"threads: {within} within an op, {across} across ops; memory of this process: \d{{2,}} MB"
            r"(; Sluice \d\S*, Apache Beam \d\S*, Python \d\S*)?",
            record.getMessage(),
        )


def test_a_job_s_line_has_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apache_beam", sys)
    beam, sluice = importlib.metadata.version("apache-beam"), importlib.metadata.version("sluice")
    assert versions() == f"; Sluice {sluice}, Apache Beam {beam}, Python {platform.python_version()}"
    told = r"Model grpc://h/m: is served; cores of this process: \d+; its memory: \d+ MB; Sluice \d.*"
    assert re.fullmatch(told, served_line("grpc://h/m"))
    monkeypatch.delitem(sys.modules, "apache_beam")
    assert versions() == "", "a command of a few rows does not look for them"


def run_restored(directory: str) -> None:
    """Calls a model whose graph does not restore its variable, so that Python runs it; says where the variable is."""
    options = ModelOptions(devices=DeviceOptions(("CPU:2", "CPU:1"), "strict", cpu_devices=3))
    model: Any = open_model(directory, options)
    for way in model._way._ways:
        devices = {variable.device.rpartition("device:")[2] for variable in way._function.captured_inputs}
        print(devices, model.call({"x": np.ones(2, np.float32)}).arrays["y"].tolist())
    try:
        open_model(directory, ModelOptions(devices=DeviceOptions(("CPU:3",), cpu_devices=3)))
    except UsageError as error:
        print("UsageError", error, flush=True)


@pytest.mark.slow
def test_a_model_that_python_restores_runs_on_its_devices_too(cases: Callable[[str], str], tmp_path: Path) -> None:
    """In a process of its own: TensorFlow has as many devices as it was first used with."""
    printed, errors = tmp_path / "printed", tmp_path / "errors"
    process = Forked(run_restored, cases("unrestored"), output=str(printed), errors=str(errors))
    assert process.wait(PATIENCE_SECS) == 0, errors.read_text()
    assert printed.read_text().splitlines() == [
        "{'CPU:2'} [2.5, 2.5]",
        "{'CPU:1'} [2.5, 2.5]",
        "UsageError --device CPU:3: TensorFlow has no such device here; it has CPU:0, CPU:1, CPU:2",
    ]
