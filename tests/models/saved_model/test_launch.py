"""Ops that TensorFlow lacks are found before a job starts, wherever it runs."""

from __future__ import annotations

import _ctypes
from collections.abc import Callable
from pathlib import Path

import pytest

from sluice.models.errors import ModelNotFound, UsageError
from sluice.models.files import LocalFiles
from sluice.models.saved_model.launch import check_ops
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
