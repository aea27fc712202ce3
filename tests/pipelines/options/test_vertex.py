"""The flags of managed jobs: what goes with what."""

import argparse
import dataclasses
import re
from typing import Any

import pytest

from sluice.models.errors import UsageError
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.flags import add_arguments, from_namespace
from sluice.pipelines.options.vertex import NOT_DIRECT, VertexFlags

MANAGED = "vertex://projects/p/locations/l/models/m"
ELSEWHERE = [
    "model/dir",
    "gs://b/m",
    "grpc://host:8500/m",
    "http://host:8501/v1/models/m",
    "vertex://projects/p/locations/l/endpoints/1",
]
GIVEN: dict[str, Any] = {
    "vertex_machine_type": "n1-standard-8",
    "vertex_accelerator": "NVIDIA_L4",
    "vertex_replicas": 2,
    "vertex_batch_size": 1,
    "vertex_max_rescore_rate": 0.1,
    "vertex_service_account": "a@b",
    "vertex_direct": True,
    "vertex_job": "7",
    "detach": True,
    "cancel_on_interrupt": True,
}


def options(**flags: Any) -> BatchOptions:
    return BatchOptions(**{"model": MANAGED, "input": "gs://b/i.jsonl", "output": "gs://b/o"} | flags)


@pytest.mark.parametrize("name", GIVEN)
def test_flags_go_with_a_managed_model(name: str) -> None:
    options(**{name: GIVEN[name]})
    assert set(GIVEN) == {field.name for field in dataclasses.fields(VertexFlags)}


@pytest.mark.parametrize("model", ELSEWHERE)
@pytest.mark.parametrize("name", GIVEN)
def test_flags_do_not_go_with_another_model(name: str, model: str) -> None:
    with pytest.raises(
        UsageError, match=f"--{name} applies to a managed job: --model vertex://projects/P/locations/L/m"
    ):
        options(model=model, **{name: GIVEN[name]})
    options(model=model)


@pytest.mark.parametrize("text,parsed", [
    ("", ("", 0)),
    ("NVIDIA_TESLA_T4", ("NVIDIA_TESLA_T4", 1)),
    ("NVIDIA_L4:8", ("NVIDIA_L4", 8)),
])  # fmt: skip
def test_accelerators(text: str, parsed: tuple[str, int]) -> None:
    assert options(vertex_accelerator=text).accelerator() == parsed


@pytest.mark.parametrize("flags,words", [
    ({"vertex_machine_type": ""}, "--vertex_machine_type is empty"),
    ({"vertex_accelerator": "nvidia"}, "--vertex_accelerator nvidia: give TYPE or TYPE:COUNT"),
    ({"vertex_accelerator": "NVIDIA_L4:0"}, "give TYPE or TYPE:COUNT"),
    ({"vertex_accelerator": "NVIDIA_L4:99999999999"}, "give TYPE or TYPE:COUNT"),
    ({"vertex_replicas": 0}, "--vertex_replicas 0: it is a whole number, more than 0"),
    ({"vertex_batch_size": -1}, "--vertex_batch_size -1"),
    ({"vertex_batch_size": 1 << 31}, "--vertex_batch_size 2147483648"),
    ({"vertex_max_rescore_rate": 1.5}, "--vertex_max_rescore_rate 1.5: it is a finite number, 0 or more and at most 1"),
    ({"detach": True, "cancel_on_interrupt": True}, "--detach does not wait for the job"),
    ({"signature": "other"}, "--signature other: a managed job calls 'serving_default' only"),
])  # fmt: skip
def test_values_that_are_refused(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        options(**flags)


UNFIT: dict[str, Any] = {
    "input_query": "SELECT 1", "row_restriction": "x > 1", "column_names": ("a",), "csv_delimiter": ";",
    "csv_quote_char": "'", "allow_quoted_newlines": True, "input_schema": "s.json", "column_defaults": (("a", "1"),),
    "columns": ("a",), "exclude_columns": ("a",), "output_prefix": "p", "add_model_columns": True, "flatten": True,
    "write_disposition": "truncate", "write_method": "file_loads", "allow_schema_update": True, "partition_by": "a",
    "cluster_by": ("a",), "failures": "f", "failures_table": "p.d.f", "failure_payload": "none",
    "failure_payload_dir": "d", "csv_encoding": "latin-1", "csv_skip_lines": 1, "rename_duplicate_columns": True,
    "null_values": ("NA",), "null_strings": True, "map": (("a", "b"),), "limit": 1, "check": True,
    "read_paths": (("a", "b"),), "read_paths_root": "d",
    "vertex_max_rescore_rate": 0.1,
}  # fmt: skip
_OF_TABLES = ("write_disposition", "write_method", "allow_schema_update", "partition_by", "cluster_by")


@pytest.mark.parametrize("name", NOT_DIRECT)
def test_flags_that_have_no_effect_with_direct(name: str) -> None:
    flags: dict[str, Any] = {name: UNFIT[name], "vertex_direct": True}
    if name in _OF_TABLES:
        flags |= {"output": "", "output_table": "p.d.o"}
    if name == "input_query":
        flags["input"] = ""
    if name == "row_restriction":
        flags |= {"input": "", "input_table": "p.d.i"}
    with pytest.raises(UsageError, match=f"--{name} applies to rows that Sluice reads and writes itself"):
        options(**flags)


def test_direct_has_no_files_of_failures() -> None:
    options(vertex_direct=True, output="", output_table="p.d.o", overwrite=True)


def test_the_flags_of_the_command_line() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_arguments(parser, BatchOptions)
    line = [f"--model={MANAGED}", "--input=i", "--output=o", "--detach", "--vertex_replicas=3", "--vertex_direct=true"]
    found = from_namespace(BatchOptions, parser.parse_args(line))
    assert (found.detach, found.vertex_replicas, found.vertex_direct) == (True, 3, True)
    assert "Managed job" in parser.format_help()
