"""A fresh environment with a staged sdist, its declared requirements and nothing else; and a worker in it.

The files are linked from the environment that the tests run in, which takes seconds and no network. Only distributions
that the sdist declares, of the versions that it declares, are linked; pip installs the sdist without an index.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import csv
import functools
import importlib.metadata
import importlib.util
import itertools
import json
import subprocess
import sys
import sysconfig
import tarfile
import venv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_WORKER = Path(__file__).parent / "hermetic_worker.py"
_SITE = Path(sysconfig.get_path("purelib"))


def make_venv(directory: Path, sdist: Path) -> Path:
    """Makes an environment with an sdist and its declared requirements; returns its python.

    Raises:
      AssertionError: another version than the sdist declares is installed here.
      RuntimeError: pip does not install the sdist; the text includes what pip printed.
    """
    requirements = declared(sdist)
    for requirement in map(Requirement, requirements):
        version = importlib.metadata.version(requirement.name)
        assert requirement.specifier.contains(version), f"{requirement} is declared, {version} is installed"
    bare_venv(directory, requirements)
    python = directory / "bin" / "python"
    pip = [*pip_command(python), "--disable-pip-version-check", "install", "--quiet"]
    flags = ["--no-index", "--no-build-isolation", "--no-compile", "--no-deps"]
    done = subprocess.run([*pip, *flags, str(sdist)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip does not install {sdist}: {done.stdout}{done.stderr}")
    return python


def pip_command(python: Path) -> list[str]:
    """Returns pip for an environment without it: what `pip --python` starts, once it has started itself."""
    found = importlib.util.find_spec("pip")
    assert found is not None and found.origin is not None
    return [str(python), str(Path(found.origin).with_name("__pip-runner__.py"))]


def bare_venv(directory: Path, requirements: Iterable[str]) -> Path:
    """Makes an environment with these requirements and without pip; returns its site-packages."""
    venv.create(directory, with_pip=False, symlinks=True)
    site = directory / _SITE.relative_to(sys.prefix)
    link_files(closure(requirements), site)
    return site


def declared(sdist: Path) -> list[str]:
    """Returns the requirements of an sdist as setuptools lists them, without those of extras."""
    with tarfile.open(sdist) as archive:
        (name,) = [each for each in archive.getnames() if each.endswith(".egg-info/requires.txt")]
        file = archive.extractfile(name)
        assert file is not None
        lines = file.read().decode().partition("\n[")[0].splitlines()
    return [line for line in lines if line]


def closure(requirements: Iterable[str]) -> list[importlib.metadata.Distribution]:
    """Returns the distributions installed here that meet the requirements, and all that those require.

    Raises:
      PackageNotFoundError: a distribution is not installed here.
    """
    found: dict[str, importlib.metadata.Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    left = [Requirement(text) for text in requirements]
    while left:
        wanted = left.pop()
        key = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if key in seen:
            continue
        seen.add(key)
        found[key[0]] = importlib.metadata.distribution(wanted.name)
        needed = [Requirement(text) for text in found[key[0]].requires or ()]
        left += [each for each in needed if _applies(each, ["", *wanted.extras])]
    return list(found.values())


def _applies(requirement: Requirement, extras: Sequence[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


def link_files(distributions: Iterable[importlib.metadata.Distribution], site: Path) -> None:
    """Links the files of distributions into another site-packages."""
    for name in _links(distributions):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).symlink_to(_SITE / name)


def _links(distributions: Iterable[importlib.metadata.Distribution]) -> set[str]:
    """Returns the names in site-packages that make up distributions.

    These are directories that belong to one distribution, as most packages do, and single files in directories that
    several share, as the parts of a namespace do.
    """
    owners = _owners()
    return {
        next((name for name in _prefixes(file) if owners[name] == 1), file)
        for each in distributions
        for file in _files(each)
    }


@functools.cache
def _owners() -> collections.Counter[str]:
    """Returns, by name, how many distributions have a file of that name, or files in a directory of that name."""
    counts: collections.Counter[str] = collections.Counter()
    for distribution in importlib.metadata.distributions():
        counts.update({name for file in _files(distribution) for name in _prefixes(file)})
    return counts


def _prefixes(name: str) -> list[str]:
    return list(itertools.accumulate(name.split("/"), "{}/{}".format))


def _files(distribution: importlib.metadata.Distribution) -> list[str]:
    """Returns a distribution's files in site-packages. Its scripts are elsewhere."""
    names = [name for name, *_ in csv.reader((distribution.read_text("RECORD") or "").splitlines())]
    return [name for name in names if not name.startswith("..")]


@contextlib.contextmanager
def undeclared(name: str, sdist: Path, python: Path) -> Iterator[None]:
    """Removes from an environment, while the block runs, what it would lack if its sdist did not declare this name."""
    site = python.parent.parent / _SITE.relative_to(sys.prefix)
    requirements = declared(sdist)
    left = [text for text in requirements if Requirement(text).name != name]
    assert len(left) < len(requirements), f"{name} is not declared"
    gone = _links(closure(requirements)) - _links(closure(left))
    for link in gone:
        (site / link).unlink()
    try:
        yield
    finally:
        for link in gone:
            (site / link).symlink_to(_SITE / link)


class Worker:
    """A process of the environment that runs staged graphs, one after the other; it has everything imported once."""

    def __init__(self, python: Path, directory: Path) -> None:
        """Starts it.

        Args:
          python: the interpreter of the environment.
          directory: the working directory, where its log is.
        """
        self._log = directory / "worker.log"
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(  # -I: ignores PYTHON* variables and the script's directory
                [str(python), "-I", str(_WORKER)], cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, text=True,
            )  # fmt: skip

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, graphs: Mapping[str, str], messages: Sequence[bytes] = ()) -> dict[str, str]:
        """Runs graphs; returns the error of each, "" where it succeeds.

        Args:
          graphs: gs:// paths by name.
          messages: serialized PubsubMessages that every Pub/Sub source returns.
        """
        encoded = [base64.b64encode(message).decode() for message in messages]
        return self._ask({"graphs": dict(graphs), "messages": encoded})

    def import_all(self) -> str:
        """Returns why our modules cannot all be imported; "" if they can."""
        return self._ask({"graphs": {}, "messages": [], "modules": True})["modules"]

    def _ask(self, request: dict[str, object]) -> dict[str, str]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker ended with code {self._process.wait()}: {self._log.read_text()[-4000:]}")
        errors: dict[str, str] = json.loads(line)
        return errors
