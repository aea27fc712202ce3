"""Links of README.md and docs/ lead somewhere; the map of the code names what exists. test_docs.py runs examples."""

import pkgutil
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sluice.models.opened import OPENED
from tests.support.paths import ROOT


def examples(name: str) -> list[str]:
    """Returns the examples that are run: before the others a line says why they are not."""
    return re.findall(r"(?<!-->\n)```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


@pytest.mark.slow
def test_the_examples_of_the_library(
    cases: Callable[[str], str],
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    found = examples("docs/library.md")
    printed = []
    for code in found:
        exec(compile(code.replace("path/to/saved_model", cases("picky")), "docs/library.md", "exec"), {})
        printed.append(capfd.readouterr().out)
    OPENED.close()
    frames, returned, rows, _, by_itself = printed
    assert "[{'x': 16.0, 'root': 4.0}]" in frames and "b  9.0   3.0" in frames
    assert "column 'x' is null" in returned and "b  9.0   3.0" in returned
    assert "'root': 2.0" in rows and "must not be negative" in rows
    written = sorted(path.name.split("-")[0] for path in tmp_path.glob("*-of-*"))
    assert written == ["failures", "failures", "large", "scored"]
    assert "{}" in by_itself, "no row has an error"


@pytest.mark.parametrize("name", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_links_lead_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / name).read_text()):
        if "://" not in link:
            assert ((ROOT / name).parent / link).exists(), link


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"(?ms)^ *```.*?^ *```", "", page.read_text())
    heads = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", head) for head in re.findall(r"(?m)^#+ (.+)$", text)]
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_links_lead_to_headings(name: str) -> None:
    for link, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", (ROOT / name).read_text()):
        if "://" not in link:
            target = (ROOT / name).parent / link if link else ROOT / name
            assert target.suffix != ".md" or anchor in anchors(target), f"{link}#{anchor}"


def test_the_map_names_what_exists() -> None:
    """The files and the functions of docs/architecture.md; what a recipe adds is named after something made up."""
    text = re.sub(r"(?s)```.*?```", "", (ROOT / "docs/architecture.md").read_text())
    paths = {name for name in re.findall(r"`([\w./]+)`", text) if "/" in name and not re.search("orc|kafka|NAME", name)}
    assert len(paths) >= 30
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    names = set(re.findall(r"`((?:models|transforms|pipelines)\.[\w.]+)`", text))
    assert len(names) >= 12
    assert [name for name in sorted(names) if pkgutil.resolve_name(f"sluice.{name}") is None] == []
