"""What `sluice streaming` refuses before it reads a message: exit code 2, one line that says what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from apache_beam.io.filesystems import FileSystems

from sluice.pipelines.cli import main
from sluice.transforms.pubsub.clients import EMULATOR_VARIABLE
from tests.support.pubsub.streams import Ends, make_ends
from tests.support.servers import Gcs, Pubsub, free_port


@pytest.fixture(scope="module")
def ends(pubsub: Pubsub) -> Ends:
    return make_ends(pubsub)


def refused(capsys: pytest.CaptureFixture[str], flags: list[str]) -> str:
    """What a command is refused with."""
    assert main(["streaming", *flags]) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in " ".join(printed)
    return printed[-1]


FLINK = {
    "runner": "flink",
    "environment_type": "EXTERNAL",
    "environment_config": "127.0.0.1:1",
    "temp_location": "/tmp",
}


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"model": "/nowhere"}, "there is nothing at this path"),
        ({"model": "grpc://127.0.0.1:1/m"}, "127.0.0.1:1"),
        ({"input_subscription": "projects/sluice-test/subscriptions/missing"}, "does not exist; create it"),
        ({"input_subscription": "missing"}, "expected projects/PROJECT/subscriptions/NAME"),
        ({"output_topic": "projects/sluice-test/topics/missing"}, "missing does not exist; create it"),
        ({"failures_topic": "projects/sluice-test/topics/missing"}, "missing does not exist; create it"),
        ({"output_topic": ""}, "predictions need a sink"),
        ({"failures_topic": ""}, "rows that fail need a sink"),
        ({"input_format": "avro"}, "--avro_schema FILE and --input_format avro go together"),
        ({"input_format": "avro", "avro_schema": "/nowhere.avsc"}, "--avro_schema /nowhere.avsc cannot be read"),
        ({"input_format": "raw"}, "raw"),
        ({"input_schema": "/nowhere.json"}, "--input_schema /nowhere.json cannot be read"),
        ({"column_defaults": "nosuch=1"}, "nosuch"),
        ({"output": "/proc/none/out.jsonl"}, "cannot be written to"),
        ({"output": "out.unknown"}, "the format is not clear"),
        ({"failures": "/proc/none/failed"}, "cannot be written to"),
        ({"output": "out.csv"}, "--input_schema"),
        ({"signature": "nosuch"}, "nosuch"),
        ({"nosuch_flag": "1"}, "neither Sluice nor Beam has such a flag"),
        ({"runner": "BundleBasedDirectRunner"}, "runs in this process"),
        ({"runner": "prism"}, "Prism loses messages behind a shuffle"),
        (
            {**FLINK, "temp_location": ""},
            "--temp_location is missing: give a directory that this machine and all",
        ),
        ({**FLINK, "temp_location": "tmp"}, "--temp_location tmp: give a directory"),
        ({**FLINK, "checkpointing_interval": "0"}, "Flink acknowledges messages after a checkpoint"),
        ({**FLINK, "report_file": "r.html"}, "a stream on Flink goes on apart from this command"),
        ({"direct_running_mode": "multi_processing"}, "one process"),
        ({"direct_num_workers": "4"}, "one process"),
        ({"device": "GPU:7"}, "--device GPU:7: TensorFlow has no such device here; it has CPU:0"),
        ({"runner": "dataflow", "model": "here"}, "is on this machine"),
        ({"runner": "DataflowRunner", "model": "gs://b/m", "max_delivery_attempts": "3"}, "dead-letter policy"),
        ({"runner": "DataflowRunner", "model": "gs://b/m", "report_file": "r.html"}, "a stream on Dataflow goes on"),
    ],
)
def test_refusals(
    ends: Ends, cases: Callable[[str], str], capsys: pytest.CaptureFixture[str], changed: dict[str, str], text: str
) -> None:
    flags = {
        "model": cases("picky"),
        "input_subscription": ends.subscription,
        "output_topic": ends.output_topic,
        "failures_topic": ends.failures_topic,
    } | changed
    found = refused(capsys, [f"--{name}={value}" for name, value in flags.items() if value])
    assert re.search(re.escape(text), found), found


def test_pubsub_that_does_not_answer(
    ends: Ends, cases: Callable[[str], str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EMULATOR_VARIABLE, f"127.0.0.1:{free_port()}")
    found = refused(capsys, [f"--model={cases('picky')}", *ends.flags])
    assert "cannot be looked up" in found or "does not answer" in found


def test_a_health_port_that_is_taken(
    ends: Ends, cases: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = refused(capsys, [f"--model={cases('picky')}", *ends.flags, f"--health_port={port}"])
    assert f"--health_port {port} cannot be opened" in found


_DATAFLOW = ["--runner=DataflowRunner", "--dry_run=True", "--project=p", "--region=r", "--temp_location=gs://bkt/t"]


@pytest.mark.parametrize("runner", [[], _DATAFLOW])
@pytest.mark.parametrize("sink", ["output_topic", "failures_topic"])
def test_a_job_that_would_feed_itself(
    ends: Ends, gcs: Gcs, cases: Callable[[str], str], capsys: pytest.CaptureFixture[str], sink: str, runner: list[str]
) -> None:
    model = cases("picky")
    if runner:
        model = gcs.path("picky")
        for path in filter(Path.is_file, Path(cases("picky")).rglob("*")):
            with FileSystems.create(f"{model}/{path.relative_to(cases('picky'))}") as file:
                file.write(path.read_bytes())
    found = refused(capsys, [f"--model={model}", *ends.flags, f"--{sink}={ends.topic}", *runner])
    assert "would feed itself" in found


def test_flags_that_mean_nothing_are_named(
    ends: Ends, cases: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    from tests.support.pubsub.streams import LocalJob

    with LocalJob([f"--model={cases('picky')}", *ends.flags, "--id_label=id", "--runner=direct"]) as job:
        assert job.stop() == 0
    assert "--id_label has no effect on a local job" in caplog.text


def test_a_topics_own_subscription_is_kept_as_long_as_something_is_in_it(
    pubsub: Pubsub, caplog: pytest.LogCaptureFixture
) -> None:
    from sluice.transforms.pubsub.clients import subscriber
    from sluice.transforms.pubsub.google_subscription import GoogleSubscription
    from sluice.transforms.pubsub.resources import create_subscription

    name = create_subscription(subscriber(), pubsub.make_topic())
    GoogleSubscription(subscriber(), name, temporary=True).close(left=12)
    assert pubsub.subscriber.get_subscription(subscription=name).name == name
    assert f"go on with --input_subscription {name}" in caplog.text
    GoogleSubscription(subscriber(), name, temporary=True).close(left=0)
    assert name not in [
        each.name for each in pubsub.subscriber.list_subscriptions(project=f"projects/{pubsub.project}")
    ]
