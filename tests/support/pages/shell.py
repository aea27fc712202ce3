"""A shell for the examples: pipes and redirections, and `sluice` in this process, where all is imported already."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator

# A chunk between operators, or an operator; what is in quotes is no operator.
_TOKEN = re.compile(r"""(?:[^'"|<>&;\\]|\\.|'[^']*'|"(?:\\.|[^"\\])*")+|\|\||&&|[|<>&;]""")
# Other programs than ours that an example may run.
_PROGRAMS = ("cat", "cp", "cut", "echo", "head", "ls", "mkdir", "printf", "rm", "tail", "wc")

# Runs the words of a command of ours; returns its exit code.
Program = Callable[[list[str]], int]


class ExampleError(Exception):
    """An example does not work as it stands.

    Attributes:
      code: the exit code of its command; 0: it is another error.
    """

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


def run_line(line: str, sluice: Program) -> str:
    """Runs a line of a shell; returns what it prints.

    Raises:
      ExampleError: a command fails, or is none that this shell knows.
    """
    tokens = _TOKEN.findall(re.sub(r"(^|\s)#.*$", "", line).strip())
    printed, feeding = b"", b""
    while tokens:
        words, operator = shlex.split(tokens.pop(0)), tokens.pop(0) if tokens else ""
        files: dict[str, str] = {}
        while operator in ("<", ">"):
            chunk = shlex.split(tokens.pop(0))
            files[operator] = chunk[0]
            words += chunk[1:]
            operator = tokens.pop(0) if tokens else ""
        if "<" in files:
            with open(files["<"], "rb") as file:
                feeding = file.read()
        output = _run(words, feeding, sluice)
        feeding = output if operator == "|" else b""
        if ">" in files:
            with open(files[">"], "wb") as file:
                file.write(output)
        elif operator != "|":
            printed += output
        if operator not in ("", "|", "&&", ";"):
            raise ExampleError(f"{operator} in a command: the shell of the examples has only | < > && ;")
    return printed.decode()


def _run(words: list[str], feeding: bytes, sluice: Program) -> bytes:
    if os.path.basename(words[0]) == "sluice":
        with _streams(feeding) as (output, errors):
            code = _exit_code(sluice, words[1:])
        if code:
            raise ExampleError(f"exit code {code}: {errors.getvalue().strip() or 'it says nothing'}", code)
        return output.getvalue()
    if words[0] not in _PROGRAMS:
        raise ExampleError(f"{words[0]} is none of the programs that examples may run: {', '.join(_PROGRAMS)}")
    done = subprocess.run(words, input=feeding, capture_output=True, check=False)
    if done.returncode:
        raise ExampleError(f"exit code {done.returncode}: {done.stderr.decode().strip()}")
    return done.stdout


def _exit_code(sluice: Program, words: list[str]) -> int:
    try:
        return sluice(words)
    except SystemExit as error:  # of argparse
        return error.code if isinstance(error.code, int) else 0 if error.code is None else 1


@contextlib.contextmanager
def _streams(feeding: bytes) -> Iterator[tuple[io.BytesIO, io.StringIO]]:
    """Makes standard input, output and error of this process while the block runs; yields what is printed to."""
    output, errors, before = io.BytesIO(), io.StringIO(), sys.stdin
    text = io.TextIOWrapper(output, "utf-8", write_through=True)
    sys.stdin = io.TextIOWrapper(io.BytesIO(feeding), "utf-8")
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(errors):
            yield output, errors
    finally:
        sys.stdin = before
        text.detach()
