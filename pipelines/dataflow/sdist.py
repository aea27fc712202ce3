"""Finds the source of the Sluice that runs here, so that Beam can stage it to workers by `--setup_file`."""

import atexit
import importlib.metadata
import pprint
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePath

from sluice.models.errors import UsageError

_NAME = "sluice"
_ROOT = Path(__file__).parents[3]
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


def find_setup_file(root: Path = _ROOT, path: Sequence[str] | None = None) -> str:
    """Returns the path of a setup.py: that of the checkout, or one made from the installed package.

    Args:
      root: of the checkout, or of the installed package.
      path: where to look for installed packages; None: sys.path.

    Raises:
      UsageError: there is neither.
    """
    checkout = root / "setup.py"
    if checkout.is_file() and f'name="{_NAME}"' in checkout.read_text(encoding="utf-8"):
        return str(checkout)
    search = list(sys.path if path is None else path)
    installed = next(iter(importlib.metadata.distributions(name=_NAME, path=search)), None)
    if installed is None or not any(map(_is_ours, installed.files or ())):
        raise UsageError(
            f"workers need Sluice, but it is neither installed here nor run from a checkout ({checkout} is not its "
            "setup.py): install it with pip, or give --setup_file PATH/setup.py or --sdk_container_image IMAGE"
        )
    directory = tempfile.mkdtemp(prefix="sluice-sdist-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return write_source(installed, Path(directory))


def write_source(installed: importlib.metadata.Distribution, directory: Path) -> str:
    """Writes the files of an installed package, and a setup.py like its original; returns the path of setup.py.

    Leaves extras out: workers need none.
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
        requires=pprint.pformat([each for each in installed.requires or () if "extra ==" not in each]),
    )
    setup_file.write_text(text, encoding="utf-8")
    return str(setup_file)


def _is_ours(file: PurePath) -> bool:
    outside = file.parts[0] in ("..", "/") or file.parts[0].endswith(".dist-info")
    return not outside and len(file.parts) > 1 and file.suffix != ".pyc"


def _package(file: PurePath) -> str:
    return ".".join(file.parts[:-1])
