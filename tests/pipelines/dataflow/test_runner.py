"""Beam's options, as our jobs use them."""

import pickle

import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
)

from sluice.models.errors import UsageError
from sluice.models.uri import parse_model_uri
from sluice.pipelines.dataflow.runner import beam_options, check_reachable, loads_model
from sluice.pipelines.options.batch import BatchOptions

FLAGS = ["--project=p", "--runner=DataflowRunner", "--experiments=one"]


def test_a_view_is_made_once_and_shares_its_values() -> None:
    options = beam_options(FLAGS)
    debug = options.view_as(DebugOptions)
    assert options.view_as(DebugOptions) is debug
    debug.add_experiment("two")
    options.view_as(StandardOptions).streaming = True
    assert options.get_all_options()["experiments"] == ["one", "two"]
    assert options.view_as(StandardOptions).streaming is True
    assert options.view_as(GoogleCloudOptions).view_as(StandardOptions).streaming is True
    assert (
        options.get_all_options()
        == PipelineOptions(FLAGS, experiments=["one", "two"], streaming=True).get_all_options()
    )


def test_options_are_pickled_without_their_views() -> None:
    options = beam_options(FLAGS)
    size = len(pickle.dumps(PipelineOptions(FLAGS)))
    for view in (DebugOptions, GoogleCloudOptions, StandardOptions):
        options.view_as(view)
    options.view_as(GoogleCloudOptions).impersonate_service_account = "someone"
    copy = pickle.loads(pickle.dumps(options))
    assert len(pickle.dumps(options)) < size + 10_000
    assert copy.view_as(GoogleCloudOptions).project == "p"
    assert copy.view_as(GoogleCloudOptions).impersonate_service_account is None  # Beam's own rule
    assert copy.view_as(DirectOptions).direct_running_mode == "in_memory"


@pytest.mark.parametrize(
    ("model", "flags", "expected"),
    [
        ("work/model", [], True),
        ("work/model", ["--runner=DirectRunner"], True),
        ("work/model", ["--direct_running_mode=multi_threading"], True),
        ("work/model", ["--direct_running_mode=multi_processing"], False),
        ("work/model", ["--runner=DataflowRunner"], False),
        ("grpc://localhost:8500/m", [], False),
    ],
)
def test_a_model_is_loaded_here_only_by_a_job_that_runs_here(model: str, flags: list[str], expected: bool) -> None:
    assert loads_model(beam_options(flags), parse_model_uri(model)) == expected


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]", "me.localhost"])
def test_workers_on_dataflow_cannot_reach_a_server_on_this_machine(host: str) -> None:
    job = BatchOptions(model=f"grpc://{host}:8500/m", input=("gs://b/x.csv",), output="gs://b/out.csv")
    with pytest.raises(UsageError, match="is on this machine, which Dataflow's workers cannot reach"):
        check_reachable(job, beam_options(FLAGS))
