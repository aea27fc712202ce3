"""The labels of a batch job: an interface, because a running job is watched, and a streaming one updated, by them."""

from pathlib import Path

import apache_beam as beam

from pipelines.graph import build_batch
from pipelines.options import BatchOptions
from pipelines.plan import plan_batch
from pipelines.runner import beam_options, make_pipeline
from tests.zoo_models import ZooSample

# Changed on purpose only; CHANGELOG.md says so when it is.
LABELS = [
    "Read/Pattern",
    "Read/Split",
    "Read/Spread",
    "Read/Decode",
    "Read/Failures",
    "Read/Tally",
    "Predict/Call",
    "Failures",
    "Write/Shards",
    "WriteFailures/Shards",
    "Commit/Once",
    "Commit/Judge",
]


def labels(pipeline: beam.Pipeline) -> list[str]:
    found: list[str] = []

    class Visitor(beam.pipeline.PipelineVisitor):
        def enter_composite_transform(self, node: beam.pipeline.AppliedPTransform) -> None:
            found.append(node.full_label)

        def visit_transform(self, node: beam.pipeline.AppliedPTransform) -> None:
            found.append(node.full_label)

    pipeline.visit(Visitor())
    return found


def test_the_labels_of_a_batch_job(criteo: ZooSample, tmp_path: Path) -> None:
    options = BatchOptions(input=criteo.path("csv"), model=criteo.model, output=str(tmp_path / "out.csv"))
    pipeline = make_pipeline(beam_options([]))
    build_batch(pipeline, plan_batch(options))
    assert [label for label in labels(pipeline) if label in LABELS] == LABELS
    ours = {"/".join(label.split("/")[:2]) for label in labels(pipeline) if label}
    assert ours - {"Read", "Predict", "Write", "WriteFailures", "Commit"} == set(LABELS)


def test_the_graph_is_built_for_dataflow_without_it(criteo: ZooSample, tmp_path: Path) -> None:
    flags = [
        "--runner=DataflowRunner",
        "--dry_run=True",
        "--project=sluice-test",
        "--region=r",
        "--temp_location=gs://bucket/t",
    ]
    options = BatchOptions(input=criteo.path("csv"), model=criteo.model, output=str(tmp_path / "out.csv"))
    pipeline = make_pipeline(beam_options(flags))
    build_batch(pipeline, plan_batch(options))
    proto, _ = pipeline.to_runner_api(return_context=True)
    coders = {coder.spec.urn for coder in proto.components.coders.values()}
    assert proto.components.transforms and coders
