"""What is refused at launch of a portable job, and which jobs are scored in this process."""

from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PortableOptions

from sluice.models.errors import UsageError
from sluice.models.uri import parse_model_uri
from sluice.pipelines.dataflow.runner import (
    beam_options,
    check_reachable,
    is_here,
    is_local,
    loads_model,
    make_pipeline,
)
from sluice.pipelines.options.batch import BatchOptions

# Flink without a job server needs Java, which is named so that the tests do without.
_FLINK = ["--runner=FlinkRunner", "--job_server_java_launcher=/bin/sh"]
_CLUSTER = [*_FLINK, "--flink_master=localhost:8081"]
_EXTERNAL = ["--environment_type=EXTERNAL", "--environment_config=localhost:50000"]
_ABSOLUTE = {"model": "/m", "input": "/in.csv", "output": "/out.csv"}


def check(flags: list[str], **paths: str) -> None:
    check_reachable(BatchOptions(**_ABSOLUTE | paths), beam_options(flags))


@pytest.mark.parametrize(
    ("flags", "here"),
    [
        (_FLINK, True),
        ([*_FLINK, "--flink_master=[local]"], True),
        (["--runner=flink", "--environment_type=loopback"], True),
        (["--runner=PrismRunner"], True),
        ([*_CLUSTER, "--environment_type=LOOPBACK"], True),
        ([*_CLUSTER, *_EXTERNAL], False),
        ([*_FLINK, "--experiments=use_loopback_process_worker"], False),
        (["--runner=PortableRunner"], False),
    ],
)
def test_rows_are_scored_here_where_this_process_is_the_worker(flags: list[str], here: bool) -> None:
    options = beam_options(flags)
    assert (is_here(options), is_local(options)) == (here, False)
    assert loads_model(options, parse_model_uri("/m")) == here


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--runner=PortableRunner"], "give --job_endpoint HOST:PORT"),
        (_CLUSTER, "--flink_master localhost:8081 without --environment_type: Beam would run the workers in Docker"),
        (["--runner=PortableRunner", "--job_endpoint=embed"], "--job_endpoint embed without --environment_type"),
        ([*_FLINK, "--environment_type=DOCKER"], "Beam's own image does not hold Sluice"),
        (
            ["--runner=FlinkRunner", "--job_server_java_launcher=no-java"],
            "no-java, which is not found: install Java",
        ),
    ],
)
def test_workers_that_could_not_score_are_refused_with_the_remedy(flags: list[str], told: str) -> None:
    with pytest.raises(UsageError) as refused:
        check(flags)
    assert told in str(refused.value) and "give " in str(refused.value)


def test_paths_are_those_of_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    elsewhere = [*_CLUSTER, *_EXTERNAL]
    check(elsewhere)
    check(_FLINK, input="in.csv", output="out/x.csv")
    check(elsewhere, input="gs://b/in.csv", model="grpc://server:8500/m")
    for name, flag in (("input", "--input in.csv"), ("model", "--model in.csv"), ("output", "--output in.csv")):
        with pytest.raises(
            UsageError, match=rf"{flag}: workers .* do not run in this directory; give {tmp_path}/in.csv"
        ):
            check(elsewhere, **{name: "in.csv"})


def test_what_a_container_writes_would_be_lost() -> None:
    docker = [*_CLUSTER, "--environment_type=docker", "--environment_config=sluice:1"]
    check(docker, output="gs://b/out.csv")
    with pytest.raises(UsageError, match=r"--output /out.csv: the workers are Docker containers"):
        check(docker)


def test_a_job_may_take_longer_than_a_job_server_to_answer() -> None:
    options = beam_options(["--runner=PrismRunner", "--job_server_timeout=5"])
    make_pipeline(options)
    assert options.view_as(PortableOptions).job_server_timeout > 30 * 24 * 3600
    untouched = beam_options([])
    make_pipeline(untouched)
    assert untouched.view_as(PortableOptions).job_server_timeout == 300
