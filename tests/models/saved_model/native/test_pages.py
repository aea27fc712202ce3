"""The pages of TensorFlow's file that only its loading needed: they go, and what is used comes back."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sluice.models.cache import open_model
from sluice.models.saved_model.native.library import load_library
from sluice.models.saved_model.native.pages import release_pages, unwritten_parts
from sluice.models.saved_model.native.preload import library_files
from tests.support.paths import ROOT

_HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \S+ *(.*)")


class Mapping(NamedTuple):
    start: int
    stop: int
    rights: str
    path: str
    kb: dict[str, int]


def mappings() -> list[Mapping]:
    """What the kernel tells of the parts of memory that are TensorFlow's libraries: proc_pid_smaps(5)."""
    found: list[Mapping] = []
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if head := _HEAD.fullmatch(line):
            found.append(Mapping(int(head[1], 16), int(head[2], 16), head[3], head[4], {}))
        elif line.endswith(" kB"):
            name, size, _ = line.split()
            found[-1].kb[name.rstrip(":")] = int(size)
    files = {str(Path(path).resolve()) for path in library_files()}
    return [each for each in found if each.path in files]


def file_mb() -> float:
    """How much of the libraries' files is resident in this process."""
    return sum(each.kb["Rss"] - each.kb["Anonymous"] for each in mappings()) / 1024


def test_only_what_no_process_has_written_to_is_released() -> None:
    load_library()
    clean = [each for each in mappings() if "w" not in each.rights and not each.kb["Anonymous"]]
    assert sorted(unwritten_parts(library_files())) == [(each.start, each.stop) for each in clean]
    relocated = [each for each in mappings() if each.kb["Anonymous"]]
    assert clean
    assert relocated  # some of them read-only now


def test_a_model_answers_as_before_when_its_pages_were_released(cases: Callable[[str], str]) -> None:
    model = open_model(cases("no_variables"))
    feeds = {"celsius": np.arange(3.0)}
    before = model.call(feeds)
    resident = file_mb()
    release_pages(library_files())
    assert file_mb() < 0.5 * resident
    after = model.call(feeds)
    assert {name: values.tolist() for name, values in after.arrays.items()} == {
        name: values.tolist() for name, values in before.arrays.items()
    }
    model.close()


def test_a_library_that_is_gone_is_no_error(tmp_path: Path) -> None:
    release_pages([str(tmp_path / "none.so")])


_LOAD = """
import sys
from sluice.models.cache import open_model
from sluice.models.saved_model.native.library import load_library
from tests.models.saved_model.native.test_pages import file_mb

load_library()
loaded = file_mb()
model = open_model(sys.argv[1])
print(loaded, file_mb())
"""


def test_what_only_loading_has_read_is_not_resident_after(cases: Callable[[str], str]) -> None:
    """290 MB are after the library is loaded, and 80 MB more are read to load a model."""
    command = [sys.executable, "-c", _LOAD, cases("no_variables")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded, opened = map(float, done.stdout.split())
    assert loaded < 60
    assert opened < 60
