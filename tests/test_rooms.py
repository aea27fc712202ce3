"""Which way imports go between rooms. A room is a folder of a package, or a file at its top.

`python -m tests.test_rooms` prints rooms, floors and arrows.
"""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.imports import imports_of
from tests.support.paths import ROOT

# The floors of each package, from the top. A room imports only rooms of lower floors.
FLOORS: dict[str, list[set[str]]] = {
    "models": [
        {"opened"},
        {"cache", "signatures"},
        {"server", "endpoints", "zoo"},
        {"saved_model"},
        {"batching"},
        {"interface"},
        {"tensors"},
        {"devices", "error_table", "signature", "uri"},
        {"errors", "files", "http_faults", "isolate", "protos", "reserved", "wording"},
    ],
    "transforms": [
        {"pubsub", "bigquery", "managed"},
        {"files"},
        {"decode", "encode", "predict", "model_handler", "window_rows"},
        {"core"},
    ],
    "pipelines": [
        {"cli"},
        {"commands"},
        {"batch", "streaming", "compare"},
        {"managed"},
        {"segments", "running", "flink"},
        {"report"},
        {"graph", "library", "progress", "subscribing"},
        {"plan", "dataflow"},
        {"portable"},
        {"end", "options", "signals"},
        {"outcome"},
        {"logs"},
    ],
}
# Which packages each may import, itself apart.
BELOW = {"models": set(), "transforms": {"models"}, "pipelines": {"models", "transforms"}}

Arrow = tuple[str, str]


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def room_of(package: str, path: Path) -> str:
    """Returns the room that a file belongs to; "" for the package's own __init__."""
    first = path.relative_to(ROOT / package).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


@functools.cache
def imported(path: Path) -> tuple[str, ...]:
    """Returns the modules of ours that a file imports: at its top, within functions, and for types only."""
    return tuple(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    for node, _ in imports_of(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("sluice"))
        elif (node.module or "").startswith("sluice"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows(package: str) -> dict[Arrow, set[str]]:
    """Returns the imports from room to room within a package, each with the files that make it."""
    found: dict[Arrow, set[str]] = {}
    for path in sources(package):
        for name in imported(path):
            parts = name.split(".")
            if parts[1] == package and len(parts) > 2:
                arrow = room_of(package, path), parts[2]
                if arrow[0] != arrow[1]:
                    found.setdefault(arrow, set()).add(str(path.relative_to(ROOT)))
    return found


def floor_of(package: str, room: str) -> int:
    """Returns the floor of a room, counted from the top."""
    (floor,) = [number for number, rooms in enumerate(FLOORS[package]) if room in rooms]
    return floor


@pytest.mark.parametrize("package", FLOORS)
def test_every_room_has_a_floor(package: str) -> None:
    rooms = {room_of(package, path) for path in sources(package)} - {""}
    assert rooms == set().union(*FLOORS[package])


@pytest.mark.parametrize("package", FLOORS)
def test_imports_go_down(package: str) -> None:
    for (room, other), paths in arrows(package).items():
        assert room, f"models, transforms and pipelines import nothing themselves: {paths}"
        assert floor_of(package, room) < floor_of(package, other), f"{room} imports {other}: {sorted(paths)}"


@pytest.mark.parametrize("package", FLOORS)
def test_packages_import_downwards(package: str) -> None:
    for path in sources(package):
        others = {name.split(".")[1] for name in imported(path)} - {package}
        assert others <= BELOW[package], f"{path} imports {others - BELOW[package]}"


def circles(package: str) -> list[tuple[str, str]]:
    """Returns pairs of files of a package that import each other, directly or through others."""
    modules = {_module(path): path for path in sources(package)}
    edges = {name: {_home(each) for each in imported(path)} & modules.keys() for name, path in modules.items()}
    reach = {name: _reachable(name, edges) for name in edges}
    return [(name, other) for name in edges for other in edges[name] if name in reach[other]]


def _module(path: Path) -> str:
    return ".".join(("sluice", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def _home(name: str) -> str:
    """Returns the module that an imported name is, or is a name of."""
    path = ROOT / Path(*name.split(".")[1:])
    return name if path.is_dir() or path.with_suffix(".py").is_file() else name.rpartition(".")[0]


def _reachable(start: str, edges: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    left = [start]
    while left:
        for name in edges[left.pop()] - seen:
            seen.add(name)
            left.append(name)
    return seen


@pytest.mark.parametrize("package", FLOORS)
def test_no_files_import_each_other(package: str) -> None:
    assert circles(package) == []


def main() -> None:
    for package, floors in FLOORS.items():
        found = arrows(package)
        print(f"{package}: {sum(map(len, floors))} rooms, {len(floors)} floors, {len(found)} arrows")
        for rooms in floors:
            for room in sorted(rooms):
                targets = sorted(other for origin, other in found if origin == room)
                print(f"  {room}{' -> ' if targets else ''}{', '.join(targets)}")
            print("  --")


if __name__ == "__main__":
    main()
