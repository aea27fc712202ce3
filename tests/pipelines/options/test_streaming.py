"""Flags of a streaming job: golden names and defaults, and what is refused."""

import argparse
import dataclasses
import math

import pytest

from sluice.models.errors import UsageError
from sluice.pipelines.options.flags import add_arguments, from_namespace
from sluice.pipelines.options.streaming import StreamingOptions

# Flags are an interface: changed on purpose only; CHANGELOG.md says so when they are.
FLAGS = {
    "input_subscription": "",
    "input_topic": "",
    "input_format": "json",
    "input_schema": "",
    "avro_schema": "",
    "column_defaults": (),
    "map": (),
    "read_paths": (),
    "read_paths_root": "",
    "timestamp_attribute": "",
    "id_label": "",
    "max_delivery_attempts": 0,
    "model": None,
    "signature": "serving_default",
    "max_batch_size": 0,
    "max_batch_bytes": 67108864,
    "max_batch_delay_ms": 0.0,
    "allowed_batch_sizes": (),
    "max_in_flight": 0,
    "intra_op_threads": 0,
    "inter_op_threads": 0,
    "warm_up": True,
    "op_libraries": (),
    "device": (),
    "device_placement": "soft",
    "gpu_memory_growth": True,
    "gpu_memory_fraction": 0.0,
    "cpu_devices": 0,
    "model_poll_secs": 30.0,
    "rpc_timeout_secs": None,
    "rpc_ca_file": "",
    "rpc_headers": (),
    "rpc_token_file": "",
    "rpc_google_auth": False,
    "rpc_google_auth_hosts": (),
    "rpc_google_audience": "",
    "rest_format": "columns",
    "rest_gzip": False,
    "vertex_endpoint": "",
    "signature_from": "",
    "max_retries": 3,
    "max_retry_secs": 300.0,
    "on_unavailable": "fail",
    "output_topic": "",
    "output_table": "",
    "write_method": "storage_write_api",
    "allow_schema_update": False,
    "partition_by": "",
    "cluster_by": (),
    "output": "",
    "output_format": "",
    "output_prefix": "",
    "columns": None,
    "exclude_columns": (),
    "add_model_columns": False,
    "flatten": False,
    "failures_topic": "",
    "failures_table": "",
    "failures": "",
    "failure_payload": "full",
    "failure_payload_dir": "",
    "file_interval_secs": 60.0,
    "model_timeout_secs": 600.0,
    "bigquery_endpoint": "",
    "bigquery_storage_endpoint": "",
    "max_bundle_messages": 4000,
    "max_bundle_delay_ms": -1.0,
    "max_restarts": 10,
    "readers": 1,
    "health_port": 0,
    "health_address": "127.0.0.1",
    "summary_file": "",
    "report_file": "",
    "progress": "auto",
    "log_format": "text",
}
SUBSCRIPTION, TOPIC = "projects/p/subscriptions/sub", "projects/p/topics/top"
REQUIRED = {"model": "m", "input_subscription": SUBSCRIPTION, "output_topic": TOPIC, "failures_topic": TOPIC}


def options(**changes: object) -> StreamingOptions:
    return StreamingOptions(**REQUIRED | changes)  # type: ignore[arg-type]


def refusal(**changes: object) -> str:
    with pytest.raises(UsageError) as error:
        options(**changes)
    return str(error.value)


def parse(*flags: str) -> StreamingOptions:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_arguments(parser, StreamingOptions)
    required = [f"--{name}={value}" for name, value in REQUIRED.items()]
    return from_namespace(StreamingOptions, parser.parse_args([*required, *flags]))


def test_the_flags_and_their_defaults() -> None:
    found = {
        field.name: None if field.default is dataclasses.MISSING else field.default
        for field in dataclasses.fields(StreamingOptions)
    }
    assert found == FLAGS
    assert parse() == options()


def test_every_flag_has_help_in_a_group_that_is_shown() -> None:
    assert all(len(field.metadata["help"]) > 10 for field in dataclasses.fields(StreamingOptions))
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_arguments(parser, StreamingOptions)
    shown = parser.format_help()
    assert [name for name in FLAGS if f"  --{name}" not in shown] == []


@pytest.mark.parametrize(
    "flag,name,value",
    [
        ("--input_format=raw", "input_format", "raw"),
        ("--column_defaults=a=1,b=x", "column_defaults", (("a", "1"), ("b", "x"))),
        ("--columns=", "columns", ()),
        ("--columns=a, b", "columns", ("a", "b")),
        ("--max_bundle_delay_ms=-1", "max_bundle_delay_ms", -1.0),
        ("--max_bundle_delay_ms=0.5", "max_bundle_delay_ms", 0.5),
        ("--max_bundle_messages=1", "max_bundle_messages", 1),
        ("--model_poll_secs=0", "model_poll_secs", 0.0),
        ("--add_model_columns", "add_model_columns", True),
        ("--flatten=true", "flatten", True),
        ("--health_port=8080", "health_port", 8080),
    ],
)
def test_values(flag: str, name: str, value: object) -> None:
    assert getattr(parse(flag), name) == value


@pytest.mark.parametrize(
    "flag",
    [
        "--input_format=csv",
        "--output_format=xml",
        "--failure_payload=some",
        "--write_method=file_loads",
        "--progress=loud",
        "--max_restarts=1.5",
        "--health_port=http",
        "--input=x",
    ],
)
def test_what_cannot_be_parsed_is_exit_2(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        parse(flag)
    assert error.value.code == 2
    assert flag.split("=")[0] in capsys.readouterr().err


ONE_INPUT = "give either --input_subscription or --input_topic"
NO_OUTPUT = "predictions need a sink: give --output_topic, --output_table or --output"
NO_FAILURES = (
    "rows that fail need a sink, so that none is lost: give --failures_topic, --failures_table or --failures PATH"
)
FEEDS_ITSELF = f"--input_topic {TOPIC} is an output too, so the job would feed itself; give another topic"
AVRO = "--avro_schema FILE and --input_format avro go together; give both or neither"


@pytest.mark.parametrize(
    "changes,text",
    [
        ({"input_subscription": ""}, ONE_INPUT),
        ({"input_topic": "projects/p/topics/other"}, ONE_INPUT),
        ({"output_topic": ""}, NO_OUTPUT),
        ({"failures_topic": ""}, NO_FAILURES),
        ({"input_subscription": "", "input_topic": TOPIC, "failures_topic": "projects/p/topics/f"}, FEEDS_ITSELF),
        ({"input_subscription": "", "input_topic": TOPIC, "output_topic": "projects/p/topics/o"}, FEEDS_ITSELF),
        ({"input_subscription": "", "input_topic": TOPIC, "output_topic": "", "output": "o.csv"}, FEEDS_ITSELF),
        ({"input_format": "avro"}, AVRO),
        ({"avro_schema": "schema.json"}, AVRO),
        ({"model": ""}, "--model is empty"),
        ({"write_method": "streaming_inserts"}, "--write_method applies to --output_table, which is not given"),
        ({"allow_schema_update": True}, "--allow_schema_update applies to --output_table, which is not given"),
        ({"partition_by": "day"}, "--partition_by applies to --output_table, which is not given"),
        ({"cluster_by": ("day",)}, "--cluster_by applies to --output_table, which is not given"),
        (
            {"output_table": "p.d.t", "failures_table": "p.d.t"},
            "--failures_table p.d.t is the table of --output_table; give another one",
        ),
    ],
)
def test_what_does_not_go_together(changes: dict[str, object], text: str) -> None:
    assert refusal(**changes) == text


@pytest.mark.parametrize(
    "changes",
    [
        {"output_topic": "", "output_table": "p.d.t"},
        {"output_topic": "", "output": "out.jsonl"},
        {"output_table": "p.d.t", "output": "out.jsonl"},
        {"failures_topic": "", "failures_table": "p.d.t"},
        {"failures_topic": "", "failures": "out/failed"},
        {"failures_table": "p.d.t", "failures": "out/failed"},
        {"output_table": "p.d.t", "write_method": "streaming_inserts"},
        {"output_table": "p.d.t", "allow_schema_update": True, "partition_by": "day:MONTH", "cluster_by": ("a", "b")},
        {"input_subscription": "", "input_topic": "projects/p/topics/other"},
        {"input_format": "avro", "avro_schema": "schema.json"},
        {"input_format": "example"},
    ],
)
def test_what_goes_together(changes: dict[str, object]) -> None:
    made = options(**changes)
    assert {name: getattr(made, name) for name in changes} == changes


RESOURCES = [
    ("input_subscription", "subscriptions"),
    ("input_topic", "topics"),
    ("output_topic", "topics"),
    ("failures_topic", "topics"),
]


def resource(name: str, value: str) -> dict[str, str]:
    """The changes that give a resource's flag this value."""
    return {name: value} | ({"input_subscription": ""} if name == "input_topic" else {})


@pytest.mark.parametrize("name,kind", RESOURCES)
@pytest.mark.parametrize(
    "value",
    [
        "short",
        "projects/p/{kind}",
        "projects/p/{kind}/",
        "projects/p/{kind}/ab",
        "projects/p/{kind}/1abc",
        "projects/p/{kind}/_abc",
        "projects/p/{kind}/abc/d",
        "projects/p/{kind}/ab c",
        "projects/p/{kind}/abc\n",
        "projects/p/{kind}/äbc",
        "projects//{kind}/abc",
        "projects/p/q/{kind}/abc",
        "/projects/p/{kind}/abc",
        "projects/p/{other}/abc",
        "pubsub://projects/p/{kind}/abc",
        "projects/p/{kind}/" + "a" * 256,
    ],
)
def test_names_of_resources_that_cannot_be(name: str, kind: str, value: str) -> None:
    value = value.format(kind=kind, other="topics" if kind == "subscriptions" else "subscriptions")
    assert refusal(**resource(name, value)) == (
        f"--{name} {value}: expected projects/PROJECT/{kind}/NAME, where NAME has at least 3 letters, digits and "
        "-_.~+%, and starts with a letter"
    )


@pytest.mark.parametrize("name,kind", RESOURCES)
@pytest.mark.parametrize("last", ["abc", "A1-_.~+%x", "a" * 255])
@pytest.mark.parametrize("project", ["p", "my-project-1", "example.com:my-project"])
def test_names_of_resources_that_can_be(name: str, kind: str, last: str, project: str) -> None:
    value = f"projects/{project}/{kind}/{last}"
    assert getattr(options(**resource(name, value)), name) == value


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    "name,values,words",
    [
        ("max_restarts", (-1, 1.5, NAN), "a whole number, 0 or more"),
        ("max_delivery_attempts", (-1, 0.5, NAN), "a whole number, 0 or more"),
        ("health_port", (-1, 65_536, 80.5, NAN), "a whole number, 0 or more and at most 65535"),
        ("max_bundle_messages", (0, -1, 1.5, NAN), "a whole number, more than 0"),
        ("readers", (0, -1, 1.5, NAN), "a whole number, more than 0"),
        ("model_poll_secs", (-0.1, NAN, INF, -INF), "a finite number, 0 or more"),
        ("max_bundle_delay_ms", (-0.5, -1.1, -2, NAN, INF, -INF), "a finite number, 0 or more"),
        ("max_batch_delay_ms", (-1.0,), "a finite number, 0 or more"),
        ("rpc_timeout_secs", (0.0,), "a finite number, more than 0 and at most 86400"),
    ],
)
def test_numbers_that_cannot_be(name: str, values: tuple[float, ...], words: str) -> None:
    for value in values:
        text = f"{value:g}" if isinstance(value, float) else value
        assert refusal(**{name: value}) == f"--{name} {text}: it is {words}"


@pytest.mark.parametrize(
    "name,values",
    [
        ("max_restarts", (0, 10**6)),
        ("max_delivery_attempts", (0, 100)),
        ("health_port", (0, 1, 65_535)),
        ("max_bundle_messages", (1, 10**6)),
        ("model_poll_secs", (0, 0.1, 1e9)),
        ("max_bundle_delay_ms", (-1, -1.0, 0, 0.001, 1e9)),
    ],
)
def test_numbers_that_can_be(name: str, values: tuple[float, ...]) -> None:
    for value in values:
        assert getattr(options(**{name: value}), name) == value


@pytest.mark.parametrize(
    "delay,output,decided",
    [
        (-1.0, "", 0.0),
        (-1.0, "out.jsonl", 10_000.0),
        (0.0, "out.jsonl", 0.0),
        (0.0, "", 0.0),
        (250.5, "out.jsonl", 250.5),
        (250.5, "", 250.5),
    ],
)
def test_how_long_messages_are_gathered(delay: float, output: str, decided: float) -> None:
    assert options(max_bundle_delay_ms=delay, output=output).bundle_delay_ms == decided
