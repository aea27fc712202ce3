"""What workers are told to install: the versions of this machine."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from sluice.pipelines.dataflow.pins import pinned
from sluice.pipelines.dataflow.sdist import copy_checkout
from tests.support.paths import ROOT


def install(site: Path, name: str, version: str, *requires: str) -> None:
    """Leaves what pip leaves of a package, without its code."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {text}" for text in requires]
    (info / "METADATA").write_text("\n".join(lines) + "\n")


def pins(site: Path, *requirements: str) -> list[str]:
    return pinned(requirements, [str(site)])


def test_a_requirement_and_what_it_requires(tmp_path: Path) -> None:
    install(tmp_path, "a", "1.5", "b>=2", "Other.Name<9")
    install(tmp_path, "b", "2.1", "a")
    install(tmp_path, "other-name", "8.0rc1")
    install(tmp_path, "unrelated", "1")
    assert pins(tmp_path, "a>=1,<2") == ["a==1.5", "b==2.1", "other-name==8.0rc1"]


def test_extras_bring_what_they_require(tmp_path: Path) -> None:
    install(tmp_path, "a", "1", "b; extra == 'gcp'", "c; extra == 'aws'", "d[x]")
    for name in "bc":
        install(tmp_path, name, "2")
    install(tmp_path, "d", "3", "e; extra == 'x'", "c; extra == 'y'")
    install(tmp_path, "e", "4")
    assert pins(tmp_path, "a", "a[gcp]>=1") == ["a[gcp]==1", "b==2", "d[x]==3", "e==4"]


@pytest.mark.parametrize("marker", ["sys_platform == 'win32'", "platform_system == 'Darwin'", "os_name == 'nt'"])
def test_what_workers_do_not_need_is_left_out(marker: str, tmp_path: Path) -> None:
    """A launcher on another system has packages that there are not for Linux."""
    install(tmp_path, "a", "1", f"elsewhere; {marker}", "on-linux; sys_platform == 'linux'", "missing>=1")
    install(tmp_path, "elsewhere", "1")
    install(tmp_path, "on-linux", "1")
    assert pins(tmp_path, "a", "not-here[x]<3,>=2") == ["a==1", "not-here[x]<3,>=2", "on-linux==1"]


def test_a_local_build_is_the_release_that_it_was_made_of(tmp_path: Path) -> None:
    install(tmp_path, "a", "2.21.0+cu12")
    assert pins(tmp_path, "a>=2") == ["a==2.21.0"]


def install_requires(setup: str) -> set[Requirement]:
    """Returns the requirements that a setup.py declares; to run it would import setuptools, which changes imports."""
    (found,) = [
        each.value
        for each in ast.parse(setup).body
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "INSTALL_REQUIRES"
    ]
    return set(map(Requirement, ast.literal_eval(found)))


def test_a_copied_checkout_has_pins_and_all_else(tmp_path: Path) -> None:
    copied = Path(copy_checkout(ROOT / "setup.py", tmp_path / "copy", [str(tmp_path)]))
    original = (ROOT / "setup.py").read_text()
    # What this machine has is not in the path: all stays as it is declared.
    assert install_requires(copied.read_text()) == install_requires(original)
    assert copied.read_text().partition("TEST_REQUIRES")[2] == original.partition("TEST_REQUIRES")[2]
    for path in (ROOT / "pipelines").rglob("*.py"):
        assert (copied.parent / "sluice" / path.relative_to(ROOT)).read_bytes() == path.read_bytes()
