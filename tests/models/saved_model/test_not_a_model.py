"""A path that holds no SavedModel: what it holds, and the remedy."""

import re
from pathlib import Path

import pytest

from sluice.models.errors import ModelNotFound
from sluice.models.files import LocalFiles
from sluice.models.saved_model.versions import find_version

FILES = LocalFiles()


def told(base: Path | str) -> str:
    with pytest.raises(ModelNotFound) as caught:
        find_version(str(base), FILES)
    assert str(caught.value).startswith(f"--model {base}: ")
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("penguins.keras", "keras.models.load_model({path!r}).export({stem!r})"),
        ("penguins.h5", "keras.models.load_model({path!r}).export({stem!r})"),
        ("penguins.onnx", "onnx2tf -i {path} -o {stem} -osd; then give --model {stem}"),
        ("penguins.tflite", "cannot be made a SavedModel again"),
        ("penguins.pt", "it is a PyTorch model"),
        ("penguins.pkl", "it is a Python object"),
        ("penguins.zip", "unpack it"),
        ("saved_model.pb", "give its directory, --model {parent}"),
        ("frozen.pb", "a graph without signatures"),
        ("model.ckpt-7.index", "it is a checkpoint"),
        ("model.ckpt-7.data-00000-of-00001", "it is a checkpoint"),
        ("notes.txt", "it is a file, and no directory"),
    ],
)
def test_a_file(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"x")
    expected = text.format(path=str(path), stem=str(tmp_path / "penguins"), parent=str(tmp_path))
    assert expected in told(path).replace("'\"'\"'", "'")


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["checkpoint", "ckpt-1.index", "ckpt-1.data-00000-of-00001"], "it is a checkpoint: values of variables"),
        (["config.json", "metadata.json", "model.weights.h5"], "it is an unpacked .keras file"),
        (["best.keras", "log.csv"], "no saved_model.pb in it, but best.keras: it is a file of Keras"),
        (["model.json", "group1-shard1of1.bin"], "TensorFlow.js"),
        (["variables.index", "variables.data-00000-of-00001"], "give its parent, --model {parent}"),
        (["a/saved_model.pb", "b/3/saved_model.pb"], "give --model {base}/a or {base}/b"),
        (["a/b/c/readme"], "there is no saved_model.pb in it, nor in a numbered directory under it"),
        ([], "there is no saved_model.pb in it, nor in a numbered directory under it"),
    ],
)
def test_a_directory(names: list[str], text: str, tmp_path: Path) -> None:
    base = tmp_path / "model"
    base.mkdir()
    for name in names:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(b"x")
    assert text.format(base=base, parent=tmp_path) in told(base)


def test_a_prefix_of_checkpoint_files(tmp_path: Path) -> None:
    (tmp_path / "ckpt-1.index").write_bytes(b"x")
    assert "it is a checkpoint" in told(tmp_path / "ckpt-1")


def test_nothing_there(tmp_path: Path) -> None:
    assert "there is nothing at this path; Sluice takes a SavedModel" in told(tmp_path / "penguins")
    (tmp_path / "penguins_v2").mkdir()
    assert re.search(r"nothing at this path \(did you mean .*/penguins_v2\?\); ", told(tmp_path / "penguins"))
    assert "model.export(DIRECTORY)" in told("/nowhere/else")
