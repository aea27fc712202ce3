"""What Dataflow compares when a running job is replaced (`--update`): names, inputs and coders of a streaming graph.

https://cloud.google.com/dataflow/docs/guides/updating-a-pipeline: a step with state or data in flight is found again by
its name, and what is in flight is read with the new job's coders.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from apache_beam.coders import Coder, registry
from apache_beam.runners import pipeline_context

from sluice.pipelines.dataflow.runner import beam_options, make_pipeline
from sluice.pipelines.graph import build_streaming
from sluice.pipelines.options.streaming import StreamingOptions
from sluice.pipelines.plan.streaming_job import plan_streaming
from tests.support.paths import GOLDEN
from tests.support.pubsub.streams import every_sink
from tests.support.saved_models.zoo import ZooSample
from tests.support.servers import Pubsub

GRAPH = GOLDEN / "streaming_graph.json"
FLAGS = ["--runner=DataflowRunner", "--dry_run=True", "--project=my-project", "--region=r", "--streaming"]


@pytest.fixture
def options(criteo: ZooSample, pubsub: Pubsub, tmp_path: Path) -> StreamingOptions:
    return every_sink(criteo.model, pubsub, tmp_path)


def graph_of(options: StreamingOptions) -> dict[str, Any]:
    """Returns what each step does, where its inputs come from, and how its outputs are coded, by its name."""
    pipeline = make_pipeline(beam_options([*FLAGS, "--temp_location=gs://bucket/t"]))
    build_streaming(pipeline, plan_streaming(options, native=True))
    graph = pipeline.to_runner_api().components
    context = pipeline_context.PipelineContext(graph)
    steps = {name: step for name, step in graph.transforms.items() if step.spec.urn and not step.subtransforms}
    makers = {output: step.unique_name for step in steps.values() for output in step.outputs.values()}
    return {
        step.unique_name: {
            "urn": step.spec.urn,
            "inputs": sorted(makers[each] for each in step.inputs.values()),
            "coders": {
                tag: repr(Coder.from_runner_api(graph.coders[graph.pcollections[output].coder_id], context))
                for tag, output in sorted(step.outputs.items())
            },
        }
        for step in steps.values()
    }


def test_a_running_job_can_be_replaced_by_this_one(options: StreamingOptions, tmp_path: Path) -> None:
    found = tmp_path / GRAPH.name
    found.write_text(json.dumps(graph_of(options), indent=2, sort_keys=True) + "\n")
    assert found.read_text() == GRAPH.read_text(), (
        f"jobs that run cannot be updated to this graph, or lose data. If it is meant: cp {found} {GRAPH}, and say in "
        "CHANGELOG.md that they have to be drained"
    )


def test_the_coder_keeps_its_name() -> None:
    """Dataflow finds the coder of a running job by the module and the class that it was pickled as."""
    coder = registry.get_coder(pa.RecordBatch)
    assert f"{type(coder).__module__}.{type(coder).__qualname__}" == "sluice.transforms.core.batches.RecordBatchCoder"
