"""The parser of command lines: it says what is wrong in one line, and what may have been meant."""

import argparse
import contextlib
import difflib
import logging
import re
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NoReturn

from sluice.pipelines.logs import tell

_CHOICE = re.compile(r"invalid choice: '(.*)' \(choose from (.*)\)")
# How similar a flag must be to what was typed: "--modle" is to "--model", "--runner" is not to "--run_name".
_SIMILAR = 0.75
# The packages whose versions say the most about a job.
_PACKAGES = ("tensorflow", "apache-beam", "pyarrow", "numpy")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, without the usage. Its subparsers are of this class, too."""

    _typed: Sequence[str] = ()
    _file: str = ""
    _in_file: Collection[str] = ()
    _fill: "Callable[[Parser], None] | None" = None

    def fill_when_used(self, fill: "Callable[[Parser], None]") -> None:
        """Leaves it to a function to add the flags, which it does when they are first looked at."""
        self._fill = fill

    def _be_filled(self) -> None:
        if self._fill:
            fill, self._fill = self._fill, None
            fill(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._be_filled()
        self._typed = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        choice = _CHOICE.search(message)
        if choice:
            hints = [message, *_near(choice[1], re.findall("'(.*?)'", choice[2]), 0.6)]
        else:
            hints = [message, *self._typos()]
        text = self.whence("; ".join(hints))
        with contextlib.suppress(OSError):  # nobody reads it
            tell(f"{self.prog}: {text} ({self.prog} --help lists all)\n", logging.ERROR)
        self.exit(2)

    def _typos(self) -> list[str]:
        """Returns the flags that were typed and do not exist, with those that are similar to them."""
        known = self._option_string_actions
        flags = dict.fromkeys(word.split("=")[0] for word in self._typed if word.startswith("--") and word != "--")
        return [hint for flag in flags if flag not in known for hint in self.meant(flag)]

    def meant(self, flag: str) -> list[str]:
        """Returns which flag may be meant by one that does not exist, as the end of an error; []: none is similar."""
        self._be_filled()
        return _near(flag, self._option_string_actions, _SIMILAR)

    def flag(self, name: str) -> argparse.Action | None:
        """Returns the flag of a name; None: there is none."""
        self._be_filled()
        return self._option_string_actions.get(f"--{name}")

    def set_file(self, path: str, names: Collection[str]) -> None:
        """Tells which flags come from a file, so that errors can say so."""
        self._file, self._in_file = path, names

    def whence(self, text: str) -> str:
        """Returns an error; if it names a flag that comes from a file, with that file."""
        named = next((name for name in re.findall(r"--([A-Za-z][\w-]*)", text) if name in self._in_file), "")
        return f"{text} (--{named} is in {self._file})" if named else text


def _near(typed: str, known: Iterable[str], cutoff: float) -> list[str]:
    near = difflib.get_close_matches(typed, list(known), 1, cutoff)
    return [f"{typed}: did you mean {near[0]}?"] if near else []


class VersionAction(argparse.Action):
    """Prints the version of Sluice and of the packages that matter, and ends the process."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        sys.stdout.write(versions() + "\n")
        parser.exit()


def versions() -> str:
    """Returns Sluice's version, Python's, and those of the packages that matter. Imports none of them."""
    python = ".".join(map(str, sys.version_info[:3]))
    others = [f"{name} {_version(name)}" for name in _PACKAGES]
    return f"sluice {_version('sluice')} (Python {python}, {', '.join(others)})"


def _version(package: str) -> str:
    import importlib.metadata  # brings in the modules of email, csv and zip files: a command needs none of them

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
