"""Every example of README.md and docs/ works as pasted, or says why it is not run.

`python -m tests.test_docs` lists the examples that are not run, with their reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sluice.models.cache import clear_cache
from sluice.models.opened import OPENED
from tests.support.pages.examples import OTHER, SLUICE, Example, examples_of, pages
from tests.support.pages.reader import Reader
from tests.support.pages.shell import ExampleError
from tests.support.paths import ROOT

EXAMPLES = {page: examples_of(page) for page in pages()}
NOT_RUN = [example for examples in EXAMPLES.values() for example in examples if example.reason]

HOW_TO_MEND = """
Each example of README.md and docs/ is run as it stands, page by page, in a directory of its own. Mend the example, or:
- it needs a file: show the file in a block of its own before it, whose first line has its name: ```yaml job.yaml
- it needs an account, a cluster, docker, a network or minutes: write in the line before its block
  <!-- not run: REASON -->
Models that an example names are stand-ins that take the root of the column x; input that is not there has id and x."""


@pytest.fixture
def reader(cases: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """A reader in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    reader = Reader(cases, {"penguins_model": "penguins"})
    yield reader
    reader.close()
    OPENED.close()
    clear_cache()


# What pages print, where a wrong answer would be no error.
PRINTED = {
    "README.md": "'x': 2.0",
    "docs/library.md": "{}\n",
    "docs/serving.md": "2.0",
}


@pytest.mark.job
@pytest.mark.parametrize("page", [page for page, examples in EXAMPLES.items() if examples])
def test_the_examples_of_a_page(page: str, reader: Reader, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = []
    for example in EXAMPLES[page]:
        try:
            reader.run(example)
        except Exception as error:  # noqa: BLE001  all that is wrong with a page is told at once
            wrong.append(f"{example.place}: {example.text}\n    {type(error).__name__}: {error}")
    assert not wrong, "\n".join([*wrong, HOW_TO_MEND])
    assert PRINTED.get(page, "") in capfd.readouterr().out


@pytest.mark.parametrize("example", NOT_RUN, ids=lambda example: f"{example.place} {example.reason}")
def test_what_is_not_run_is_of_a_kind_that_has_a_reason(example: Example) -> None:
    """The flags of these are checked all the same, by the test of their page."""
    assert example.kind in (SLUICE, OTHER, "dataflow", "python", "file"), example


def test_one_way_to_write_a_command() -> None:
    """Pages say `sluice`, which an activated environment has; README.md says how to activate it."""
    assert ". .venv/bin/activate" in (ROOT / "README.md").read_text()
    assert [page for page in EXAMPLES if "venv/bin/sluice" in (ROOT / page).read_text()] == []


def test_a_page_that_does_not_work_says_so(reader: Reader) -> None:
    text = "```\nsluice batch --model DIR --input 'data/*.csv' --output out.csv --no_such_flag=1\n```\n"
    (example,) = examples_of("page.md", text)
    with pytest.raises(ExampleError, match="no_such_flag"):
        reader.run(example)


if __name__ == "__main__":
    for each in NOT_RUN:
        print(f"{each.place}: {each.reason}: {each.text.splitlines()[0]}")
