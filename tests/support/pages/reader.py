"""Follows a page of the docs as its reader would: runs its examples in order, in a directory of its own.

What an example names and no earlier one has made gets a stand-in: a model that takes the root of x, rows with an x, a
server of that model on a free port. So every flag, file name and address of the page is used, and nothing is trained.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import glob
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from sluice.models.errors import UsageError
from sluice.pipelines import cli
from sluice.pipelines.dataflow.runner import beam_options
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.flags import from_namespace
from sluice.pipelines.options.streaming import StreamingOptions
from tests.support.pages.examples import DATAFLOW, EXPORT, FILE, PYTHON, SLUICE, Example
from tests.support.pages.shell import ExampleError, run_line
from tests.support.paths import ROOT
from tests.support.servers import free_port
from tests.support.serving.model_servers import model_server

if TYPE_CHECKING:
    from sluice.models.server.predict import Predictor
    from sluice.models.server.vertex.server import VertexServer

ROWS = [{"id": "a", "x": 4.0}, {"id": "b", "x": 9.0}]

# Words that stand for what the reader has, and what he may have.
_PLACEHOLDERS = {
    r"\bURI\b": "path/to/saved_model",
    r"\bDIR\b": "path/to/saved_model",
    r"\bGLOB\b": "'data/*.csv'",
    r"\bPATH\b": "out/filled.csv",
    r"\bFILE\b": "file.json",
    r"\b(projects|subscriptions|topics|endpoints|models)/[A-Z]\b": r"\1/some-name",
    r"\blocations/L\b": "locations/us-central1",
    r"\s?\[(?:flags|-|@|/)[^]]*\]": "",  # what may be left out
}
_OPTIONS = {"batch": BatchOptions, "streaming": StreamingOptions}
_VARIABLE = re.compile(r"(\w+)=(\S+)")


@dataclasses.dataclass
class Ports:
    """The ports of servers, by those that the page names."""

    by_page: dict[int, int] = dataclasses.field(default_factory=dict)

    def filled(self, text: str) -> str:
        """Returns a text with 127.0.0.1 and the ports that there are."""
        return re.sub(r"\b(?:HOST|127\.0\.0\.1|localhost):(\d+)", self._address, text)

    def _address(self, match: re.Match[str]) -> str:
        return f"127.0.0.1:{self.by_page.get(int(match[1]), match[1])}"


class Reader:
    """A reader of one page, in the current directory. Close it: it stops what the examples have started.

    Args:
      model: returns the directory of a SavedModel by its name; "picky" has the input x.
      others: names of further ones, by the directories under which pages have them.
    """

    def __init__(self, model: Callable[[str], str], others: Mapping[str, str]) -> None:
        self._models, self._others = model, others
        self._model = model("picky")
        self._started = contextlib.ExitStack()
        self._ports = Ports()
        self._exported: dict[str, str] = {}
        self._names: dict[str, Any] = {}
        self._has_all = True  # what is refused on purpose may name what is not there
        self._lay_model("path/to/saved_model")
        self._lay_model("path/to/model")
        self._lay_rows("data/*.csv")

    def close(self) -> None:
        """Stops the servers."""
        self._started.close()

    def run(self, example: Example) -> str:
        """Runs an example; returns what it prints, where that is known. Of one that is not run, checks the flags.

        Raises:
          ExampleError: it does not work.
        """
        if example.kind == FILE:
            Path(example.file).write_text(example.text)
        elif example.kind == EXPORT:
            self._exported |= dict(_VARIABLE.findall(example.text))
        elif example.kind == PYTHON and not example.reason:
            exec(compile(example.text, example.place, "exec"), self._names)
        elif example.kind == SLUICE:
            return self._run_sluice(example)
        elif example.kind == DATAFLOW and not example.reason:
            self._run_script(example)
        elif not example.reason:
            return run_line(example.text, self._program)
        return ""

    def _run_sluice(self, example: Example) -> str:
        text = example.text
        for placeholder, filled in _PLACEHOLDERS.items():
            text = re.sub(placeholder, filled, text)
        if example.reason:
            for words in commands(text):
                check_flags(words)
                self._lay_zoo(words)
            return ""
        if "HOST:" in text:
            self._serve([("--model", self._model), ("--name", "NAME")])
        self._has_all = not example.code
        try:
            printed = run_line(self._ports.filled(text.replace("gs://", "gs/")), self._program)
        except ExampleError as error:
            if example.code and error.code == example.code:
                return str(error)
            raise
        if example.code:
            raise ExampleError(f"it ends with exit code 0, and the page says {example.code}")
        return printed

    def _program(self, words: list[str]) -> int:
        """Runs `sluice` with these words, with what they name in its place."""
        given = list(_flags(words))
        if words[:1] == ["serve"]:
            check_flags(words)
            self._serve(given)
            return 0
        for name, value in given:
            if "://" in value:
                continue
            if name == "--model":
                self._lay_model(value)
            elif name == "--input":
                self._lay_rows(value)
        return cli.main([*words, "--progress=none"] if words[:1] == ["batch"] else words)

    def _serve(self, given: list[tuple[str, str]]) -> None:
        """Serves models in this process, as `sluice serve` with these flags does."""
        names = [value for name, value in given if name == "--name"]
        models = [value for name, value in given if name == "--model"]
        for directory in models:
            self._lay_model(directory)
        bases = dict(zip(names, models, strict=True))
        server = self._started.enter_context(model_server(bases))
        self._ports.by_page |= {8500: server.grpc_port, 8501: server.rest_port}
        if ("--vertex", "") in given:
            self._ports.by_page[8502] = self._started.enter_context(local_vertex(server.predictor, bases)).port

    def _run_script(self, example: Example) -> None:
        """Runs run_dataflow.sh as a dry run, and checks the flags of the commands that it prints."""
        words = shlex.split(example.text, comments=True)
        command = ["bash", str(ROOT / "run_dataflow.sh"), *words[1:], "--dry_run"]
        done = subprocess.run(command, env=os.environ | self._exported, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ExampleError(f"exit code {done.returncode}: {done.stderr.strip()}")
        for line in done.stdout.replace("\\\n", " ").splitlines():
            if "sluice " in line.split("gcloud")[0]:
                check_flags(shlex.split(line)[1:])

    def _lay_model(self, path: str) -> None:
        if not os.path.exists(path) and (self._has_all or path in self._others):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            os.symlink(self._models(self._others.get(path, "picky")), path)

    def _lay_rows(self, pattern: str) -> None:
        if not glob.glob(pattern) and self._has_all:
            path = Path(re.sub(r"[*?]+", "1", pattern))
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.suffix:
                path.mkdir()
                path = path / "rows.csv"
            write_rows(path)

    def _lay_zoo(self, words: list[str]) -> None:
        """Lays what `sluice zoo` would write."""
        if words[:1] != ["zoo"]:
            return
        args = cli._parsers()[0].parse_args(words)
        self._lay_model(os.path.join(args.export, "model"))
        for format_ in args.formats:
            self._lay_rows(os.path.join(args.export, f"{args.name}.{format_}"))


def local_vertex(predictor: Predictor, bases: Mapping[str, str]) -> VertexServer:
    """Returns the local Vertex AI that `sluice serve --vertex` adds to its models."""
    # They import Google's clients.
    from sluice.models.server.vertex.faults import VertexFaults
    from sluice.models.server.vertex.server import VertexServer
    from sluice.pipelines.commands.job_files import StoredJobFiles
    from sluice.pipelines.commands.job_tables import BigQueryTables

    files, faults = StoredJobFiles(), VertexFaults(polls=0)
    return VertexServer(predictor, bases, port=free_port(), files=files, tables=BigQueryTables(), faults=faults)


def commands(text: str) -> Iterator[list[str]]:
    """Yields the words after `sluice` of each such command in a line."""
    for part in re.split(r"\s[|&;]+\s", text):
        words = shlex.split(part, comments=True)
        if words and os.path.basename(words[0]) == "sluice":
            yield words[1:]


def check_flags(words: list[str]) -> None:
    """Checks that a command of ours exists, with the flags and values that it is given.

    Raises:
      ExampleError: it does not.
    """
    if "..." in words:
        check_names(words)
        return
    try:
        args, rest = cli._parsers()[0].parse_known_args(words)
        if args.command in _OPTIONS:
            from_namespace(_OPTIONS[args.command], args)
            beam_options(rest)
        elif rest:
            raise ExampleError(f"`sluice {args.command}` knows no {' '.join(rest)}")
    except (SystemExit, UsageError, argparse.ArgumentTypeError) as error:
        raise ExampleError(f"its flags are refused: {error}") from error


def check_names(words: list[str]) -> None:
    """Checks that a command has the flags of a shortened example.

    Raises:
      ExampleError: it has not.
    """
    known = cli._parsers()[1][words[0]]
    for name, _ in _flags(words):
        if known.flag(name.removeprefix("--")) is None:
            try:
                beam_options([f"{name}=1"])
            except UsageError as error:
                raise ExampleError(str(error)) from error


def _flags(words: list[str]) -> Iterator[tuple[str, str]]:
    """Yields the flags of a command with their values; "" for one without."""
    for at, word in enumerate(words):
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            following = words[at + 1] if at + 1 < len(words) else ""
            yield name, value if equals else "" if following.startswith("--") else following


def write_rows(path: Path) -> None:
    """Writes rows with the columns id and x, in the format of the file's ending."""
    lines = [json.dumps(row) for row in ROWS]
    if path.suffix in (".csv", ".tsv"):
        mark = "," if path.suffix == ".csv" else "\t"
        path.write_text("".join(f"{mark.join(map(str, row))}\n" for row in [("id", "x"), *(r.values() for r in ROWS)]))
    elif path.suffix == ".jsonl":
        path.write_text("".join(f"{line}\n" for line in lines))
    elif path.suffix == ".json":
        path.write_text(f"[{', '.join(lines)}]")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        raise ExampleError(f"{path} is not there, and no stand-in can be made of its ending")
