"""The Beam jobs of a managed job: their labels, and what Dataflow gets of them."""

import dataclasses
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.coders import Coder
from apache_beam.options.pipeline_options import GoogleCloudOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners import pipeline_context
from apache_beam.runners.runner import PipelineState

from sluice.pipelines.dataflow.runner import beam_options, make_pipeline
from sluice.pipelines.graph import build_join
from sluice.pipelines.managed import stages as stages_module
from sluice.pipelines.managed.job import Machines, RegisteredModel
from sluice.pipelines.managed.plan import ManagedPlan
from sluice.pipelines.managed.stages import Stages
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.plan.batch_job import BatchPlan, Input, plan_batch
from sluice.transforms.core.batches import RecordBatchCoder
from sluice.transforms.managed.find_answers import FindAnswers
from sluice.transforms.managed.join_answers import Decoding, JoinAnswers
from sluice.transforms.managed.place import Place
from sluice.transforms.managed.prepare import Encoding, PrepareInstances
from tests.pipelines.test_graph import labels
from tests.support.fakes import X_TO_Y
from tests.support.saved_models.zoo import ZooSample

PLACE = Place("gs://bucket/t/sluice-managed/s1/1")
FLAGS = ["--runner=DataflowRunner", "--dry_run=True", "--project=sluice-test", "--region=r",
         "--temp_location=gs://bucket/t"]  # fmt: skip

# Changed on purpose only; CHANGELOG.md says so when it is.
PREPARE = [
    "Prepare/Instances",
    "Prepare/NameModel",
    "Prepare/Unread",
    "Prepare/Unbound",
    "Prepare/Once",
    "Prepare/Record",
]
FIND = ["Results", "Split", "Spread", "Find", "Prepared", "Shards", "Both", "Shard", "Compare", "Once", "Record"]
JOIN = ["Prepared", "Shards", "Spread", "Join", "Failures", "SpreadFailures", "ReadFailures", "Rows"]
PUBLISH = ["Write/Shards", "WriteFailures/Read", "WriteFailures/Predict", "WriteFailures/Write", "WriteFailures/Parts",
           "Commit/Once", "Commit/Judge"]  # fmt: skip


@pytest.fixture(scope="module")
def options(criteo: ZooSample, tmp_path_factory: pytest.TempPathFactory) -> BatchOptions:
    output = tmp_path_factory.mktemp("stages") / "out.csv"
    return BatchOptions(input=criteo.path("csv"), model=criteo.model, output=str(output))


@pytest.fixture(scope="module")
def plan(options: BatchOptions) -> BatchPlan:
    return plan_batch(options)


def check(pipeline: beam.Pipeline, wanted: list[str]) -> int:
    """Checks the labels under `Read`, and that a DoFn holds recipes; returns the number of collections of rows."""
    found = list(dict.fromkeys("/".join(label.split("/")[:2]) for label in labels(pipeline) if "/" in label))
    assert [label for label in found if not label.startswith("Read/")] == wanted
    proto, _ = pipeline.to_runner_api(return_context=True)
    context = pipeline_context.PipelineContext(proto.components)
    for transform in proto.components.transforms.values():
        if transform.spec.urn == "beam:transform:pardo:v1":
            payload = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload)
            assert len(payload.do_fn.payload) < 200_000, "a DoFn holds recipes, not resources"
    coders = [Coder.from_runner_api(each, context) for each in proto.components.coders.values()
              if "RecordBatch" in str(each.spec)]  # fmt: skip
    return sum(isinstance(coder, RecordBatchCoder) for coder in coders)


def test_rows_are_prepared(plan: BatchPlan) -> None:
    pipeline = make_pipeline(beam_options(FLAGS))
    pipeline | "Read" >> plan.input.reader | "Prepare" >> PrepareInstances(PLACE, Encoding("m", X_TO_Y))
    check(pipeline, PREPARE)


def test_answers_are_found() -> None:
    pipeline = make_pipeline(beam_options(FLAGS))
    pipeline | "Find" >> FindAnswers(PLACE, "1", "gs://bucket/t/results")
    check(pipeline, [f"Find/{label}" for label in FIND])


def test_answers_are_joined_and_published_as_by_every_batch_job(plan: BatchPlan) -> None:
    reader = JoinAnswers(PLACE, Decoding("m", 1, X_TO_Y, "", "no answer"), ("1", "2"))
    pipeline = make_pipeline(beam_options(FLAGS))
    build_join(pipeline, dataclasses.replace(plan, input=Input("", reader, "rows_read", 1)))
    assert check(pipeline, [*(f"Join/{label}" for label in JOIN), *PUBLISH]) >= 1


def test_each_stage_has_a_name_of_its_own_on_dataflow(options: BatchOptions, plan: BatchPlan, tmp_path: Path) -> None:
    managed = ManagedPlan(plan, RegisteredModel("m", "1"), Machines("n1-standard-4"), "s1", str(tmp_path))
    names = {}
    for flags in (FLAGS, [*FLAGS, f"--job_name={'a' * 63}"]):
        stages = Stages(options, managed, flags)
        settings = [stages._settings(stage) for stage in ("prepare", "find", "join")]
        names[flags[-1]] = [each.view_as(GoogleCloudOptions).job_name for each in settings]
    default, given = names.values()
    assert [name.rpartition("-")[2] for name in default] == ["prepare", "find", "join"]
    assert given == ["a" * 55 + "-prepare", "a" * 58 + "-find", "a" * 58 + "-join"]
    assert all(len(name) <= 63 for name in default)


class _Elsewhere:
    """A job on another machine, of which the user's Ctrl-C is told while it runs."""

    def __init__(self, cancels: bool) -> None:
        self.state, self._cancels = PipelineState.RUNNING, cancels

    def job_id(self) -> str:
        return "2026-job-7"

    def wait_until_finish(self) -> None:
        raise KeyboardInterrupt

    def cancel(self) -> None:
        if not self._cancels:
            raise OSError("no way")
        self.state = PipelineState.CANCELLED


@pytest.mark.parametrize("cancels,words", [(True, "is cancelled"), (False, "goes on, and cannot be cancelled: no way")])
def test_ctrl_c_cancels_a_job_on_dataflow_and_leaves_its_files_while_it_may_run(
    options: BatchOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], cancels: bool, words: str,
) -> None:  # fmt: skip
    deleted: list[str] = []
    monkeypatch.setattr(stages_module, "delete_tree", deleted.append)
    monkeypatch.setattr(beam.Pipeline, "run", lambda pipeline: _Elsewhere(cancels))
    plan = plan_batch(options)
    plan = dataclasses.replace(plan, recipe=dataclasses.replace(plan.recipe, signature=X_TO_Y))
    managed = ManagedPlan(plan, RegisteredModel("m", "1"), Machines("n1-standard-4"), "s1", str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        Stages(options, managed, FLAGS).prepare()
    assert f"sluice: interrupted; the job 2026-job-7 {words}" in capsys.readouterr().err
    assert len(deleted) == cancels
