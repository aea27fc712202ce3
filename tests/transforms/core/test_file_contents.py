"""What is in files that rows name: in order, with bounded memory, and a bad one costs its row."""

import dataclasses
import os
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from apache_beam.io.filesystems import FileSystems

from sluice.models.reserved import ATTRIBUTES, FED, FILE, MESSAGE_ID
from sluice.models.wording import Message
from sluice.transforms.core import file_contents
from sluice.transforms.core.failures import Failure
from sluice.transforms.core.file_contents import FileInputs, load_files
from sluice.transforms.core.file_paths import BESIDE, PathRules

MOST = 1000
LOCAL = FileInputs((("image", "path"),), PathRules(relative=BESIDE, local=True), MOST)


def batch_of(paths: list[str | None], **columns: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"id": list(range(len(paths))), "path": pa.array(paths, pa.string()), **columns})


def load(batch: pa.RecordBatch, inputs: FileInputs = LOCAL) -> tuple[list[pa.RecordBatch], list[Failure]]:
    loaded = list(load_files(batch, pickle.loads(pickle.dumps(inputs))))
    rows = [each.rows for each in loaded if each.rows is not None]
    return rows, [failure for each in loaded for failure in each.failures]


def contents(rows: list[pa.RecordBatch], name: str = "image") -> dict[int, bytes]:
    pairs = (zip(each["id"].to_pylist(), each[FED + name].to_pylist(), strict=True) for each in rows)
    return {key: data for each in pairs for key, data in each}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The paths of 200 files, each with its number."""
    for number in range(200):
        (tmp_path / f"{number}.bin").write_bytes(b"%d" % number)
    return [str(tmp_path / f"{number}.bin") for number in range(200)]


def test_rows_come_in_order_and_in_parts(files: list[str]) -> None:
    rows, failures = load(batch_of(list(files)))
    assert failures == []
    assert [row for each in rows for row in each["id"].to_pylist()] == list(range(200))
    assert contents(rows) == {number: b"%d" % number for number in range(200)}
    assert max(each.num_rows for each in rows) <= file_contents.CALL_ROWS
    assert [each.schema.names for each in rows] == [["id", "path", FED + "image"]] * len(rows)
    assert list(load_files(batch_of([]), LOCAL)) == []


def test_a_part_has_few_bytes_whatever_the_files_are(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_contents, "_PART_BYTES", 5)
    rows, _ = load(batch_of(list(files[100:])))
    assert {each.num_rows for each in rows} == {2}
    assert len(contents(rows)) == 100


def test_files_larger_than_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_contents, "_PIECE_BYTES", 7)
    paths = []
    for size in (0, 1, 6, 7, 8, 14, 15, 999, 1000):
        paths.append(str(tmp_path / f"{size}.bin"))
        Path(paths[-1]).write_bytes(bytes(range(256)) * 3 + b"x" * (size - 768) if size > 768 else b"x" * size)
    rows, failures = load(batch_of(list(paths)))
    assert failures == []
    assert contents(rows) == {row: Path(path).read_bytes() for row, path in enumerate(paths)}


def test_few_bytes_are_read_ahead(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """However many files a batch names: what nobody has asked for is not read."""
    opened: list[str] = []
    open_file = FileSystems.open

    def open_and_count(path: str, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(FileSystems, "open", open_and_count)
    monkeypatch.setattr(file_contents, "_PART_ROWS", 10)
    parts = load_files(batch_of(list(files)), LOCAL)
    for number in range(1, 4):
        next(parts)
        assert 10 * number <= len(opened) <= 10 * number + file_contents._THREADS
    parts.close()
    assert len(opened) <= 30 + file_contents._THREADS, "nothing is read after it"


def bad_paths(tmp_path: Path) -> dict[str | None, tuple[str, str]]:
    """Paths that cannot be read, each with the type and the reason of its failure."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    (tmp_path / "large.bin").write_bytes(b"x" * (MOST + 1))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    at = f"{tmp_path}/"
    return {
        f"{at}missing.bin": ("FileNotFoundError", "No such file or directory"),
        f"{at}directory": ("BadPath", "it is a directory"),
        f"{at}pipe": ("BadPath", "it is no regular file"),
        "/dev/zero": ("BadPath", "it is no regular file"),
        f"{at}large.bin": (
            "FileTooLarge",
            "the file has more than 1,000 bytes, the most of one row; --max_batch_bytes",
        ),
        f"{at}large.bin/x": ("NotADirectoryError", "Not a directory"),
        f"{at}loop": ("OSError", "symbolic link"),
        f"{at}{'x' * 5000}": ("OSError", "File name too long"),
        f"{at}nul\0.bin": ("ValueError", "embedded null"),
        "nosuch://b/1.bin": ("ValueError", ""),
        "": ("BadPath", "it is empty"),
        None: ("BadPath", "it is null"),
    }


def test_a_file_that_cannot_be_read_fails_its_row(files: list[str], tmp_path: Path) -> None:
    bad = bad_paths(tmp_path)
    paths: list[str | None] = [path for pair in zip(files, bad, strict=False) for path in pair]
    rows, failures = load(batch_of(paths))
    assert list(contents(rows)) == list(range(0, len(paths), 2))
    for failure, (path, (error_type, reason)) in zip(failures, bad.items(), strict=True):
        assert (failure.stage, failure.error_type) == ("read", error_type)
        assert failure.error_message.startswith(f"column 'path' names {path!r}, and it cannot be read: ")
        assert reason in failure.error_message
        assert isinstance(failure.error_message, Message)
        assert path is None or path[-12:] not in failure.error_message.public or not path
        assert failure.payload.startswith(b'{"id":')


def test_a_file_that_may_not_be_read_or_vanishes_fails_its_row(
    files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file = FileSystems.open
    errors = {files[3]: PermissionError(13, "Permission denied"), files[5]: FileNotFoundError(2, "No such file")}

    def refuse(path: str, *arguments: Any, **options: Any) -> Any:
        if path in errors:
            raise errors[path]
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(FileSystems, "open", refuse)
    rows, failures = load(batch_of(list(files[:8])))
    assert list(contents(rows)) == [0, 1, 2, 4, 6, 7]
    assert [(each.error_type, each.error_message.rpartition(": ")[2]) for each in failures] == [
        ("PermissionError", "Permission denied"),
        ("FileNotFoundError", "No such file"),
    ]


def test_a_device_without_a_size_is_not_read_to_its_end(tmp_path: Path) -> None:
    """The files of /proc have no size, and may be long."""
    (_, failures) = load(batch_of(["/proc/self/smaps"]), dataclasses.replace(LOCAL, max_bytes=10))
    assert [failure.error_type for failure in failures] == ["FileTooLarge"]


def test_relative_paths_begin_beside_the_rows(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.bin").write_bytes(name.encode())
    origins = pa.array([f"{tmp_path}/a/f.csv#byte=", f"{tmp_path}/b/f.csv#byte="]).dictionary_encode()
    rows, failures = load(batch_of(["1.bin", "1.bin"], **{FILE: origins}))
    assert (contents(rows), failures) == ({0: b"a", 1: b"b"}, [])


def test_a_row_with_two_files(files: list[str]) -> None:
    inputs = dataclasses.replace(LOCAL, columns=(("left", "path"), ("right", "other")))
    others = [*files[1:4], "missing", files[5]]
    rows, failures = load(batch_of([*files[:2], None, *files[3:5]], other=others), inputs)
    assert contents(rows, "left") == {0: b"0", 1: b"1", 4: b"4"}
    assert contents(rows, "right") == {0: b"1", 1: b"2", 4: b"5"}
    assert [failure.error_message[:24] for failure in failures] == [
        "column 'path' names None",
        "column 'other' names 'mi",
    ]


def test_a_message_that_names_a_file_of_the_worker(files: list[str]) -> None:
    attributes = pa.array([[], []], pa.map_(pa.string(), pa.string()))
    names = {FILE: ["projects/p/subscriptions/s"] * 2, MESSAGE_ID: ["m1", "m2"], ATTRIBUTES: attributes}
    stream = dataclasses.replace(LOCAL, rules=PathRules())
    rows, failures = load(batch_of(["file:///etc/passwd", files[0]], **names), stream)
    assert rows == []
    assert [failure.origin for failure in failures] == [f"projects/p/subscriptions/s#message_id=m{n}" for n in (1, 2)]
    assert all("--read_paths_root" in failure.error_message for failure in failures)


def test_errors_of_the_way_to_the_files_are_raised(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner tries again: no row is at fault."""

    def fail(*_: object, **__: object) -> None:
        raise ConnectionResetError("the network is away")

    monkeypatch.setattr(FileSystems, "open", fail)
    with pytest.raises(ConnectionResetError):
        load(batch_of(list(files)))
