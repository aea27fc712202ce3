"""A sample that grows keeps its rows, and their number is the wanted one."""

from pathlib import Path

import pytest

from sluice.pipelines.compare.sample import Sample


def grown(tmp_path: Path, name: str, data: bytes, format_: str, count: int, plain: bool = True) -> list[Path]:
    place = tmp_path / "grown"
    place.mkdir()
    (tmp_path / name).write_bytes(data)
    sample = Sample([str(tmp_path / name)], format_, plain, str(place))
    directory = sample.times(count)
    assert sample.times(count) == directory
    return sorted(Path(directory).iterdir())


@pytest.mark.parametrize(
    ("name", "format_", "data", "expected"),
    [
        ("a.csv", "csv", b"x,y\n1,2\n3,4\n", b"x,y\n" + 3 * b"1,2\n3,4\n"),
        ("a.csv", "csv", b"x,y\r\n1,2\r\n3,4", b"x,y\r\n1,2\r\n3,4\n1,2\r\n3,4\n1,2\r\n3,4\n"),
        ("a.csv", "csv", b"x,y\n", b"x,y\n"),
        ("a.jsonl", "jsonl", b'{"x":1}', 3 * b'{"x":1}\n'),
        ("a.tfrecord", "tfrecord", b"\x01\x02", 3 * b"\x01\x02"),
        ("a.jsonl", "jsonl", b"", b""),
    ],
)
def test_rows_of_text_follow_each_other(name: str, format_: str, data: bytes, expected: bytes, tmp_path: Path) -> None:
    (found,) = grown(tmp_path, name, data, format_, 3)
    assert found.read_bytes() == expected and found.name.endswith(name)


@pytest.mark.parametrize(("name", "format_", "plain"), [("a.parquet", "parquet", True), ("a.csv.gz", "csv", False)])
def test_other_files_are_there_several_times(name: str, format_: str, plain: bool, tmp_path: Path) -> None:
    found = grown(tmp_path, name, b"whole", format_, 4, plain)
    assert len(found) == 4 and {path.read_bytes() for path in found} == {b"whole"}
    assert all(path.name.endswith(name) for path in found)


def test_a_sample_once_is_no_copy(tmp_path: Path) -> None:
    """It may be large, and a copy is made in memory."""
    (found,) = grown(tmp_path, "a.csv", b"x,y\n1,2\n", "csv", 1)
    assert found.is_symlink() and found.name.endswith("a.csv") and found.read_bytes() == b"x,y\n1,2\n"
