import re
from pathlib import Path

import pytest
from apache_beam.io.filesystem import FileMetadata

from sluice.models.errors import UsageError
from sluice.transforms.core.formats import CSV, FILES, JSONL
from sluice.transforms.files.find_files import find_files, match_all


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Some files; returns their directory."""
    for name in ("a.csv", "b.csv.gz", "c.tsv", "._d.csv", "_SUCCESS", "notes.txt", "deep/e.csv", "deep/er/f.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def names(inputs: list[str], format_: str = "") -> list[str]:
    found = find_files(inputs, format_)
    assert [file.path for file in match_all(found.patterns)] == [file.path for file in found.files]
    return [Path(file.path).name for file in found.files]


def test_a_directory_means_its_files_of_one_format(folder: Path) -> None:
    for path in (str(folder), f"{folder}/"):
        assert names([path]) == ["a.csv", "b.csv.gz", "c.tsv"]
    assert find_files([str(folder)], "").format == CSV
    assert names([str(folder / "deep")]) == ["e.csv"]


def test_a_slash_at_the_end_means_a_directory_on_gs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    there = ["gs://b/d/1.csv", "gs://b/d/_SUCCESS", "gs://b/d/deep/2.csv", "gs://b/d/deep/3.json"]

    def match(pattern: str) -> list[FileMetadata]:  # as Beam does on gs://
        asked = re.escape(pattern).replace(r"\[!\._\]", "[^._]").replace(r"\*", "[^/]*")
        ending = ".*" if pattern.endswith("/") else ""
        return [FileMetadata(path, 1) for path in there if re.fullmatch(asked + ending, path)]

    monkeypatch.setattr("sluice.transforms.files.find_files.match_files", match)
    assert names(["gs://b/d/"]) == ["1.csv"]


def test_a_file_is_read_once_whatever_it_is_called(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert names(["a.csv", f"{folder}/a.csv", "./deep/e.csv", "deep/e.csv"]) == ["a.csv", "e.csv"]


def test_several_inputs(folder: Path) -> None:
    assert names([f"{folder}/c.tsv", f"{folder}/*.csv", f"{folder}/a.csv", f"{folder}/deep"]) == [
        "._d.csv",
        "a.csv",
        "c.tsv",
        "e.csv",
    ]


def test_a_format_that_is_given_chooses_in_a_directory(folder: Path) -> None:
    (folder / "g.jsonl").write_bytes(b"{}")
    assert names([str(folder)], JSONL) == ["g.jsonl"]
    assert names([str(folder)], CSV) == ["a.csv", "b.csv.gz", "c.tsv"]
    (folder / "plain").mkdir()
    (folder / "plain" / "part-0").write_bytes(b"x")
    (folder / "plain" / "_SUCCESS").write_bytes(b"")
    assert names([f"{folder}/plain"], CSV) == ["part-0"]


def test_files_of_any_kind_are_rows(folder: Path) -> None:
    """Hidden files and directories are none; a glob takes what it says."""
    assert names([str(folder)], FILES) == ["a.csv", "b.csv.gz", "c.tsv", "notes.txt"]
    assert names([f"{folder}/**.csv"], FILES) == ["._d.csv", "a.csv", "e.csv", "f.csv"]
    assert names([f"{folder}/deep", f"{folder}/notes.txt"], FILES) == ["e.csv", "notes.txt"]
    (folder / "empty").mkdir()
    (folder / "empty" / "_SUCCESS").write_bytes(b"")
    with pytest.raises(UsageError, match=r"/empty: no file matches"):
        find_files([str(folder / "empty")], FILES)


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (["{}/none/*.csv"], "--input {}/none/*.csv: no file matches"),
        (["{}/a.csv", "{}/none.csv"], "--input {}/none.csv: no file matches"),
        (["{}/a.csv,{}/c.tsv"], "no file matches; give --input again for each further path"),
        (["{}/a.csv", "{}/g.jsonl"], "--input {}/a.csv is csv, and --input {}/g.jsonl is jsonl"),
        (["{}/mixed"], "the directory holds avro and csv files; give one of them, as --input '{}/mixed/*.avro'"),
        (["{}/texts"], "none of its 1 files has the ending of a format (.csv, "),
        (["{}/texts"], "--input_format files makes a row of each file"),
        (["{}/outer"], "it has files in directories of its own: give --input '{}/outer/**'"),
        (["{}/empty"], "--input {}/empty: no file matches"),
        (["{}/notes.txt"], "the format is not clear from the name"),
    ],
)
def test_what_names_no_files(inputs: list[str], text: str, folder: Path) -> None:
    for name in ("g.jsonl", "mixed/a.csv", "mixed/b.avro", "texts/a.txt", "outer/inner/a.csv"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(b"x")
    (folder / "empty").mkdir()
    with pytest.raises(UsageError) as caught:
        find_files([each.replace("{}", str(folder)) for each in inputs], "")
    assert text.replace("{}", str(folder)) in str(caught.value)
