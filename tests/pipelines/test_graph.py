"""The labels of a batch job: an interface, because a running job is watched, and a streaming one updated, by them."""

from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.coders import Coder
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners import pipeline_context

from sluice.models.errors import UsageError
from sluice.pipelines.dataflow.runner import beam_options, check_reachable, make_pipeline
from sluice.pipelines.graph import build_batch
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.plan.batch_job import plan_batch
from sluice.transforms.core.batches import RecordBatchCoder
from tests.support.saved_models.zoo import ZooSample
from tests.support.servers import BigQuery

# Changed on purpose only; CHANGELOG.md says so when it is.
LABELS = [
    "Read/Pattern",
    "Read/Split",
    "Read/Spread",
    "Read/Decode",
    "Predict/Call",
    "NameModel",
    "Write/Shards",
    "WriteFailures/Read/Shards",
    "WriteFailures/Predict/Shards",
    "WriteFailures/Write/Shards",
    "WriteFailures/Parts",
    "Commit/Once",
    "Commit/Judge",
]


TABLE_LABELS = [
    "Read/Table",
    "Read/Session",
    "Read/Spread",
    "Read/Decode",
    "Predict/Call",
    "NameModel",
    "Write/Append",
    "WriteFailuresTable/Read/Append",
    "WriteFailuresTable/Predict/Append",
    "WriteFailuresTable/Write/Append",
    "WriteFailuresTable/Parts",
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


def two_levels(label: str) -> str:
    return "/".join(label.split("/")[:2])


def test_the_labels_of_a_batch_job(criteo: ZooSample, tmp_path: Path) -> None:
    options = BatchOptions(input=criteo.path("csv"), model=criteo.model, output=str(tmp_path / "out.csv"))
    pipeline = make_pipeline(beam_options([]))
    build_batch(pipeline, plan_batch(options))
    assert [label for label in labels(pipeline) if label in LABELS] == LABELS
    ours = {two_levels(label) for label in labels(pipeline) if label}
    assert ours - {"Read", "Predict", "Write", "WriteFailures", "Commit"} == {
        "/".join(label.split("/")[:2]) for label in LABELS
    }


def test_the_graph_is_built_for_dataflow_without_it(criteo: ZooSample, tmp_path: Path) -> None:
    flags = ["--runner=DataflowRunner", "--dry_run=True", "--project=sluice-test", "--region=r"]
    options = BatchOptions(input=criteo.path("csv"), model=criteo.model, output=str(tmp_path / "out.csv"))
    pipeline = make_pipeline(beam_options([*flags, "--temp_location=gs://bucket/t"]))
    build_batch(pipeline, plan_batch(options))
    proto, _ = pipeline.to_runner_api(return_context=True)
    context = pipeline_context.PipelineContext(proto.components)
    outputs = [each for each in proto.components.pcollections.values() if "Predict/Call" in each.unique_name]
    coders = [Coder.from_runner_api(proto.components.coders[each.coder_id], context) for each in outputs]
    assert sum(isinstance(coder, RecordBatchCoder) for coder in coders) == 1, "rows, and not failures"
    for transform in proto.components.transforms.values():
        if transform.spec.urn == "beam:transform:pardo:v1":
            payload = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload)
            assert len(payload.do_fn.payload) < 200_000, "a DoFn holds recipes, not resources"


def test_a_graph_from_bigquery_to_bigquery_is_built_for_dataflow_without_it_and_without_java(
    bigquery: BigQuery, zoo_samples: dict[str, ZooSample], births_table: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    dataset = bigquery.make_dataset()
    options = BatchOptions(
        input_table=births_table,
        model=zoo_samples["natality"].model,
        output_table=f"{dataset}.scored",
        failures_table=f"{dataset}.failed",
        write_disposition="truncate",
    )
    flags = ["--runner=DataflowRunner", "--dry_run=True", "--project=sluice-test", "--region=r"]
    pipeline = make_pipeline(beam_options([*flags, "--temp_location=gs://bucket/t"]))
    build_batch(pipeline, plan_batch(options))
    assert [label for label in labels(pipeline) if label in TABLE_LABELS] == TABLE_LABELS
    ours = {two_levels(label) for label in labels(pipeline) if label}
    assert ours - {"Read", "Predict", "Write", "WriteFailuresTable", "Commit"} == {
        "/".join(label.split("/")[:2]) for label in TABLE_LABELS
    }
    components = pipeline.to_runner_api().components
    assert all("java" not in str(each).lower() for each in components.environments.values())
    assert {each.spec.urn for each in components.transforms.values()} & {"beam:transform:external:v1"} == set()
    coders = [components.coders[each].spec.urn for each in components.coders]
    assert not any("java" in urn for urn in coders)


@pytest.mark.parametrize("name", ["input", "model", "output", "failures"])
def test_local_paths_are_refused_for_dataflow(name: str) -> None:
    paths = {"input": "gs://b/i.csv", "model": "gs://b/m", "output": "gs://b/o.csv", "failures": "gs://b/f.jsonl"}
    options = beam_options(["--runner=DataflowRunner"])
    check_reachable(BatchOptions(**paths), options)
    with pytest.raises(UsageError, match=f"--{name} here/x.csv is on this machine.*gs://"):
        check_reachable(BatchOptions(**paths | {name: "here/x.csv"}), options)
    check_reachable(BatchOptions(**paths | {name: "here/x.csv"}), beam_options([]))
