"""Flags: golden names and defaults, and the checks of single values."""

import argparse
import dataclasses
import re
from pathlib import Path

import pytest

from sluice.models.errors import UsageError
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.flags import add_arguments, from_namespace, parse_headers, parse_pairs, parse_sizes

# Flags are an interface: changed on purpose only; CHANGELOG.md says so when they are.
FLAGS = {
    "output_table": "",
    "allow_schema_update": False,
    "partition_by": "",
    "cluster_by": (),
    "failures_table": "",
    "bigquery_endpoint": "",
    "bigquery_storage_endpoint": "",
    "input": (),
    "input_table": "",
    "row_restriction": "",
    "input_query": "",
    "model": None,
    "output": "",
    "write_disposition": "append",
    "write_method": "storage_write_api",
    "input_format": "",
    "column_names": (),
    "csv_delimiter": "",
    "csv_quote_char": '"',
    "allow_quoted_newlines": False,
    "csv_encoding": "",
    "csv_skip_lines": 0,
    "rename_duplicate_columns": False,
    "null_values": (),
    "null_strings": False,
    "input_schema": "",
    "column_defaults": (),
    "map": (),
    "read_paths": (),
    "read_paths_root": "",
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
    "output_format": "",
    "output_prefix": "",
    "columns": None,
    "exclude_columns": (),
    "add_model_columns": False,
    "flatten": False,
    "overwrite": False,
    "limit": 0,
    "check": False,
    "failures": "",
    "failure_payload": "full",
    "failure_payload_dir": "",
    "model_timeout_secs": 600.0,
    "max_failure_rate": 0.1,
    "summary_file": "",
    "report_file": "",
    "progress": "auto",
    "log_format": "text",
}
MANAGED = {
    "vertex_machine_type": "n1-standard-4",
    "vertex_accelerator": "",
    "vertex_replicas": 1,
    "vertex_batch_size": 0,
    "vertex_max_rescore_rate": 0.5,
    "vertex_service_account": "",
    "vertex_direct": False,
    "vertex_job": "",
    "detach": False,
    "cancel_on_interrupt": False,
}
REQUIRED = ["--input=i.csv", "--model=m", "--output=o.csv"]


def parse(*flags: str) -> BatchOptions:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_arguments(parser, BatchOptions)
    return from_namespace(BatchOptions, parser.parse_args([*REQUIRED, *flags]))


def test_the_flags_and_their_defaults() -> None:
    found = {
        field.name: None if field.default is dataclasses.MISSING else field.default
        for field in dataclasses.fields(BatchOptions)
    }
    assert found == FLAGS | MANAGED
    assert parse() == BatchOptions(input="i.csv", model="m", output="o.csv")


@pytest.mark.parametrize(
    "flag,name,value",
    [
        ("--overwrite", "overwrite", True),
        ("--overwrite=true", "overwrite", True),
        ("--warm_up=false", "warm_up", False),
        ("--columns=", "columns", ()),
        ("--columns=a, b", "columns", ("a", "b")),
        ("--allowed_batch_sizes=64,8", "allowed_batch_sizes", (8, 64)),
        ("--column_defaults=a=1,b=x=y", "column_defaults", (("a", "1"), ("b", "x=y"))),
        ("--csv_quote_char=", "csv_quote_char", ""),
        ("--input=a, b.csv", "input", ("i.csv", "a, b.csv")),
        ("--input=gs://a/b,gs://a/c, d, gs://e\\, f", "input", ("i.csv", "gs://a/b", "gs://a/c, d", "gs://e, f")),
        ("--csv_delimiter=\\t", "csv_delimiter", "\t"),
        ("--null_values=NA, n\\,a,N/A", "null_values", ("NA", "n,a", "N/A")),
        ("--map=a=b c,d= e\\, f", "map", (("a", "b c"), ("d", " e, f"))),
        ("--read_paths=a=b c,d=e", "read_paths", (("a", "b c"), ("d", "e"))),
        ("--rpc_headers=", "rpc_headers", ()),
        ("--rpc_headers=a=1, B =x=y: z,c=", "rpc_headers", (("a", "1"), ("B", "x=y: z"), ("c", ""))),
    ],
)
def test_values(flag: str, name: str, value: object) -> None:
    assert getattr(parse(flag), name) == value


def test_flags_that_are_given_again_add_to_what_was_given() -> None:
    found = parse("--map=a=b", "--column_defaults=a=1", "--map=c=d,e=f", "--column_defaults=c=2", "--null_values=NA")
    assert found.map == (("a", "b"), ("c", "d"), ("e", "f"))
    assert found.column_defaults == (("a", "1"), ("c", "2"))
    assert parse().map == () == BatchOptions(**FILES).map


@pytest.mark.parametrize("flag", ["--overwrite=maybe", "--failure_payload=some", "--allowed_batch_sizes=0", "--inp=x"])
def test_what_cannot_be_parsed_is_exit_2(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        parse(flag)
    assert error.value.code == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize("name,value", [("max_batch_size", -1), ("max_failure_rate", -0.1), ("input", "")])
def test_the_dataclass_checks_itself(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"--{name}"):
        BatchOptions(**{"input": "i", "model": "m", "output": "o"} | {name: value})  # type: ignore[arg-type]


TABLE = {"input_table": "p.d.i", "model": "m", "output_table": "p.d.o", "failures_table": "p.d.f"}
FILES = {"input": "i.csv", "model": "m", "output": "o.csv"}


@pytest.mark.parametrize(
    "flags",
    [
        TABLE,
        TABLE | {"failures": "f.jsonl", "overwrite": True},
        TABLE | {"row_restriction": "x > 1", "write_disposition": "truncate", "write_method": "file_loads"},
        TABLE | {"allow_schema_update": True, "partition_by": "day", "cluster_by": ("a",)},
        TABLE | {"input_table": "", "input_query": "SELECT 1 AS x"},
        TABLE | {"input_table": "", "input": "i.csv", "csv_delimiter": ";"},
        TABLE | {"output_table": "", "output": "o.csv", "flatten": True},
        TABLE | {"read_paths": (("a", "b"),), "read_paths_root": "gs://b/d"},
        FILES | {"failures_table": "p.d.f"},
    ],
)
def test_ends_that_go_together(flags: dict[str, object]) -> None:
    BatchOptions(**flags)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "flags,words",
    [
        ({}, "give exactly one of --input, --input_table and --input_query"),
        (FILES | {"input_table": "p.d.i"}, "give exactly one of --input, --input_table and --input_query"),
        (TABLE | {"input_query": "SELECT 1"}, "give exactly one of --input, --input_table and --input_query"),
        (TABLE | {"output": "o.csv"}, "give either --output or --output_table"),
        (TABLE | {"failures_table": ""}, "so that none is lost: give --failures_table or --failures PATH"),
        (TABLE | {"failures_table": "p.d.o"}, "--failures_table p.d.o is the table of --output_table"),
        (TABLE | {"failures_table": "p:d.o"}, "--failures_table p:d.o is the table of --output_table"),
        (TABLE | {"overwrite": True}, "--overwrite applies to files; --write_disposition truncate replaces the rows"),
        (FILES | {"row_restriction": "x > 1"}, "--row_restriction applies to --input_table"),
        (FILES | {"csv_delimiter": "§"}, "--csv_delimiter '§': it is one ASCII character"),
        (FILES | {"csv_delimiter": "||"}, "--csv_delimiter '||': it is one ASCII character"),
        (FILES | {"csv_delimiter": "\n"}, "it is one ASCII character that ends no line"),
        (FILES | {"csv_encoding": "utf-9"}, "--csv_encoding utf-9: there is no such encoding"),
        (FILES | {"csv_encoding": "hex"}, "--csv_encoding hex: there is no such encoding"),
        (FILES | {"csv_skip_lines": -1}, "--csv_skip_lines -1: it is a whole number, 0 or more"),
        (FILES | {"limit": -1}, "--limit -1: it is a whole number, 0 or more"),
        (TABLE | {"limit": 1}, "--limit applies to files of --input; leave it out"),
        (FILES | {"read_paths_root": "d"}, "--read_paths_root applies to --read_paths INPUT=COLUMN"),
        (FILES | {"read_paths": (("a", "b"),), "input_format": "files"}, "give --map INPUT=content"),
        (FILES | {"csv_quote_char": "“"}, "--csv_quote_char '“': it is one ASCII character"),
        (FILES | {"csv_quote_char": ","}, "--csv_delimiter and --csv_quote_char are both ','"),
        (TABLE | {"csv_delimiter": ";"}, "--csv_delimiter applies to files of --input; leave it out"),
        (TABLE | {"input_format": "csv"}, "--input_format applies to files of --input; leave it out"),
        (TABLE | {"output_format": "csv"}, "--output_format applies to files of --output; leave it out"),
        (FILES | {"write_disposition": "empty"}, "--write_disposition applies to --output_table; leave it out"),
        (FILES | {"write_method": "file_loads"}, "--write_method applies to --output_table; leave it out"),
        (FILES | {"partition_by": "day"}, "--partition_by applies to --output_table, which is not given"),
        (FILES | {"cluster_by": ("day",)}, "--cluster_by applies to --output_table, which is not given"),
        (FILES | {"allow_schema_update": True}, "--allow_schema_update applies to --output_table, which is not given"),
    ],
)
def test_ends_that_do_not_go_together(flags: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        BatchOptions(**{"model": "m"} | flags)  # type: ignore[arg-type]


def test_pairs_and_sizes_say_what_they_expect() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected NAME=VALUE, found 'a'"):
        parse_pairs("a")
    with pytest.raises(argparse.ArgumentTypeError, match="1 or more"):
        parse_sizes("8,-1")


def test_headers_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "headers"
    path.write_bytes(
        b"\xef\xbb\xbfAuthorization: Basic eA==\r\n\n  accept : a, b;q=0.5\nx-y=z: 1,2 \n \t\nempty=\nlast:1"
    )
    assert parse(f"--rpc_headers=@{path}").rpc_headers == (
        ("Authorization", "Basic eA=="),
        ("accept", "a, b;q=0.5"),
        ("x-y", "z: 1,2"),
        ("empty", ""),
        ("last", "1"),
    )


def test_control_characters_in_a_file_are_kept_for_the_check_of_headers(tmp_path: Path) -> None:
    path = tmp_path / "headers"
    path.write_bytes(b"a: \x0b1\x0c2\x1c\x00")
    assert parse_headers(f"@{path}") == (("a", "\x0b1\x0c2\x1c\x00"),)


@pytest.mark.parametrize(
    "content,words",
    [
        (None, "cannot be read: No such file"),
        (b"", "has no headers; give one a line, as NAME: VALUE"),
        (b"\n \n", "has no headers"),
        (b"a: 1\n\ns3cret\n", "line 3 is not NAME: VALUE or NAME=VALUE"),
        (b"a: s3cret\xff", "cannot be read: it is not a text file in UTF-8"),
    ],
)
def test_a_file_of_headers_that_holds_none(
    tmp_path: Path, content: bytes | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "headers"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit):
        parse(f"--rpc_headers=@{path}")
    error = capsys.readouterr().err
    assert f"argument --rpc_headers: {path}" in error and words in error and "s3cret" not in error


def test_headers_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--rpc_headers=a=s3cret-1,s3cret-2")
    error = capsys.readouterr().err
    assert "argument --rpc_headers: header 2 is not NAME=VALUE" in error and "@FILE" in error
    assert "s3cret" not in error
    options = parse("--rpc_headers=a=s3cret-1")
    assert "s3cret" not in repr(options) + repr(options.endpoint_options())
    assert options != parse("--rpc_headers=a=s3cret-2")


def test_every_flag_has_help() -> None:
    assert all(len(field.metadata["help"]) > 10 for field in dataclasses.fields(BatchOptions))
