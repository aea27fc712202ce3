"""The labels of a streaming job, by which a running one is updated; and its variants for both kinds of runner."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.portability.api import beam_runner_api_pb2

from sluice.models.errors import UsageError
from sluice.pipelines.dataflow.runner import beam_options, check_reachable, make_pipeline
from sluice.pipelines.graph import build_streaming
from sluice.pipelines.options.streaming import StreamingOptions
from sluice.pipelines.options.table import STREAMING_INSERTS
from sluice.pipelines.plan.streaming_job import StreamingPlan, plan_streaming
from sluice.transforms.pubsub.fused import check_fused
from sluice.transforms.pubsub.read_worker import WorkerSource
from sluice.transforms.pubsub.source_parts import SourceOptions
from tests.pipelines.test_graph import labels
from tests.support.pubsub.streams import every_sink
from tests.support.saved_models.zoo import ZooSample
from tests.support.servers import Pubsub

# Changed on purpose only; CHANGELOG.md says so when it is.
BEHIND_THE_SOURCE = [
    "Decode/Parse",
    "Predict/Call",
    "WriteTopic/Publish",
    "WriteTable/Append",
    "WriteFiles/Files",
    "WriteDecodeFailures/Topic",
    "WriteDecodeFailures/Table",
    "WriteDecodeFailures/Files",
    "WritePredictFailures/Topic",
    "WritePredictFailures/Table",
    "WritePredictFailures/Files",
    "WriteTopicFailures/Topic",
    "WriteTopicFailures/Table",
    "WriteTopicFailures/Files",
    "WriteTableFailures/Topic",
    "WriteTableFailures/Table",
    "WriteTableFailures/Files",
    "WriteFilesFailures/Topic",
    "WriteFilesFailures/Table",
    "WriteFilesFailures/Files",
]
LOCAL, NATIVE = ["Read/Source", "Read/Pull"], ["Read/Pubsub", "Read/Gather"]


@pytest.fixture
def options(criteo: ZooSample, pubsub: Pubsub, tmp_path: Path) -> StreamingOptions:
    return every_sink(criteo.model, pubsub, tmp_path)


@pytest.fixture
def plan(options: StreamingOptions, request: pytest.FixtureRequest) -> StreamingPlan:
    return plan_streaming(options, native=request.param)


def shown(label: str, plan: StreamingPlan) -> list[str]:
    """Returns the steps of one: on Dataflow, rows for files gather in the state of a step."""
    if label == "WriteFiles/Files" and plan.native:
        return [f"WriteFiles/{step}" for step in ("Pack", "Gather", "Stable", "Rename")]
    return [label]


def two_deep(pipeline: beam.Pipeline) -> list[str]:
    """The labels of our transforms, and of what is in them, without what is in that."""
    return list(dict.fromkeys("/".join(each.split("/")[:2]) for each in labels(pipeline) if each.count("/")))


@pytest.mark.parametrize(("plan", "source"), [(False, LOCAL), (True, NATIVE)], indirect=["plan"])
def test_the_labels_of_a_streaming_job(plan: StreamingPlan, source: list[str]) -> None:
    pipeline = make_pipeline(beam_options([]))
    build_streaming(pipeline, plan)
    assert two_deep(pipeline) == [*source, *(each for label in BEHIND_THE_SOURCE for each in shown(label, plan))]


@pytest.mark.parametrize("plan", [False], indirect=True)
def test_the_local_graph_is_one_stage_behind_the_source(plan: StreamingPlan) -> None:
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.runners.portability.fn_api_runner.translations import Stage

    pipeline = make_pipeline(beam_options([]))
    build_streaming(pipeline, plan)
    check_fused(pipeline)
    stages: list[Stage] = FnApiRunner().create_stages(pipeline.to_runner_api())[1]
    holding = [stage for stage in stages if any("WriteTopic" in t.unique_name for t in stage.transforms)]
    assert len(holding) == 1, "as Beam's own fusion sees it"
    names = " ".join(transform.unique_name for transform in holding[0].transforms)
    assert all(label in names for label in ["Read/Pull", *BEHIND_THE_SOURCE])


@pytest.mark.parametrize("plan", [False], indirect=True)
def test_on_flink_the_graph_is_the_local_one_with_a_source_that_workers_open(plan: StreamingPlan) -> None:
    worker = WorkerSource(plan.subscription, SourceOptions(), "/nowhere/job", readers=3)
    pipeline = make_pipeline(beam_options([]))
    build_streaming(pipeline, dataclasses.replace(plan, worker=worker))
    check_fused(pipeline)
    assert two_deep(pipeline) == [*LOCAL, *BEHIND_THE_SOURCE]
    urns = {transform.spec.urn for transform in pipeline.to_runner_api().components.transforms.values()}
    assert "beam:transform:group_by_key:v1" not in urns, "nor between the elements and the source"


@pytest.mark.parametrize("plan", [True], indirect=True)
def test_the_graph_is_built_for_dataflow_without_it(plan: StreamingPlan) -> None:
    flags = ["--runner=DataflowRunner", "--dry_run=True", "--project=my-project", "--region=r", "--streaming"]
    pipeline = make_pipeline(beam_options([*flags, "--temp_location=gs://bucket/t"]))
    build_streaming(pipeline, plan)
    proto = pipeline.to_runner_api()
    names = [transform.unique_name for transform in proto.components.transforms.values()]
    assert "Read/Pubsub/Read" in names
    assert not any("Pull" in name for name in names)
    for transform in proto.components.transforms.values():
        if transform.spec.urn == "beam:transform:pardo:v1":
            payload = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload)
            assert len(payload.do_fn.payload) < 200_000, "a DoFn holds recipes, not resources"


def test_rows_that_are_inserted_have_a_label_of_their_own(options: StreamingOptions) -> None:
    inserting = dataclasses.replace(options, write_method=STREAMING_INSERTS)
    pipeline = make_pipeline(beam_options([]))
    build_streaming(pipeline, plan_streaming(inserting, native=False))
    check_fused(pipeline)
    wanted = ["WriteTable/Insert" if label == "WriteTable/Append" else label for label in BEHIND_THE_SOURCE]
    assert two_deep(pipeline) == [*LOCAL, *wanted]


def test_local_paths_are_refused_for_dataflow(options: StreamingOptions) -> None:
    with pytest.raises(UsageError, match=r"--model .* is on this machine.*gs://"):
        check_reachable(options, beam_options(["--runner=DataflowRunner"]))
