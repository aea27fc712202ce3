"""Which file a path in a row names, and what no path reaches."""

import os
from pathlib import Path

import pytest

from sluice.models.wording import Message
from sluice.transforms.core.file_paths import BESIDE, HERE, BadPath, PathRules, directory_of, parse_root, resolve

BATCH = PathRules(relative=BESIDE, local=True)
LISTED = PathRules(relative=HERE, local=True)
TABLE = PathRules(local=True)
STREAM = PathRules()
BUCKET = PathRules("gs://b/images")


@pytest.mark.parametrize(
    ("path", "rules", "directory", "file"),
    [
        ("a/1.jpg", BATCH, "data", "data/a/1.jpg"),
        ("../1.jpg", BATCH, "/data/in", "/data/in/../1.jpg"),
        ("1.jpg", BATCH, "", "1.jpg"),
        ("1.jpg", BATCH, "/", "/1.jpg"),
        ("1.jpg", PathRules("/"), "data", "/1.jpg"),
        ("1.jpg", BATCH, "gs://b/d", "gs://b/d/1.jpg"),
        ("/x/1.jpg", BATCH, "gs://b/d", "/x/1.jpg"),
        ("file:///x/a%20b.jpg", BATCH, "data", "/x/a b.jpg"),
        ("file://localhost/x.jpg", TABLE, "", "/x.jpg"),
        ("gs://b/1.jpg", BATCH, "data", "gs://b/1.jpg"),
        ("gs://b/1.jpg", STREAM, "projects/p/subscriptions", "gs://b/1.jpg"),
        ("images/1.jpg", LISTED, "images", "images/1.jpg"),
        ("1.jpg", BUCKET, "data", "gs://b/images/1.jpg"),
        ("gs://b/images/a/1.jpg", BUCKET, "", "gs://b/images/a/1.jpg"),
        ("a..b/1.jpg", BUCKET, "", "gs://b/images/a..b/1.jpg"),
    ],
)
def test_what_a_path_names(path: str, rules: PathRules, directory: str, file: str) -> None:
    assert resolve(path, rules, directory) == file


HOSTILE = [
    "/etc/passwd",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "file://localhost/etc/passwd",
    "file:///%65tc/passwd",
    "file:///images/../etc/passwd",
    "../../etc/passwd",
    "a/../../../etc/passwd",
    "/proc/self/environ",
]


@pytest.mark.parametrize("path", [*HOSTILE, "1.jpg", "./1.jpg", "~/1.jpg", "file://elsewhere/1.jpg", "", "."])
def test_a_message_names_no_file_of_the_worker(path: str) -> None:
    with pytest.raises(BadPath) as caught:
        resolve(path, STREAM)
    (text,) = caught.value.args
    assert isinstance(text, Message)
    assert text == text.public, "the words hold nothing of the row"


@pytest.mark.parametrize("path", [*HOSTILE, "link/1.jpg", "linked.jpg", "/", "", ".", ".."])
def test_nothing_leads_out_of_a_directory(path: str, tmp_path: Path) -> None:
    root, outside = tmp_path / "images", tmp_path / "images-of-others"
    for directory in (root, outside):
        directory.mkdir()
        (directory / "1.jpg").write_bytes(b"")
    (root / "link").symlink_to(outside)
    (root / "linked.jpg").symlink_to(outside / "1.jpg")
    spelled = [path, str(outside / "1.jpg"), f"{root}/../images-of-others/1.jpg"]
    if path and not path.startswith(("/", "file", "FILE")):
        spelled.append(f"{root}/{path}")
    for each in spelled:
        with pytest.raises(BadPath):
            resolve(each, PathRules(str(root)))


def test_what_is_in_a_directory(tmp_path: Path) -> None:
    root = tmp_path / "images"
    (root / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(root)
    (root / "again.jpg").symlink_to(root / "deep" / "1.jpg")
    whole = str(root / "deep" / "1.jpg")
    for each in ("deep/1.jpg", "deep/../deep/1.jpg", whole, f"file://{whole}", "again.jpg"):
        for rules in (PathRules(str(root)), PathRules(str(tmp_path / "link")), PathRules("/")):
            if rules.root != "/" or os.path.isabs(each):
                assert resolve(each, rules) == str(root.resolve() / "deep" / "1.jpg")


@pytest.mark.parametrize(
    "path",
    [*HOSTILE, "gs://b/imagesofothers/1.jpg", "gs://b/images", "gs://c/images/1.jpg", "s3://b/images/1.jpg",
     "gs://b/images/../1.jpg", "GS://b/images/1.jpg", "gs://b/images/./../1.jpg", "images/1.jpg/.."],
)  # fmt: skip
def test_nothing_leads_out_of_a_bucket(path: str) -> None:
    with pytest.raises(BadPath, match="it leads out of --read_paths_root gs://b/images"):
        resolve(path, BUCKET)


def test_a_relative_path_needs_a_beginning() -> None:
    with pytest.raises(BadPath, match="it is relative: give the directory in which it begins with --read_paths_root"):
        resolve("1.jpg", TABLE)


def test_the_root_as_people_give_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_root("gs://b/d/") == "gs://b/d"
    assert parse_root("images/") == parse_root(f"file://{tmp_path}/images") == str(tmp_path / "images")
    with pytest.raises(BadPath, match="another machine"):
        parse_root("file://elsewhere/d")


@pytest.mark.parametrize(
    ("origin", "directory"),
    [
        ("gs://b/d/f.csv#byte=", "gs://b/d"),
        ("/d/f#1.csv#byte=", "/d"),
        ("f.parquet#row=", ""),
        ("/f.csv#byte=", "/"),
        ("", ""),
    ],
)
def test_the_directory_of_a_row(origin: str, directory: str) -> None:
    assert directory_of(origin) == directory
