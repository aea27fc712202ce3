"""Paths in rows: which file each of them names, and whether it may be read.

Rows may come from anybody. Where a root is given, no path leads out of it. Without one, the messages of a stream name
no file of the machine that reads them.
"""

import dataclasses
import os
import re
import urllib.parse

from sluice.models.wording import message

# Where relative paths begin if there is no root: in the directory of the file that holds the row; in the current
# directory, as a listing of files returns them; nowhere.
BESIDE, HERE, NOWHERE = "beside", "here", "nowhere"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_THIS_MACHINE = ("", "localhost")


class BadPath(Exception):
    """A path names no file that may be read. The text says why."""


@dataclasses.dataclass(frozen=True)
class PathRules:
    """Which files paths in rows may name.

    Attributes:
      root: a directory, absolute or a URI, without a slash at its end: relative paths begin there, and no path leads
        out of it. "": none.
      relative: BESIDE, HERE or NOWHERE.
      local: without a root, a path may be on the machine that reads it.
    """

    root: str = ""
    relative: str = NOWHERE
    local: bool = False


def parse_root(root: str) -> str:
    """Returns a root in the form of `PathRules`.

    Raises:
      BadPath: it is on another machine.
    """
    found = _on_disk(root)
    return root.rstrip("/") if found is None else os.path.abspath(found)


def directory_of(origin: str) -> str:
    """Returns the directory of the file in a row's origin, e.g. "gs://b/d" of "gs://b/d/f.csv#byte="."""
    return os.path.dirname(origin.rpartition("#")[0])


def resolve(path: str, rules: PathRules, directory: str = "") -> str:
    """Returns the file that a path in a row names: a local path, or a URI.

    Args:
      directory: of the file that holds the row; see `directory_of`.

    Raises:
      BadPath: it names none, or one that may not be read.
    """
    if not path:
        raise BadPath(message("it is empty"))
    found = _on_disk(path)
    full = path if found is None else found if os.path.isabs(found) else _begin(found, rules, directory)
    if rules.root:
        return _inside(full, rules.root)
    if _is_on_disk(full) and not rules.local:
        text = "a message may not name a file of the machine that reads it, but under a --read_paths_root"
        raise BadPath(message(text))
    return full


def _is_on_disk(path: str) -> bool:
    return _SCHEME.match(path) is None


def _on_disk(path: str) -> str | None:
    """Returns a path on the disk of this machine, without file://; None for other URIs.

    Raises:
      BadPath: it is on another machine.
    """
    scheme = _SCHEME.match(path)
    if scheme is None:
        return path
    if scheme[1].lower() != "file":
        return None
    host, _, rest = path[scheme.end() :].partition("/")
    if host not in _THIS_MACHINE:
        raise BadPath(message("it is on another machine"))
    return "/" + urllib.parse.unquote(rest)


def _begin(path: str, rules: PathRules, directory: str) -> str:
    """Returns a relative path behind the directory in which it begins.

    Raises:
      BadPath: it begins in none.
    """
    if not rules.root and rules.relative == NOWHERE:
        raise BadPath(message("it is relative: give the directory in which it begins with --read_paths_root"))
    start = rules.root or (directory if rules.relative == BESIDE else "")
    return os.path.join(start, path)


def _inside(path: str, root: str) -> str:
    """Returns a path under the root; one on the disk with its links followed, so that what is checked is what is read.

    Raises:
      BadPath: it leads out of the root.
    """
    if _is_on_disk(path) and _is_on_disk(root):
        real = os.path.realpath(path)
        if real.startswith(os.path.realpath(root).rstrip("/") + "/"):
            return real
    elif path.startswith(f"{root}/") and not {".", ".."} & {*path.split("/")}:
        return path
    raise BadPath(message("it leads out of --read_paths_root {root}", root=root))
