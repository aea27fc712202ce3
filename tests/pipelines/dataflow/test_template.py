"""Flex Templates: their metadata, and that every option comes through a launch as it was given."""

import argparse
import dataclasses
import json
import re
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from apache_beam.options.pipeline_options import StandardOptions
from apache_beam.runners.dataflow.internal.apiclient import Environment
from hypothesis import assume, given
from hypothesis import strategies as st

from sluice.models.cache import ModelRecipe
from sluice.models.errors import UsageError
from sluice.models.uri import parse_model_uri
from sluice.pipelines import cli
from sluice.pipelines.dataflow.defaults import parameters_of, set_defaults
from sluice.pipelines.dataflow.runner import beam_options
from sluice.pipelines.dataflow.template import OPTIONS, metadata, template_fields, to_json, to_text
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.flags import (
    from_namespace,
    parse_bool,
    parse_headers,
    parse_map,
    parse_names,
    parse_pairs,
    parse_sizes,
)
from sluice.pipelines.options.streaming import StreamingOptions
from sluice.pipelines.options.vertex import VertexFlags
from tests.support.dataflow.gcloud import gcloud_environment
from tests.support.paths import ROOT
from tests.support.sizes import examples

PIPELINES = tuple(OPTIONS)
SECRETS = {"rpc_headers"}
MACHINE_FILES = {"rpc_ca_file", "rpc_token_file"}
WAITED_FOR = {"summary_file", "report_file", "progress", "log_format"}
# The launcher of a template cannot wait for a managed job.
MANAGED = {field.name for field in dataclasses.fields(VertexFlags)}
CHECKED = {"check"}
LOCAL = {
    "max_bundle_messages",
    "max_bundle_delay_ms",
    "max_delivery_attempts",
    "readers",
    "max_restarts",
    "health_port",
    "health_address",
}
# https://cloud.google.com/dataflow/docs/reference/rest/v1b3/TemplateMetadata
PARAM_TYPES = {"TEXT", "GCS_READ_FILE", "GCS_WRITE_FILE", "PUBSUB_TOPIC", "PUBSUB_SUBSCRIPTION", "BIGQUERY_TABLE"}
PARAM_TYPES |= {"BOOLEAN", "ENUM", "NUMBER"}
BEAM_FLAGS = ["--project=p", "--region=r", "--temp_location=gs://b/t", "--staging_location=gs://b/t"]
PARAM_KEYS = {"name", "label", "helpText", "groupName", "isOptional", "paramType", "regexes", "enumOptions"}

FILES = {"input": "gs://b/i.csv", "model": "gs://b/m", "output": "gs://b/o.csv"}
TABLES = {"input_table": "p.d.in", "model": "gs://b/m", "output_table": "p.d.out"}
STREAM = {"input_subscription": "projects/p/subscriptions/sub", "model": "gs://b/m"}
STREAM |= {"output_topic": "projects/p/topics/out", "failures_topic": "projects/p/topics/failed"}
# Options to begin with: not every flag goes with every input and output.
BASES: dict[str, list[dict[str, Any]]] = {
    "batch": [
        FILES,
        TABLES,
        {key: value for key, value in TABLES.items() if key != "input_table"} | {"input_query": "SELECT 1"},
        TABLES | {"output_table": "", "output": "gs://b/o.csv"},
    ],
    "streaming": [
        STREAM,
        STREAM | {"output_table": "p.d.out"},
        STREAM | {"input_format": "avro", "avro_schema": "gs://b/s.avsc"},
        {key: value for key, value in STREAM.items() if key != "input_subscription"},
    ],
}

PARSER, _ = cli._parsers()

names = st.text(string.ascii_letters + string.digits + "_.-", min_size=1, max_size=8)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1, max_size=12)
ids = st.from_regex(r"\A[a-z][a-z0-9-]{2,12}\Z")
BY_METAVAR: dict[str, st.SearchStrategy[Any]] = {
    "GLOB": st.lists(texts.map(lambda text: "gs://b/" + text.rstrip("\\")), min_size=1, max_size=2).map(tuple),
    "ENCODING": st.sampled_from(["cp1252", "UTF-8", "utf-16"]),
    "FILE": texts.map("gs://b/{}".format),
    "FILE|auto": st.just("auto") | texts.map("gs://b/{}".format),
    "PATH": names.map("gs://b/{}.csv".format),
    "SUBSCRIPTION": ids.map("projects/p/subscriptions/{}".format),
    "TOPIC": ids.map("projects/p/topics/{}".format),
    "TABLE": ids.map("p.d.{}".format),
    "URL": st.sampled_from(["https://h", "http://h:8502"]),
    "URI": st.sampled_from(
        [
            "gs://b/m",
            "grpc://h:8500/n",
            "https://h/v1/models/n/versions/3",
            "grpcs://h/n/labels/x",
            "vertex://projects/p/locations/l/endpoints/4?method=predict",
        ]
    ),
    "CHAR": st.characters(codec="ascii", exclude_characters="\0\r\n"),
}
BY_PARSE: dict[Any, st.SearchStrategy[Any]] = {
    parse_bool: st.booleans(),
    int: st.integers(0, 1 << 31),
    float: st.floats(0, 1, allow_subnormal=False) | st.integers(0, 80_000).map(float) | st.just(-1.0),
    parse_names: st.lists(names, max_size=3).map(tuple),
    parse_sizes: st.lists(st.integers(1, 9999), max_size=3).map(sorted).map(tuple),
    parse_pairs: st.lists(st.tuples(names, names | st.just("a=b")), max_size=3).map(tuple),
    parse_map: st.lists(st.tuples(names, names | st.sampled_from(["a, b", " c", "x=y"])), max_size=3).map(tuple),
}


def values_of(field: "dataclasses.Field[Any]") -> st.SearchStrategy[Any]:
    meta = field.metadata
    if meta["choices"]:
        return st.sampled_from(meta["choices"])
    if meta["parse"] in BY_PARSE:
        return BY_PARSE[meta["parse"]]
    return BY_METAVAR.get(meta["metavar"], texts)


@st.composite
def jobs(draw: st.DrawFn, pipeline: str) -> BatchOptions | StreamingOptions:
    """Options of a job that may be: some that go together, and some others changed."""
    base = draw(st.sampled_from(BASES[pipeline]))
    if not {"input_subscription", "input_topic"} & set(base) and pipeline == "streaming":
        base = base | {"input_topic": "projects/p/topics/in"}
    changed = draw(st.lists(st.sampled_from(template_fields(pipeline)), max_size=6, unique=True))
    values = base | {field.name: draw(values_of(field)) for field in changed}
    try:
        return OPTIONS[pipeline](**values)  # type: ignore[no-any-return]
    except UsageError:
        assume(False)
        raise


def launched(pipeline: str, parameters: dict[str, str]) -> tuple[Any, list[str]]:
    """Returns the options, and the flags for Beam, of the script that a launcher runs with these parameters."""
    arguments = [f"--{name}={text}" for name, text in parameters.items()]
    namespace, rest = PARSER.parse_known_args([pipeline, *arguments])
    return from_namespace(OPTIONS[pipeline], namespace), rest


def job_options(pipeline: str, options: Any, beam_flags: list[str]) -> dict[str, Any]:
    """Returns what Dataflow's console shows of a job's options, and workers get: what Beam puts into the job."""
    beam = beam_options(["--runner=DataflowRunner", *BEAM_FLAGS, *beam_flags])
    beam.view_as(StandardOptions).streaming = pipeline == "streaming"
    set_defaults(beam, options, ModelRecipe(parse_model_uri(options.model)), None)
    job = Environment([], beam, "8", "gs://b/pipeline.pb").proto
    return dict(job.sdk_pipeline_options["options"])


def check_accepted(pipeline: str, parameters: dict[str, str]) -> None:
    """Fails where Dataflow would refuse a parameter: one that it does not know, or of another form."""
    known = {each["name"]: each for each in metadata(pipeline)["parameters"]}
    for name, text in parameters.items():
        for regex in known[name].get("regexes", ()):
            assert re.search(regex, text), f"{name}={text} is not {regex}"
        options = [each["value"] for each in known[name].get("enumOptions", ())]
        assert not options or text in options


@given(st.data())
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_options_come_through_a_launch(pipeline: str, data: st.DataObject) -> None:
    options = data.draw(jobs(pipeline))
    parameters = parameters_of(options)
    check_accepted(pipeline, parameters)
    image = {"sdk_container_image": "example/image:1"}
    back, beam_flags = launched(pipeline, parameters | image)
    assert back == options
    assert beam_flags == ["--sdk_container_image=example/image:1"]


@examples(10)  # Beam takes some 30 ms to make the options of a job
@given(st.data())
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_job_tells_what_it_was_launched_with(pipeline: str, data: st.DataObject) -> None:
    options = data.draw(jobs(pipeline))
    back, beam_flags = launched(pipeline, parameters_of(options) | {"sdk_container_image": "example/image:1"})
    job = job_options(pipeline, back, beam_flags)
    assert job["sdk_container_image"] == "example/image:1"
    assert launched(pipeline, json.loads(job["sluice_options"])) == (options, [])


@pytest.mark.parametrize("pipeline,name", [(each, field.name) for each in PIPELINES for field in template_fields(each)])
@examples(10)
@given(st.data())
def test_every_option_does(pipeline: str, name: str, data: st.DataObject) -> None:
    (field,) = (each for each in template_fields(pipeline) if each.name == name)
    value = data.draw(values_of(field))
    text = to_text(value)
    assert field.metadata["parse"](text) == value
    check_accepted(pipeline, {name: text})


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_defaults_of_the_form_are_those_of_the_flags(pipeline: str) -> None:
    prefilled = {
        each["name"]: each["defaultValue"] for each in metadata(pipeline)["parameters"] if "defaultValue" in each
    }
    base = OPTIONS[pipeline](**BASES[pipeline][0])
    options, _ = launched(pipeline, prefilled | parameters_of(base))
    assert options == base
    assert {"max_batch_bytes", "warm_up", "signature"} <= set(prefilled)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_what_a_form_leaves_blank_is_the_default(pipeline: str) -> None:
    base = OPTIONS[pipeline](**BASES[pipeline][0])
    given = parameters_of(base)
    a_value_of_its_own = {"columns", "csv_delimiter", "csv_quote_char", "signature"}
    blank = {each.name: "" for each in template_fields(pipeline) if each.name not in {*given, *a_value_of_its_own}}
    assert launched(pipeline, blank | given)[0] == base


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_committed_metadata_is_current(pipeline: str) -> None:
    path = f"deploy/{pipeline}_metadata.json"
    command = f"sluice template metadata --pipeline {pipeline} --output {path}"
    assert (ROOT / path).read_text() == to_json(metadata(pipeline)), f"run: {command}"


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_which_options_are_parameters(pipeline: str) -> None:
    all_names = {field.name for field in dataclasses.fields(OPTIONS[pipeline])}
    left_out = all_names - {each["name"] for each in metadata(pipeline)["parameters"]}
    batch_only = MANAGED | CHECKED
    assert left_out == SECRETS | MACHINE_FILES | WAITED_FOR | (LOCAL if pipeline == "streaming" else batch_only)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_form_of_the_metadata(pipeline: str) -> None:
    found = metadata(pipeline, image="example/image:1")
    streaming = (
        {"supportsAtLeastOnce", "supportsExactlyOnce", "defaultStreamingMode"} if pipeline == "streaming" else set()
    )
    assert set(found) == {"name", "description", "streaming", "parameters", *streaming}
    assert found["streaming"] is (pipeline == "streaming")
    parameters = found["parameters"]
    assert len({each["name"] for each in parameters}) == len(parameters)
    for each in parameters:
        assert set(each) <= PARAM_KEYS | {"defaultValue"}
        assert each["paramType"] in PARAM_TYPES and each["label"] and each["helpText"] and each["groupName"]
        assert all(re.compile(regex) for regex in each.get("regexes", ()))
    image = next(each for each in parameters if each["name"] == "sdk_container_image")
    assert (image["isOptional"], image["defaultValue"]) == (False, "example/image:1")


def test_the_parameters_of_beam_are_flags_of_beam() -> None:
    ours = {field.name for field in template_fields("batch")}
    theirs = [each["name"] for each in metadata("batch")["parameters"] if each["name"] not in ours]
    assert theirs == ["sdk_container_image", "number_of_worker_harness_threads", "dataflow_service_options"]
    beam_options([f"--{name}=1" for name in theirs])


def test_headers_are_secret_and_no_parameter() -> None:
    secrets = {field.name for field in dataclasses.fields(BatchOptions) if field.metadata["parse"] is parse_headers}
    assert secrets == SECRETS
    options = BatchOptions(
        **FILES | {"rpc_headers": (("Authorization", "Bearer hush"),), "rpc_token_file": "/run/token"}
    )
    job = job_options("batch", options, ["--sdk_container_image=example/image:1"])
    assert json.loads(job["sluice_options"]) == FILES | {"rpc_token_file": "/run/token"}
    assert "hush" not in str(job)


def test_the_command_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "metadata.json"
    assert cli.main(["template", "metadata", "--pipeline", "batch", "--image", "i:1", "--output", str(path)]) == 0
    assert json.loads(path.read_text()) == metadata("batch", "i:1")
    assert cli.main(["template", "metadata", "--pipeline", "batch", "--output", str(tmp_path / "no" / "f")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.job
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_gcloud_takes_the_metadata(pipeline: str, tmp_path: Path) -> None:
    path = ROOT / "deploy" / f"{pipeline}_metadata.json"
    flags = ["--image=i", "--sdk-language=PYTHON", f"--metadata-file={path}", "--print-only", "--project=p"]
    done = subprocess.run(
        ["gcloud", "dataflow", "flex-template", "build", "gs://b/t.json", *flags],
        env=gcloud_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    spec = json.loads(yaml.safe_load(done.stdout))
    committed = json.loads(path.read_text())
    assert {key: committed[key] for key in ("name", "description", "parameters")}.items() <= spec["metadata"].items()


def test_no_module_shadows_another_in_a_script() -> None:
    """A launcher runs a file of deploy/ as a script, so that sys.path begins with its directory."""
    import importlib.metadata

    ours = {path.stem for path in (ROOT / "deploy").glob("*.py")}
    assert not ours & {*sys.stdlib_module_names, *importlib.metadata.packages_distributions()}


@pytest.mark.job
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_scripts_run(pipeline: str) -> None:
    script = str(ROOT / "deploy" / f"launch_{pipeline}.py")
    done = subprocess.run([sys.executable, script, "--max_retries="], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--model" in done.stderr and "Traceback" not in done.stderr


def test_a_choice_is_still_checked() -> None:
    parser = argparse.ArgumentParser()
    from sluice.pipelines.options.flags import add_arguments

    add_arguments(parser, BatchOptions)
    with pytest.raises(SystemExit):
        parser.parse_args(["--model=m", "--input_format=xml"])
