"""A fresh environment with a staged sdist and what it declares to need, and nothing else; and a worker in it.

The files are linked from the environment that the tests run in, so that it takes seconds and no network. Whether they
are what the sdist declares is pip's judgement, which installs the sdist without an index.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import csv
import importlib.metadata
import io
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_WORKER = Path(__file__).parent / "hermetic_worker.py"
_SITE = Path(sysconfig.get_path("purelib"))
# Files of an sdist that tell what it needs.
_DECLARATIONS = ("setup.py", "requires.txt")


def make_venv(directory: Path, sdist: Path) -> Path:
    """Makes an environment with an sdist installed, and what it declares; returns its python.

    Raises:
      RuntimeError: pip does not install it; the text has what it printed.
    """
    venv.create(directory, with_pip=False, symlinks=True)
    python = directory / "bin" / "python"
    link_files(closure(declared(sdist)), directory / _SITE.relative_to(sys.prefix))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install", "--quiet"]
    flags = ["--no-index", "--no-build-isolation", "--no-compile"]
    done = subprocess.run([*pip, *flags, str(sdist)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip does not install {sdist}: {done.stdout}{done.stderr}")
    return python


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
    """Puts links to the files of distributions into another site-packages: one to what is a single one's, as most
    packages are; and one to each file of what several share, as the parts of a namespace."""
    owners = collections.Counter(top for each in importlib.metadata.distributions() for top in _files(each))
    for distribution in distributions:
        for top, files in _files(distribution).items():
            for name in [top] if owners[top] == 1 else files:
                (site / name).parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):  # two may hold the same file of a namespace
                    (site / name).symlink_to(_SITE / name)


def _files(distribution: importlib.metadata.Distribution) -> dict[str, list[str]]:
    """Returns the files in site-packages, by the first part of their names. Those of scripts are elsewhere."""
    files: dict[str, list[str]] = {}
    for name, *_ in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
        top = name.partition("/")[0]
        if top != "..":
            files.setdefault(top, []).append(name)
    return files


def without(sdist: Path, requirement: str, target: Path) -> Path:
    """Writes an sdist that does not declare a requirement; returns its path."""
    with tarfile.open(sdist) as old, tarfile.open(target, "w:gz") as new:
        for member in old.getmembers():
            file = old.extractfile(member)
            data = file.read() if file is not None else b""
            if os.path.basename(member.name) in _DECLARATIONS:
                lines = data.splitlines(keepends=True)
                data = b"".join(line for line in lines if requirement.encode() not in line)
                member.size = len(data)
            new.addfile(member, io.BytesIO(data) if file is not None else None)
    return target


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
