"""The flags of `sluice compare`: what they take, and what goes to `sluice batch`."""

import argparse
from typing import Any

import pytest

from sluice.models.errors import UsageError
from sluice.pipelines.commands.compare_run import joined_flags
from sluice.pipelines.options.compare import CompareOptions, parse_duration
from sluice.pipelines.options.flags import add_arguments, from_namespace

GIVEN: dict[str, Any] = {"model": "m", "input": ("i.csv",)}


def parse(*words: str) -> CompareOptions:
    parser = argparse.ArgumentParser()
    add_arguments(parser, CompareOptions)
    return from_namespace(CompareOptions, parser.parse_args(["--model=m", "--input=i.csv", *words]))


def test_defaults_are_those_of_the_class() -> None:
    assert parse() == CompareOptions(**GIVEN)


def test_values_are_parsed() -> None:
    endpoints = ("--endpoint=grpc://h/n", "--endpoint=http://h/v1/models/a,b")
    found = parse(*endpoints, "--input=j.csv", "--rows=9", "--deadline=5h")
    assert found.endpoint == ("grpc://h/n", "http://h/v1/models/a,b") and found.input == ("i.csv", "j.csv")
    assert (found.rows, found.deadline, found.minutes) == (9, 18_000.0, 10.0)


@pytest.mark.parametrize(("text", "secs"), [("90s", 90), ("1.5m", 90), ("5h", 18_000), ("2d", 172_800), ("", 0)])
def test_durations(text: str, secs: float) -> None:
    assert parse_duration(text) == secs


@pytest.mark.parametrize("text", ["5", "h", "-5h", "5 h", "5h30m", "1e3s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="90s, 30m, 5h or 2d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model": ""}, "--model is missing"),
        ({"input": ()}, "--input is missing"),
        ({"input": ("gs://b/x.csv",)}, "has to be on this machine"),
        ({"minutes": 0.0}, "--minutes"),
        ({"minutes": float("nan")}, "--minutes"),
        ({"target_qps": -1.0}, "--target_qps"),
        ({"rows": 5}, "--rows and --deadline go together"),
        ({"deadline": 5.0}, "--rows and --deadline go together"),
    ],
)
def test_invalid_values_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        CompareOptions(**(GIVEN | values))


def test_flags_of_jobs_are_joined_with_their_values() -> None:
    assert joined_flags(["--map", "a=b", "--null_strings", "--signature=s", "--null_values", "NA,x"]) == [
        "--map=a=b", "--null_strings", "--signature=s", "--null_values=NA,x"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["more.csv"], "'more.csv' is no flag"),
        (["--signature=s", "more.csv"], "'more.csv' is no flag"),
        (["--output=x"], "--output has no place in a comparison"),
        (["--read_paths=x=y"], "--read_paths has no place in a comparison"),
        (["--input_format=files"], "--input_format=files: a comparison reads rows"),
        (["--limit", "5"], "--limit has no place"),
    ],
)
def test_what_has_no_place_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        joined_flags(words)
