"""A fresh environment with a staged sdist and what it declares to need, and nothing else; and a worker in it.

The files are linked from the environment that the tests run in, so that it takes seconds and no network. Whether they
are what the sdist declares is pip's failure_policy, which installs the sdist without an index.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import csv
import functools
import importlib.metadata
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
    """Makes an environment with an sdist installed, and what it declares; returns its python.

    Raises:
      RuntimeError: pip does not install it; the text has what it printed.
    """
    bare_venv(directory, declared(sdist))
    python = directory / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install", "--quiet"]
    flags = ["--no-index", "--no-build-isolation", "--no-compile"]
    done = subprocess.run([*pip, *flags, str(sdist)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip does not install {sdist}: {done.stdout}{done.stderr}")
    return python


def bare_venv(directory: Path, requirements: Iterable[str]) -> Path:
    """Makes an environment that holds requirements, and no pip; returns its site-packages."""
    venv.create(directory, with_pip=False, symlinks=True)
    site = directory / _SITE.relative_to(sys.prefix)
    link_files(closure(requirements), site)
    return site


def declared(sdist: Path) -> list[str]:
    """Returns the requirements of an sdist, those of extras left out, as setuptools lists them."""
    with tarfile.open(sdist) as archive:
        (name,) = [each for each in archive.getnames() if each.endswith(".egg-info/requires.txt")]
        file = archive.extractfile(name)
        assert file is not None
        lines = file.read().decode().partition("\n[")[0].splitlines()
    return [line for line in lines if line]


def closure(requirements: Iterable[str]) -> list[importlib.metadata.Distribution]:
    """Returns the distributions that requirements need here, and those that these need.

    Raises:
      PackageNotFoundError: one is not installed here.
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
    """Puts links to the files of distributions into another site-packages."""
    for name in _links(distributions):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).symlink_to(_SITE / name)


def _links(distributions: Iterable[importlib.metadata.Distribution]) -> set[str]:
    """Returns the names in site-packages that make up distributions: directories that are a single one's, as most
    packages are, and files in those that several share, as the parts of a namespace."""
    owners = _owners()
    return {
        next((name for name in _prefixes(file) if owners[name] == 1), file)
        for each in distributions
        for file in _files(each)
    }


@functools.cache
def _owners() -> collections.Counter[str]:
    """Returns how many distributions have files of a name, or in a directory of it."""
    counts: collections.Counter[str] = collections.Counter()
    for distribution in importlib.metadata.distributions():
        counts.update({name for file in _files(distribution) for name in _prefixes(file)})
    return counts


def _prefixes(name: str) -> list[str]:
    return list(itertools.accumulate(name.split("/"), "{}/{}".format))


def _files(distribution: importlib.metadata.Distribution) -> list[str]:
    """Returns the files in site-packages. Those of scripts are elsewhere."""
    names = [name for name, *_ in csv.reader((distribution.read_text("RECORD") or "").splitlines())]
    return [name for name in names if not name.startswith("..")]


@contextlib.contextmanager
def undeclared(name: str, sdist: Path, python: Path) -> Iterator[None]:
    """Takes away from an environment, while the block runs, what it would not hold if its sdist did not declare that it
    needs a distribution of this name."""
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


def run_worker(
    python: Path, graphs: Mapping[str, str], directory: Path, messages: Sequence[bytes] = ()
) -> dict[str, str]:
    """Runs staged graphs, one after the other, in one process; returns the error of each, "" where it is done; and as
    "modules", why our modules cannot all be imported there.

    Args:
      python: of the environment.
      graphs: gs:// paths by name.
      directory: to work in.
      messages: serialized PubsubMessages that every source of Pub/Sub gives.
    """
    request = directory / "request.json"
    encoded = [base64.b64encode(message).decode() for message in messages]
    request.write_text(json.dumps({"graphs": graphs, "messages": encoded}))
    done = subprocess.run(  # -I: nothing by the environment's variables, nor from where the script is
        [str(python), "-I", str(_WORKER), str(request)], cwd=directory, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the worker ended with code {done.returncode}: {done.stdout}{done.stderr}")
    errors: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return errors
