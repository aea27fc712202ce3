"""Flags: golden names and defaults, and the checks of single values."""

import argparse
import dataclasses

import pytest

from models.errors import UsageError
from pipelines.flags import add_arguments, from_namespace, parse_pairs, parse_sizes
from pipelines.options import BatchOptions

# Flags are an interface: changed on purpose only; CHANGELOG.md says so when they are.
FLAGS = {
    "input": None,
    "model": None,
    "output": None,
    "input_format": "",
    "column_names": (),
    "csv_delimiter": ",",
    "csv_quote_char": '"',
    "allow_quoted_newlines": False,
    "input_schema": "",
    "column_defaults": (),
    "signature": "serving_default",
    "max_batch_size": 0,
    "max_batch_bytes": 67108864,
    "max_batch_delay_ms": 0.0,
    "allowed_batch_sizes": (),
    "max_in_flight": 0,
    "intra_op_threads": 0,
    "inter_op_threads": 0,
    "warm_up": True,
    "rpc_timeout_secs": 60.0,
    "rpc_ca_file": "",
    "rpc_headers": (),
    "rpc_token_file": "",
    "rpc_google_auth": False,
    "rest_format": "columns",
    "rest_gzip": False,
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
    "failures": "",
    "failure_payload": "full",
    "max_failure_rate": 0.1,
    "summary_file": "",
    "progress": "auto",
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
    assert found == FLAGS
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
    ],
)
def test_values(flag: str, name: str, value: object) -> None:
    assert getattr(parse(flag), name) == value


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


def test_pairs_and_sizes_say_what_they_expect() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="NAME=VALUE is expected, found 'a'"):
        parse_pairs("a")
    with pytest.raises(argparse.ArgumentTypeError, match="1 or more"):
        parse_sizes("8,-1")


def test_every_flag_has_help() -> None:
    assert all(len(field.metadata["help"]) > 10 for field in dataclasses.fields(BatchOptions))
