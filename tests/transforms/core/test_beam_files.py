"""A model's files through Beam, and a model in a bucket that follows its versions."""

from __future__ import annotations

import glob
import io
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from apache_beam.io.filesystem import CompressionTypes, FileMetadata
from apache_beam.io.filesystems import FileSystems

from sluice.models.files import LocalFiles, copy_directory
from sluice.models.interface import ModelOptions
from sluice.models.saved_model.followed import FollowedModel
from sluice.models.saved_model.loader import open_saved_model
from sluice.models.uri import ModelSpec
from sluice.transforms.core import beam_files
from sluice.transforms.core.beam_files import BeamFiles, remove_old_copies
from tests.support.saved_models.by_hand import FLOAT, HandMade
from tests.support.saved_models.followed import SHARD, Opener, write_version
from tests.support.servers import Gcs

PARTS = ("saved_model.pb", "variables/variables.index", SHARD)


def test_a_fingerprint_changes_with_every_file_under_a_directory(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    file = tmp_path / "variables/index"
    seen: list[str] = []

    def changed() -> bool:
        seen.append(BeamFiles().fingerprint(str(tmp_path)))
        return seen[-1] not in seen[:-1]

    assert changed()
    file.write_bytes(b"ab")
    assert changed() and not changed()
    file.write_bytes(b"abc")
    assert changed()
    os.utime(file, (1, 1))  # other contents of the same size
    assert changed()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory for temporary files; where a user's copies go is a name in it."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary" / f"sluice-models-{os.geteuid()}"


def remote_files(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Lets Beam list objects of these names under gs://b/m, each of which holds its own name."""
    found = [FileMetadata(f"gs://b/m/{name}", len(name), 1.0) for name in names]
    monkeypatch.setattr(beam_files, "match_files", lambda pattern: found)
    monkeypatch.setattr(beam_files, "open_binary", lambda path: io.BytesIO(path.removeprefix("gs://b/m/").encode()))


def test_copies_lie_in_a_directory_of_this_user_alone(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote_files(monkeypatch, "saved_model.pb", "variables/variables.index")
    copy = Path(BeamFiles().local_copy("gs://b/m"))
    assert copy.parent == temporary and temporary.stat().st_mode & 0o777 == 0o700
    assert (copy / "variables/variables.index").read_text() == "variables/variables.index"
    assert re.fullmatch("[0-9a-f]{12}-[0-9a-f]{24}", copy.name)
    assert BeamFiles().local_copy("gs://b/m") == str(copy)


def in_the_way(place: Path, how: str) -> None:
    if how == "link":
        (place.parent / "elsewhere").mkdir(mode=0o700)
        place.symlink_to(place.parent / "elsewhere")
    elif how == "file":
        place.touch(mode=0o600)
    else:
        place.mkdir()
        place.chmod(0o777 if how == "open to all" else 0o700)
        if how == "another user's":
            os.chown(place, 12345, 12345)


@pytest.mark.parametrize("how", ["link", "file", "open to all", "another user's"])
def test_a_directory_that_others_made_is_not_taken(how: str, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "another user's" and os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    remote_files(monkeypatch, "saved_model.pb")
    in_the_way(temporary, how)
    with pytest.raises(PermissionError, match=f"{temporary} is not a directory of this user alone.*set TMPDIR"):
        BeamFiles().local_copy("gs://b/m")


def test_a_lock_that_is_a_link_is_not_followed(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote_files(monkeypatch, "saved_model.pb")
    copy = Path(BeamFiles().local_copy("gs://b/m"))
    victim = temporary.parent / "victim"
    victim.write_text("kept")
    Path(f"{copy}.lock").unlink()
    Path(f"{copy}.lock").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        BeamFiles().local_copy("gs://b/m")
    assert victim.read_text() == "kept"


@pytest.mark.parametrize("name", ["../evil", "variables/../../evil", "a/.."])
def test_an_object_whose_name_leads_out_is_not_copied(
    name: str, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote_files(monkeypatch, "saved_model.pb", name)
    with pytest.raises(PermissionError, match="leads out of its directory"):
        BeamFiles().local_copy("gs://b/m")
    assert [path.suffix for path in temporary.rglob("*")] == [".lock"]
    assert [path.name for path in temporary.parent.iterdir()] == [temporary.name]


def test_old_copies_of_other_versions_are_removed(tmp_path: Path) -> None:
    def copy(uri: str, hours_old: float) -> Path:
        path = tmp_path / Path(copy_directory(uri, "")).name
        (path / "variables").mkdir(parents=True)
        (path / "variables/index").touch()
        Path(f"{path}.lock").touch()
        asked = time.time() - 3600 * hours_old
        os.utime(path, (asked, asked))
        return path

    old, late, new = copy("gs://b/m/1", 2), copy("gs://b/m/2", 0.5), copy("gs://b/m/3", 3)
    other, unfinished = copy("gs://b/n/1", 2), Path(f"{old}.f00d")
    unfinished.mkdir()
    os.utime(unfinished, (1, 1))
    remove_old_copies(str(new))
    assert [path.exists() for path in (old, late, new, other, unfinished)] == [False, True, True, True, True]
    assert not [path for path in tmp_path.glob(f"{old.name}.*") if path not in (unfinished, Path(f"{old}.lock"))]


def test_the_copy_of_a_model_that_is_open_is_kept(temporary: Path, tmp_path: Path) -> None:
    """A model whose call hangs is loaded anew, hours after its copy was asked for."""
    made = HandMade().node("x", "Placeholder", dtype=FLOAT, shape=[-1]).node("y", "Identity", "x", T=FLOAT)
    stored = made.signature({"x": (FLOAT, "x:0", [-1])}, {"y": (FLOAT, "y:0", [-1])}).write(tmp_path / "m" / "1")
    copy = Path(copy_directory("gs://b/m/1", ""))

    class Copied(LocalFiles):
        def local_copy(self, directory: str) -> str:
            shutil.copytree(stored, copy, dirs_exist_ok=True)
            os.utime(copy, (1, 1))
            return str(copy)

    model = open_saved_model(ModelSpec(stored), ModelOptions(), Copied())
    remove_old_copies(copy_directory("gs://b/m/2", ""))
    assert copy.exists()
    model.renew()
    assert model.call({"x": np.float32([2, 3])}).arrays["y"].tolist() == [2, 3]
    model.close()
    remove_old_copies(copy_directory("gs://b/m/2", ""))
    assert not copy.exists()


def test_versions_in_a_bucket_are_followed(gcs: Gcs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    base, opener = gcs.path("followed"), Opener()
    for number in (1, 2):
        write_version(tmp_path, str(number))

    def upload(number: int, *names: str) -> None:
        for name in names:
            with FileSystems.create(f"{base}/{number}/{name}", compression_type=CompressionTypes.UNCOMPRESSED) as file:
                file.write((tmp_path / str(number) / name).read_bytes())

    upload(1, *PARTS)
    model = FollowedModel(ModelSpec(base), ModelOptions(), BeamFiles(), open_version=opener)
    for part in PARTS:
        upload(2, part)
        model.poll()
        assert model.version == 1
    model.poll()
    assert (model.version, model.take_changes().rejected) == (2, 0)
    (first,) = {os.path.dirname(path) for path in glob.glob(f"{tmp_path}/sluice-models-*/*/saved_model.pb")} - {
        BeamFiles().local_copy(f"{base}/2")
    }
    os.utime(first, (1, 1))
    FileSystems.delete([f"{base}/2/{part}" for part in PARTS])
    for _ in range(2):
        model.poll()
    assert (model.version, opener.opened) == (1, [1, 2, 1])
    assert os.stat(first).st_mtime > 1  # it is in use again
    model.close()
