"""Copies the source of the Sluice that runs here, so that Beam can stage it to workers by `--setup_file`.

The copy requires the versions that are installed here: a job runs with what it was launched with, whatever is newest in
the index when a worker starts.
"""

import ast
import atexit
import functools
import importlib.metadata
import pprint
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePath

from sluice.models.errors import UsageError
from sluice.pipelines.dataflow.pins import pinned

_NAME = "sluice"
_ROOT = Path(__file__).parents[3]
# What a checkout's setup.py reads.
_BESIDE_SETUP = ("README.md", "pyproject.toml")
_SETUP = """from setuptools import setup

setup(
    name={name!r},
    version={version!r},
    python_requires={python!r},
    packages={packages},
    package_data={data},
    install_requires={requires},
)
"""


@functools.cache
def find_setup_file(root: Path = _ROOT, path: tuple[str, ...] | None = None) -> str:
    """Returns the path of a setup.py, beside a copy of the checkout's packages or of the installed one's.

    Args:
      root: of the checkout, or of the installed package.
      path: where to look for installed packages; None: sys.path.

    Raises:
      UsageError: there is neither.
    """
    checkout = root / "setup.py"
    if checkout.is_file() and f'name="{_NAME}"' in checkout.read_text(encoding="utf-8"):
        return copy_checkout(checkout, _directory(), path)
    search = list(sys.path if path is None else path)
    installed = next(iter(importlib.metadata.distributions(name=_NAME, path=search)), None)
    if installed is None or not any(map(_is_ours, installed.files or ())):
        raise UsageError(
            f"workers need Sluice, but it is neither installed here nor run from a checkout ({checkout} is not its "
            "setup.py): install it with pip, or give --setup_file PATH/setup.py or --sdk_container_image IMAGE"
        )
    return write_source(installed, _directory(), path)


def copy_checkout(setup_file: Path, directory: Path, path: Sequence[str] | None = None) -> str:
    """Copies what a checkout's setup.py installs, and setup.py with pins; returns the path of that.

    Args:
      path: where to look for installed packages; None: sys.path.
    """
    root = setup_file.parent
    shutil.copytree(root / _NAME, directory / _NAME, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _BESIDE_SETUP:
        shutil.copyfile(root / name, directory / name)
    copied = directory / "setup.py"
    copied.write_text(_with_pins(setup_file.read_text(encoding="utf-8"), path), encoding="utf-8")
    return str(copied)


def write_source(installed: importlib.metadata.Distribution, directory: Path, path: Sequence[str] | None = None) -> str:
    """Writes the files of an installed package, and a setup.py with pins; returns the path of setup.py.

    Leaves extras out: workers need none.

    Args:
      path: where to look for installed packages; None: sys.path.
    """
    files = [file for file in installed.files or () if _is_ours(file)]
    for file in files:
        target = directory / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(file.locate()), target)
    packages = sorted({_package(file) for file in files if file.suffix == ".py"})
    data: dict[str, list[str]] = {name: [] for name in packages}
    for file in files:
        if file.suffix != ".py":
            data[_package(file)].append(file.name)
    setup_file = directory / "setup.py"
    metadata = installed.metadata
    text = _SETUP.format(
        name=metadata["Name"],
        version=metadata["Version"],
        python=metadata["Requires-Python"],
        packages=pprint.pformat(packages),
        data=pprint.pformat({name: names for name, names in data.items() if names}),
        requires=pprint.pformat(pinned([each for each in installed.requires or () if "extra ==" not in each], path)),
    )
    setup_file.write_text(text, encoding="utf-8")
    return str(setup_file)


def _directory() -> Path:
    """Makes a directory that lasts as long as the process."""
    directory = tempfile.mkdtemp(prefix="sluice-sdist-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)


def _with_pins(setup: str, path: Sequence[str] | None) -> str:
    """Returns the text of our setup.py with pins for its INSTALL_REQUIRES."""
    (declared,) = [
        node
        for node in ast.parse(setup).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "INSTALL_REQUIRES"
    ]
    lines = setup.splitlines()
    pins = pprint.pformat(pinned(ast.literal_eval(declared.value), path))
    lines[declared.lineno - 1 : declared.end_lineno] = [f"INSTALL_REQUIRES = {pins}"]
    return "\n".join(lines) + "\n"


def _is_ours(file: PurePath) -> bool:
    outside = file.parts[0] in ("..", "/") or file.parts[0].endswith(".dist-info")
    return not outside and len(file.parts) > 1 and file.suffix != ".pyc"


def _package(file: PurePath) -> str:
    return ".".join(file.parts[:-1])
