"""The imports that are found by their first words are those of Python's parser."""

import ast

import pytest

from tests.support.imports import Statement, imports_of, parsed_imports_of
from tests.support.paths import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("package", ["models", "transforms", "pipelines", "tests", "benchmarks"])
def test_they_are_those_of_the_parser(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        assert list(map(text, imports_of(path))) == list(map(text, parsed_imports_of(path))), path


def text(statement: Statement) -> tuple[str, bool]:
    return ast.unparse(statement.node), statement.at_top
