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

from sluice.models.uri import parse_model_uri
from sluice.pipelines.dataflow.runner import beam_options, loads_model

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
