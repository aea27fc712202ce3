"""What is known of a command line before it is parsed."""

import pytest

from sluice.pipelines.logs import JSON, TEXT
from sluice.pipelines.options.typed import format_in, typed_value


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], TEXT),
        (["serve", "--log_format"], TEXT),
        (["serve", "--log_format=xml"], TEXT),
        (["serve", "--log_format", "json"], JSON),
        (["serve", "--log_format=json", "--log_format=text"], TEXT),
        (["serve", "--name=--log_format=json"], TEXT),
    ],
)
def test_the_form_of_a_command_line_that_is_not_parsed(words: list[str], wanted: str) -> None:
    assert format_in(words) == wanted


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], None),
        (["--model"], ""),
        (["--model", "a", "--model=b=c"], "b=c"),
        (["--model_timeout_secs=3", "a", "--model=x"], "x"),
    ],
)
def test_the_value_of_a_flag(words: list[str], wanted: str | None) -> None:
    assert typed_value(words, "--model") == wanted
