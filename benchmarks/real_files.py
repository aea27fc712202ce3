"""Real CSV and JSON files through `sluice batch`, as a user does it who follows what Sluice prints.

`python -m benchmarks.real_files` takes 120 CSV files and every table of JSON from four packages of real_packages.py.
It makes a model for each (benchmarks.real_models), and scores all its rows. The first command has no flags. Where
Sluice refuses it, or says what may be done about rows, the flags that it names are given, and nothing else. Scores are
compared with a direct call of the model, fed with what pandas reads, and the other columns with the file. It writes
benchmarks/REAL_FILES.md. Exit code 1: a row is not equal.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import logging
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from benchmarks.real_models import OUTPUT, TEXT, TRUTH, Table, call_directly, feeds, read_table, save_model
from benchmarks.real_packages import PACKAGES, csv_files, fetch, json_tables, read_json_rows
from sluice.models.cache import clear_cache
from sluice.pipelines.cli import main as sluice

RESULTS = os.path.join(os.path.dirname(__file__), "REAL_FILES.md")
# A user gives up after so many commands.
TRIES = 60

_FLAG = re.compile(r"--(\w+)(?:[ =]((?:'[^']*'|\"[^\"]*\"|\\.|[^\s;,()'\"\\]|[,](?=\S))+))?")
# Flags that users give when Sluice names them; those with True stand alone.
_ACCEPTED = {
    "map": False,
    "null_values": False,
    "column_defaults": False,
    "csv_delimiter": False,
    "csv_encoding": False,
    "rename_duplicate_columns": True,
    "allow_quoted_newlines": True,
}
# What a user says of an input that has no value.
_STAND_INS = {TEXT: "none", TRUTH: "false"}
_REPEATED = ("map", "null_values", "column_defaults")


@dataclasses.dataclass(frozen=True)
class Run:
    """A command that was run.

    Attributes:
      told: what it printed and logged, and the reasons of failed rows.
    """

    code: int
    told: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a file.

    Attributes:
      failed: rows that failed, as those without a value do.
      flags: those that Sluice asked for.
      tries: how many commands were needed.
      refusal: why it cannot be scored; "": it was.
      difference: what is not equal; "": nothing.
    """

    path: str
    rows: int
    columns: int
    failed: int = 0
    flags: tuple[str, ...] = ()
    tries: int = 1
    refusal: str = ""
    difference: str = ""


def score(path: str, directory: str) -> Outcome:
    """Scores a file, with the flags that Sluice names, and compares.

    Args:
      directory: an empty one.
    """
    try:
        table = read_table(path)
    except (ValueError, pd.errors.ParserError) as error:
        return Outcome(path, 0, 0, refusal=f"pandas does not read it: {str(error).strip()}")
    if not table.columns or not table.rows:
        return Outcome(path, table.rows, 0, refusal="it has no column with a name and values")
    model = os.path.join(directory, "model")
    save_model(table, model)
    output = os.path.join(directory, "out.csv" if _is_csv(path) else "out.jsonl")
    command = ["--model", model, "--input", path, "--output", output, "--overwrite", "--progress=none"]
    flags: list[str] = []
    tries = 0
    while tries < TRIES:
        tries += 1
        run = _run([*command, *flags], directory)
        further = [flag for flag in asked_for(run.told, table) if flag not in flags]
        if not further or tries == TRIES:
            break
        flags += further
    outcome = Outcome(path, table.rows, len(table.columns), flags=tuple(flags), tries=tries)
    if run.code:
        return dataclasses.replace(outcome, refusal=_reason(run.told, directory, path))
    return dataclasses.replace(outcome, **_compare(table, model, output, _defaults(flags)))


def _is_csv(path: str) -> bool:
    return ".csv" in os.path.basename(path)


def _run(command: list[str], directory: str) -> Run:
    with _listening() as told:
        try:
            code = sluice(["batch", *command])
        except SystemExit as error:
            code = int(error.code or 0)
    clear_cache()
    return Run(code, told.getvalue() + "\n".join(sorted(set(_failures(directory)))))


def _failures(directory: str) -> Iterator[str]:
    """Yields the reasons of failed rows."""
    for name in os.listdir(directory):
        if ".failures-" in name:
            with open(os.path.join(directory, name), encoding="utf-8") as file:
                yield from (json.loads(line)["error_message"] for line in file)


@contextlib.contextmanager
def _listening() -> Iterator[io.StringIO]:
    """Keeps what is written to standard error, and logged, while the block runs."""
    told = io.StringIO()
    handler = logging.StreamHandler(told)
    logger = logging.getLogger("sluice")
    logger.addHandler(handler)
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
            yield told
    finally:
        logger.removeHandler(handler)


def asked_for(told: str, table: Table) -> list[str]:
    """Returns the flags that a text names, as a user gives them: with the values that only he knows."""
    given: dict[str, str] = {}
    for name, value in _FLAG.findall(told):
        if name not in _ACCEPTED:
            continue
        if _ACCEPTED[name]:
            given.setdefault(f"--{name}", "")
        elif text := _value(name, value, table):
            given.setdefault(f"--{name}={text}" if name in _REPEATED else f"--{name}", text)
    return [flag if not text or flag.endswith(f"={text}") else f"{flag}={text}" for flag, text in given.items()]


def _value(name: str, value: str, table: Table) -> str:
    """Returns a flag's value with what stands for the user's own knowledge filled in."""
    words = shlex.split(value if name == "map" else value.rstrip("."))
    text = words[0] if words else ""
    if name == "csv_delimiter" and not text:
        return ";"
    columns = {each.input: each for each in table.columns}
    taken, _, rest = text.partition("=")
    if name == "map" and taken not in columns:
        return ""  # a form to fill in: INPUT=COLUMN
    if name == "map" and rest not in [each.name for each in table.columns]:
        return f"{taken}={columns[taken].name}"
    if name == "column_defaults":
        names = [pair.partition("=")[0] for pair in text.split(",")]
        return ",".join(f"{each}={_STAND_INS.get(columns[each].kind, '0')}" for each in names if each in columns)
    return text


def _defaults(flags: Sequence[str]) -> dict[str, str]:
    """Returns the values of --column_defaults by input."""
    flag = "--column_defaults="
    pairs = [pair for each in flags if each.startswith(flag) for pair in each.removeprefix(flag).split(",")]
    return dict(pair.split("=", 1) for pair in pairs)


def _reason(told: str, directory: str, path: str) -> str:
    """Returns what Sluice said last, without the paths of this run."""
    lines = [line for line in told.splitlines() if line.strip()]
    text = next((line for line in lines if line.startswith("sluice")), lines[0] if lines else "it says nothing")
    for place in (directory, os.path.dirname(path)):
        text = text.replace(f"{place}/", "")
    return text.removeprefix("sluice batch: ")


def _compare(table: Table, model: str, output: str, defaults: dict[str, str]) -> dict[str, object]:
    """Returns what Outcome says of a file that was scored."""
    lacking = np.zeros(table.rows, bool)
    for name, nulls in table.nulls().items():
        if name not in defaults:
            lacking |= nulls
    expected = call_directly(model, feeds(table, defaults))[~lacking]
    stem, ending = os.path.splitext(output)
    written = f"{stem}-00000-of-00001{ending}"
    found, carried, source = (_read_csv if _is_csv(table.path) else _read_json)(table.path, written)
    kept = [row for row, is_lacking in zip(source, lacking, strict=True) if not is_lacking]
    return {"failed": int(lacking.sum()), "difference": _difference(expected, found, kept, carried)}


def _difference(expected: np.ndarray, found: np.ndarray, kept: Sequence[object], carried: Sequence[object]) -> str:
    if len(found) != len(expected):
        return f"{len(found)} rows came out, {len(expected)} were expected"
    unequal = np.flatnonzero(~((found == expected) | (np.isnan(found) & np.isnan(expected))))
    if len(unequal):
        row = int(unequal[0])
        return f"{len(unequal)} scores differ, the first in row {row}: {found[row]!r}, not {expected[row]!r}"
    other = [at for at, pair in enumerate(zip(kept, carried, strict=True)) if pair[0] != pair[1]]
    return f"{len(other)} rows are carried otherwise, the first is {other[0]}" if other else ""


def _read_csv(path: str, written: str) -> tuple[np.ndarray, list[object], list[object]]:
    """Returns scores, the rows without them, and the rows of the source, all as texts."""
    read = {"dtype": str, "keep_default_na": False, "header": None, "index_col": False, "skiprows": 1}
    output = pd.read_csv(written, **read)
    try:
        source = pd.read_csv(path, **read)
    except UnicodeDecodeError:
        source = pd.read_csv(path, encoding="cp1252", **read)
    return output.iloc[:, -1].to_numpy(np.float64), _rows(output.iloc[:, :-1]), _rows(source)


def _rows(frame: pd.DataFrame) -> list[object]:
    return list(map(tuple, frame.to_numpy().tolist()))


def _read_json(path: str, written: str) -> tuple[np.ndarray, list[object], list[object]]:
    rows = read_json_rows(written) if os.path.getsize(written) else []
    scores = np.array([row[OUTPUT] for row in rows], np.float64)
    return scores, [{k: v for k, v in row.items() if k != OUTPUT} for row in rows], list(read_json_rows(path))


def report(outcomes: Sequence[Outcome]) -> str:
    """Returns the results in Markdown."""
    scored = [each for each in outcomes if not each.refusal]
    wrong = [each for each in scored if each.difference]
    refused = [each for each in outcomes if each.refusal]
    kinds = [sum(_is_csv(each.path) is is_csv for each in outcomes) for is_csv in (True, False)]
    packages = ", ".join(f"{name} {version}" for name, version in PACKAGES.items())
    lines = [
        "# Real files",
        "",
        f"Written by `python -m benchmarks.real_files`, a part of `make soak`: {kinds[0]} CSV files and {kinds[1]} "
        f"tables of JSON from {packages}. A model is made for each file, which takes every column that has a name; "
        "the flags are those that Sluice names. Scores are compared with a direct call on what pandas reads.",
        "",
        f"- {len(scored)} of {len(outcomes)} files are scored, {sum(each.rows for each in scored):,} rows; "
        f"{sum(each.failed for each in scored):,} rows fail for lack of a value, as pandas finds it lacking too.",
        f"- {sum(not each.flags for each in scored)} of these need no flag, the others up to "
        f"{max((each.tries for each in scored), default=0)} commands.",
        f"- {len(wrong)} differ in a row.",
        f"- {len(refused)} are refused.",
    ]
    lines += _section("Differ", ("what",), [(each, (each.difference,)) for each in wrong])
    lines += _section("Refused", ("the reason",), [(each, (each.refusal,)) for each in refused])
    lines += _section(
        "Need flags", ("the flags that Sluice named",), [(e, (_shown(e.flags),)) for e in scored if e.flags]
    )
    return "\n".join([*lines, ""])


def _section(title: str, names: Sequence[str], rows: Sequence[tuple[Outcome, Sequence[str]]]) -> Iterator[str]:
    if rows:
        yield from (
            "",
            f"## {title}",
            "",
            f"| file | rows | columns | {' | '.join(names)} |",
            f"|---|---:|---:|{'---|' * len(names)}",
        )
        for each, cells in rows:
            told = " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
            yield f"| {_name(each.path)} | {each.rows:,} | {each.columns} | {told} |"


def _shown(flags: Sequence[str]) -> str:
    text = " ".join(map(shlex.quote, flags))
    return f"`{text}`" if len(text) <= 300 else f"`{text[:300]}` and more"


def _name(path: str) -> str:
    package = next((name for name in PACKAGES if f"/{name}-" in path), "")
    return f"{package}: {os.path.basename(path)}"


def main() -> int:
    """Scores all files; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--files", type=int, default=120, help="CSV files (default: %(default)s)")
    parser.add_argument(
        "--show", metavar="TEXT", help="only files with this in their path; print them, write no report"
    )
    args = parser.parse_args()
    fetch()
    outcomes = []
    paths = [path for path in [*csv_files(args.files), *json_tables()] if not args.show or args.show in path]
    for path in paths:
        with tempfile.TemporaryDirectory() as directory:
            outcomes.append(score(path, directory))
        if args.show or outcomes[-1].refusal or outcomes[-1].difference:
            print(outcomes[-1], flush=True)
    text = report(outcomes)
    print(text)
    if not args.show:
        with open(RESULTS, "w", encoding="utf-8") as file:
            file.write(text)
    return int(any(each.difference for each in outcomes))


if __name__ == "__main__":
    sys.exit(main())
