"""Which directory under a base path is loaded; models are files made by hand, half of them incomplete."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sluice.models.errors import ModelNotFound
from sluice.models.files import LocalFiles, copy_directory
from sluice.models.protos import message_class
from sluice.models.saved_model.versions import (
    Version,
    find_version,
    find_versions,
    missing_assets,
    read_meta_graph,
    what_is_missing,
)

FILES = LocalFiles()


def saved_model(
    variables: str = "", assets: tuple[str, ...] = (), tf1_assets: tuple[str, ...] = (), tag: str = "serve"
) -> Any:
    """A SavedModel whose graph has a variable in its nodes ("graph") or in a function ("function")."""
    made = message_class("tensorflow.SavedModel")(saved_model_schema_version=1)
    meta_graph = made.meta_graphs.add()
    meta_graph.meta_info_def.tags.append(tag)
    meta_graph.graph_def.node.add(name="x", op="Placeholder")
    if variables == "graph":
        meta_graph.graph_def.node.add(name="w", op="VariableV2")
    if variables == "function":
        meta_graph.graph_def.library.function.add().node_def.add(name="w", op="VarHandleOp")
    for name in assets:
        meta_graph.asset_file_def.add(filename=name)
    for name in tf1_assets:
        packed = meta_graph.collection_def["saved_model_assets"].any_list.value.add()
        packed.Pack(message_class("tensorflow.AssetFileDef")(filename=name))
    return made


def write(directory: Path, model: Any = None, *files: str) -> str:
    """Writes saved_model.pb, and empty files of these names beside it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "saved_model.pb").write_bytes((model or saved_model()).SerializeToString())
    for name in files:
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).touch()
    return str(directory)


INDEX = "variables/variables.index"


def shards(*numbers: int, of: int) -> list[str]:
    return [f"variables/variables.data-{number:05}-of-{of:05}" for number in numbers]


@pytest.mark.parametrize(
    ("model", "files", "lacks"),
    [
        (saved_model(), [], None),
        (saved_model("graph"), [INDEX, *shards(0, of=1)], None),
        (saved_model("function"), [INDEX, *shards(0, 1, 2, of=3)], None),
        (saved_model(), [INDEX, *shards(0, of=1)], None),
        (saved_model("graph"), [INDEX, *shards(0, 1, of=2), *shards(1, of=3)], None),
        (saved_model("graph"), [], "variables/variables.index does not exist, and the graph has variables"),
        (saved_model("function"), shards(0, of=1), "variables/variables.index does not exist"),
        (saved_model("graph"), [INDEX], "0 of 1 shards"),
        (saved_model("graph"), [INDEX, *shards(0, 2, of=3)], "2 of 3 shards of variables are in"),
        (saved_model("graph"), [INDEX, shards(0, of=1)[0] + ".tempstate99"], "0 of 1 shards"),
        (saved_model(assets=("a.txt",)), [], None),
        (saved_model(tag="train"), [], "has no graph tagged 'serve' (its tags: [['train']]); export"),
    ],
)
def test_what_is_missing(tmp_path: Path, model: Any, files: list[str], lacks: str | None) -> None:
    found = what_is_missing(write(tmp_path, model, *files), FILES)
    assert found is None if lacks is None else lacks in (found or "")


@pytest.mark.parametrize(
    ("model", "files", "missing"),
    [
        (saved_model(), [], []),
        (saved_model(assets=("a.txt", "b.txt")), ["assets/a.txt", "assets/b.txt"], []),
        (saved_model(assets=("a.txt", "b.txt")), ["assets/a.txt"], ["assets/b.txt"]),
        (saved_model(tf1_assets=("vocabulary",)), ["assets/vocabulary"], []),
        (saved_model(tf1_assets=("vocabulary",)), [], ["assets/vocabulary"]),
    ],
)
def test_missing_assets(tmp_path: Path, model: Any, files: list[str], missing: list[str]) -> None:
    directory = write(tmp_path, model, *files)
    assert missing_assets(directory, model.meta_graphs[0], FILES) == missing


def test_a_model_file_cut_short_anywhere_is_incomplete(tmp_path: Path) -> None:
    whole = saved_model("graph", ("a",)).SerializeToString()
    write(tmp_path, None, INDEX, *shards(0, of=1), "assets/a")
    for end in range(len(whole)):
        (tmp_path / "saved_model.pb").write_bytes(whole[:end])
        with pytest.raises(ModelNotFound, match="saved_model"):
            find_version(str(tmp_path), FILES)
    (tmp_path / "saved_model.pb").write_bytes(whole)
    assert find_version(str(tmp_path), FILES) == Version(str(tmp_path), None)


def incomplete(directory: Path) -> None:
    write(directory, saved_model("graph"), INDEX)


def empty(directory: Path) -> None:
    directory.mkdir(parents=True)


@pytest.mark.parametrize(
    ("layout", "found"),
    [
        ({"1": write}, ("1", 1)),
        ({"9": write, "10": write}, ("10", 10)),
        ({"9": write, "10": incomplete}, ("9", 9)),
        ({"9": write, "10": empty, "tmp-11": write, "12.unfinished": write, "-13": write}, ("9", 9)),
        ({"0007": write, "3": write}, ("0007", 7)),
        ({"1700000000": write, "1699999999": write}, ("1700000000", 1700000000)),
        ({"": write, "5": write}, ("", None)),
    ],
)
def test_the_newest_complete_version_is_found(
    tmp_path: Path, layout: dict[str, Callable[[Path], Any]], found: tuple[str, int | None]
) -> None:
    for name, make in layout.items():
        make(tmp_path / name)
    name, number = found
    assert find_version(str(tmp_path), FILES) == Version(str(tmp_path / name), number)


def test_a_version_that_is_asked_for(tmp_path: Path) -> None:
    for name in ("1", "2", "0003"):
        write(tmp_path / name)
    base = str(tmp_path)
    assert [find_version(base, FILES, number).number for number in (1, 2, 3)] == [1, 2, 3]
    assert find_versions(base, FILES) == [3, 2, 1]
    with pytest.raises(ModelNotFound, match=r"has no version 4; it has \[3, 2, 1\]"):
        find_version(base, FILES, 4)
    incomplete(tmp_path / "4")
    with pytest.raises(ModelNotFound, match="no complete version; version 4: 0 of 1 shards"):
        find_version(base, FILES, 4)


def test_what_was_found_and_what_it_lacks_is_said(tmp_path: Path) -> None:
    base = str(tmp_path)
    with pytest.raises(ModelNotFound, match=f"{base}: there is no saved_model.pb in it, nor in a numbered directory"):
        find_version(base, FILES)
    incomplete(tmp_path / "1")
    incomplete(tmp_path / "2")
    with pytest.raises(ModelNotFound, match=r"no complete version; version 2: 0 of 1.*; version 1: 0 of 1"):
        find_version(base, FILES)
    incomplete(tmp_path)
    with pytest.raises(ModelNotFound, match=f"{base} is not complete: 0 of 1 shards"):
        find_version(base, FILES)


def test_a_model_written_over_another_is_read_anew(tmp_path: Path) -> None:
    base = write(tmp_path, saved_model("graph"), INDEX, *shards(0, of=1))
    find_version(base, FILES)
    assert len(read_meta_graph(base, FILES).graph_def.node) == 2
    write(tmp_path, saved_model())
    find_version(base, FILES)
    assert len(read_meta_graph(base, FILES).graph_def.node) == 1


class CountingFiles(LocalFiles):
    """Counts reads; equal to all others of its class, as files that were pickled are."""

    reads = 0

    def read(self, path: str) -> bytes:
        CountingFiles.reads += 1
        return super().read(path)


@pytest.mark.parametrize("name", ["", "3"])
def test_what_a_launch_found_is_not_read_again_when_it_is_loaded(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, saved_model("graph"), INDEX, *shards(0, of=1))
    base, CountingFiles.reads = str(tmp_path), 0
    found = find_version(base, CountingFiles())
    assert find_version(base, CountingFiles(), found.number) == found
    read_meta_graph(found.directory, CountingFiles())
    assert CountingFiles.reads == 1
    (tmp_path / name / INDEX).unlink()
    with pytest.raises(ModelNotFound, match="does not exist"):
        find_version(base, CountingFiles(), found.number)


def test_local_files_are_files_not_directories(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("c", "a"):
        (tmp_path / name).write_bytes(name.encode())
    assert FILES.match(f"{tmp_path}/*") == [f"{tmp_path}/a", f"{tmp_path}/c"]
    assert FILES.match(f"{tmp_path}/none") == []
    assert FILES.read(f"{tmp_path}/a") == b"a"
    assert FILES.local_copy(str(tmp_path)) == str(tmp_path)
    assert LocalFiles() == FILES and hash(LocalFiles()) == hash(FILES)


def test_a_fingerprint_changes_with_every_file_under_a_directory(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    file = tmp_path / "variables/index"
    seen = [FILES.fingerprint(str(tmp_path / "none"))]

    def changed() -> bool:
        seen.append(FILES.fingerprint(str(tmp_path)))
        return seen[-1] not in seen[:-1]

    file.write_bytes(b"ab")
    assert changed() and not changed()
    file.write_bytes(b"abc")
    assert changed()
    os.utime(file, (1, 1))  # another content of the same size
    assert changed()
    (tmp_path / "saved_model.pb").touch()
    assert changed()
    file.rename(file.with_name("other"))
    assert changed() and not changed()


def test_versions_of_one_model_are_copied_side_by_side() -> None:
    def family(uri: str) -> str:
        return copy_directory(uri, "stamp").rsplit("-", 1)[0]

    assert family("gs://b/m/1") == family("gs://b/m/2")
    assert len({family(f"gs://b/{name}") for name in ("m/1", "n/1", "m/x", "m/y", "m")}) == 4


def test_a_copy_has_one_place_for_one_content() -> None:
    places = {copy_directory(uri, stamp) for uri in ("gs://b/m", "gs://b/m2") for stamp in ("1", "2")}
    assert len(places) == 4
    assert copy_directory("gs://b/m", "1") in places
