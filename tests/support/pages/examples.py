"""The examples in README.md and docs/*.md: what stands in their fenced blocks, and why some of it is not run.

A block is run as it stands, unless a rule of `_NOT_RUN` says why not, or a line before the block does:

    <!-- not run: REASON -->

The commands of a block after the line <!-- exit code 2 --> are refused on purpose. A block whose opening line names a
file, as in ```yaml job.yaml, is laid beside the examples under that name.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from tests.support.paths import ROOT

SLUICE, DATAFLOW, PYTHON, EXPORT, FILE, OTHER = "sluice", "dataflow", "python", "export", "file", "other"

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[ ]*(?P<file>\S*)[ ]*$")
_MARKER = re.compile(r"^<!-- (?:not run: (?P<reason>.+?)|exit code (?P<code>\d+)) -->$")
_COMMAND_LINE = re.compile(r"(^|[\s|&;])(?P<program>\S*\bsluice)\s+(?P<first>-{1,2}\w\S*|[a-z][a-z-]*)(?=\s|$)")
# A file that a shell writes, as in: cat > job.yaml <<'END'
_HERE = re.compile(r"^cat > (?P<file>\S+) <<'?(?P<end>\w+)'?$")
_SHELLS = ("bash", "sh", "shell", "console")

# Why a command of `sluice` is not run; its flags are checked all the same. The first that matches counts.
_NOT_RUN = {
    r"--(in|out)put_(table|query)|--failures_table": "needs BigQuery",
    r"\bsluice (streaming|simulate|latency|replay|demo-streaming)\b": "needs Pub/Sub",
    r"vertex://(?!projects/local/)": "needs an account of Vertex AI",
    r"--runner=DataflowRunner": "needs an account of Dataflow",
    r"--runner=(Flink|Prism|Portable)Runner": "needs a job server",
    r"\bsluice zoo\b": "trains a model for seconds; tests/pipelines/commands/test_zoo.py runs it. Stand-ins are laid "
    "where it writes",
    r"\bsluice compare\b": "measures for minutes",
    r"\bsluice demo\b": "trains a model for seconds; CI's `make demo` is this",
    r"(?<!\.)\.\.\.(?!\.)": "is shortened",
}
# Why other programs are not run.
_PROGRAMS = {
    "make": "installs, or runs for minutes",
    ".": "is for a shell",
    "source": "is for a shell",
    "cd": "is for a shell",
    "pip": "needs the network",
    "gcloud": "needs an account",
    "docker": "needs docker",
    "kubectl": "needs a cluster",
    "mvn": "needs the network",
    "git": "needs the network",
    "curl": "needs the network",
}


@dataclasses.dataclass(frozen=True)
class Example:
    """A command, a piece of Python, or a file.

    Attributes:
      page: its file, from the top of the checkout.
      line: where it begins.
      kind: SLUICE: a command line with our command in it; DATAFLOW: one of run_dataflow.sh; EXPORT: variables of the
        shell; OTHER: another program's, or output that looks like a command.
      text: without what a shell leaves out: the prompt, and the backslashes at ends of lines.
      reason: why it is not run; "": it is.
      file: the name of a FILE.
      code: the exit code that it ends with.
    """

    page: str
    line: int
    kind: str
    text: str
    reason: str = ""
    file: str = ""
    code: int = 0

    @property
    def place(self) -> str:
        """Returns PAGE:LINE."""
        return f"{self.page}:{self.line}"


@dataclasses.dataclass(frozen=True)
class _Block:
    """A fenced block: its language, the name of a file, its lines, and what a marker before it says.

    Blocks in a list are indented, and their lines are not part of what they say by so much.
    """

    line: int
    language: str
    file: str
    lines: list[str]
    reason: str = ""
    code: int = 0
    indent: str = ""


def pages() -> list[str]:
    """Returns the pages with examples."""
    return ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


def examples_of(page: str, text: str | None = None) -> list[Example]:
    """Returns the examples of a page, in their order.

    Args:
      text: of the page; None: it is read.
    """
    text = (ROOT / page).read_text() if text is None else text
    return [example for block in _blocks(text) for example in _examples(page, block)]


def _blocks(text: str) -> Iterator[_Block]:
    block: _Block | None = None
    said: dict[str, Any] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if block is not None and line.strip() == "```":
            yield block
            block = None
        elif block is not None:
            block.lines.append(line.removeprefix(block.indent))
        elif fence := _FENCE.match(line):
            block, said = _Block(number + 1, fence["language"], fence["file"], [], **said, indent=fence["indent"]), {}
        elif line.strip():
            marker = _MARKER.match(line.strip())
            said = {"reason": marker["reason"] or "", "code": int(marker["code"] or 0)} if marker else {}
    assert block is None, "a block is not closed"


def _examples(page: str, block: _Block) -> Iterator[Example]:
    whole = "\n".join(block.lines)
    if block.file:
        yield Example(page, block.line, FILE, f"{whole}\n", block.reason, block.file)
    elif block.language == PYTHON:
        yield Example(page, block.line, PYTHON, whole, block.reason)
    elif block.language in ("", *_SHELLS):
        transcript = any(line.startswith("$ ") for line in block.lines)
        yield from _here_files(page, block)
        for number, text in _commands(block, transcript):
            kind = _kind(text, block.language in _SHELLS or transcript)
            if kind:
                yield Example(page, number, kind, text, block.reason or _reason(kind, text), code=block.code)


def _here_files(page: str, block: _Block) -> Iterator[Example]:
    """Yields the files that a block writes, and takes their lines out of it."""
    for at, line in enumerate(list(block.lines)):
        if here := _HERE.match(line):
            end = block.lines.index(here["end"], at)
            text = "".join(f"{each}\n" for each in block.lines[at + 1 : end])
            yield Example(page, block.line + at, FILE, text, block.reason, here["file"])
            block.lines[at : end + 1] = [""] * (end + 1 - at)


def _commands(block: _Block, transcript: bool) -> Iterator[tuple[int, str]]:
    """Yields (line, text) of what may be a command: lines that a backslash joins are one."""
    begun: list[str] = []
    number = block.line
    for at, line in enumerate(block.lines, block.line):
        if not begun:
            if transcript and not line.startswith("$ "):
                continue
            number, line = at, line.removeprefix("$ ")
        begun.append(line.strip().removesuffix("\\").strip())
        if not line.rstrip().endswith("\\"):
            if (text := " ".join(begun)) and not text.startswith("#"):
                yield number, text
            begun = []


def _kind(text: str, is_shell: bool) -> str:
    """Returns the kind of a line in a block; "" if it seems to be output, or data."""
    program = text.split()[0]
    if program.endswith("run_dataflow.sh"):
        return DATAFLOW
    if program == "export":
        return EXPORT
    if _COMMAND_LINE.search(text):
        return SLUICE
    return OTHER if is_shell or program in _PROGRAMS else ""


def _reason(kind: str, text: str) -> str:
    if kind == OTHER:
        return _PROGRAMS.get(text.split()[0], "")
    if kind == DATAFLOW:
        return "is shortened" if re.search(r"(?<!\.)\.\.\.(?!\.)", text) else ""
    return next((why for rule, why in _NOT_RUN.items() if kind == SLUICE and re.search(rule, text)), "")
