"""Ops that TensorFlow lacks are found before a job starts, wherever it runs."""

from __future__ import annotations

import _ctypes
from collections.abc import Callable
from pathlib import Path

import pytest

from sluice.models.devices import DeviceOptions
from sluice.models.errors import ModelNotFound, UsageError
from sluice.models.files import LocalFiles
from sluice.models.saved_model.launch import check_ops
from sluice.models.saved_model.session_options import SessionOptions
from sluice.models.saved_model.versions import read_meta_graph
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.streaming import StreamingOptions
from sluice.pipelines.plan.batch_job import plan_batch
from sluice.pipelines.plan.streaming_job import plan_streaming

WORDS = "it has no op AddV9; give the library that has it with --op_libraries"
# A library that is here, and has no ops.
OTHER = _ctypes.__file__


@pytest.fixture
def lacking(tmp_path: Path, cases: Callable[[str], str]) -> str:
    """A model with an op that there is not."""
    content = Path(cases("no_variables"), "saved_model.pb").read_bytes()
    (tmp_path / "saved_model.pb").write_bytes(content.replace(b"AddV2", b"AddV9"))
    return str(tmp_path)


def test_a_batch_job_on_dataflow_too_is_refused_at_its_launch(lacking: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("celsius\n1\n")
    options = {"model": lacking, "input": str(tmp_path / "rows.csv"), "output": str(tmp_path / "out.jsonl")}
    with pytest.raises(ModelNotFound, match=WORDS):
        plan_batch(BatchOptions(**options))
    plan = plan_batch(BatchOptions(**options, op_libraries=("/on/the/workers.so",)))
    assert plan.recipe.model.op_libraries == ("/on/the/workers.so",)


def test_the_recipe_of_a_job_has_its_devices(tmp_path: Path, cases: Callable[[str], str]) -> None:
    (tmp_path / "rows.csv").write_text("celsius\n1\n")
    options = BatchOptions(
        model=cases("no_variables"),
        input=str(tmp_path / "rows.csv"),
        output=str(tmp_path / "out.jsonl"),
        device=("gpu", "CPU:1"),
        device_placement="strict",
        gpu_memory_growth=False,
        gpu_memory_fraction=0.5,
        cpu_devices=2,
    )
    wanted = DeviceOptions(("GPU:0", "CPU:1"), "strict", False, 0.5, 2)
    assert plan_batch(options).recipe.model.devices == wanted  # that they are there is checked for a local job alone
    config = SessionOptions(3, 4, devices=wanted).config()
    assert (config.intra_op_parallelism_threads, config.inter_op_parallelism_threads) == (3, 4)
    assert (config.allow_soft_placement, dict(config.device_count)) == (False, {"CPU": 2})
    assert (config.gpu_options.allow_growth, config.gpu_options.per_process_gpu_memory_fraction) == (False, 0.5)
    usual = SessionOptions().config()
    assert usual.allow_soft_placement and usual.gpu_options.allow_growth and not usual.device_count
    assert dict(SessionOptions(devices=DeviceOptions(("CPU:0",))).config().device_count) == {"GPU": 0}


def test_a_stream_on_dataflow_too_is_refused_at_its_launch(lacking: str) -> None:
    names = {"input_subscription": "projects/project/subscriptions/sub", "output_topic": "projects/project/topics/out"}
    options = StreamingOptions(model=lacking, **names, failures_topic="projects/project/topics/failed")
    with pytest.raises(ModelNotFound, match=WORDS):
        plan_streaming(options, native=True)


def test_a_library_that_is_here_is_looked_into(lacking: str, tmp_path: Path) -> None:
    meta_graph = read_meta_graph(lacking, LocalFiles())
    with pytest.raises(ModelNotFound, match=WORDS):
        check_ops("m", meta_graph, (OTHER,))
    check_ops("m", meta_graph, (OTHER, "/on/the/workers.so"))
    (tmp_path / "none.so").write_bytes(b"no library")
    with pytest.raises(UsageError, match=r"--op_libraries .*none\.so cannot be loaded"):
        check_ops("m", meta_graph, (str(tmp_path / "none.so"),))


def test_without_the_c_api_the_worker_finds_out(lacking: str) -> None:
    check_ops("m", read_meta_graph(lacking, LocalFiles()), (), lambda: None)
