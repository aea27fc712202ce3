"""Where answers stand in result files."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from sluice.transforms.decode.ranges import FileRange
from sluice.transforms.managed.answer_lines import Found, answered_rows, find_stretches, lines_of
from sluice.transforms.managed.place import Stretch
from sluice.transforms.managed.prepare import create


def line(shard: str, row: int) -> str:
    return json.dumps({"key": f"{shard}:{row}", "prediction": {"y": row}}) + "\n"


def stretches(path: Path, range_bytes: int = 1 << 20) -> tuple[list[tuple[str, Found]], list[str]]:
    """Returns what is found in a file, in ranges, and the paths of copies."""
    copies: list[str] = []

    def new_path() -> str:
        copies.append(f"{path}.sorted{len(copies)}")
        return copies[-1]

    size, found = path.stat().st_size, []
    for start in range(0, size, range_bytes):
        part = FileRange(str(path), start, min(size, start + range_bytes))
        found += find_stretches(part, new_path, create)
    return found, copies


def keys(found: list[tuple[str, Found]]) -> list[tuple[str, int]]:
    """Returns the keys of all answers in the stretches that are of the stretch's shard."""
    return [line.key for shard, each in found for line in lines_of(each.stretch) if line.shard == shard]


def test_answers_in_order_are_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "results"
    path.write_text("".join(line(shard, row) for shard in "abc" for row in range(100)))
    found, copies = stretches(path)
    assert (copies, [shard for shard, _ in found]) == ([], ["a", "b", "c"])
    assert all(each.stretch.path == str(path) for _, each in found)
    assert keys(found) == [(shard, row) for shard in "abc" for row in range(100)]


@pytest.mark.parametrize("range_bytes", [1, 100, 5000, 1 << 20])
def test_scattered_answers_are_all_found_however_the_file_is_cut(tmp_path: Path, range_bytes: int) -> None:
    path, wanted = tmp_path / "results", [(shard, row) for shard in "abcde" for row in range(40)]
    lines = [line(*key) for key in wanted] + ["no answer\n", "\n"]
    random.Random(5).shuffle(lines)
    path.write_text("".join(lines).rstrip("\n"))
    found, copies = stretches(path, range_bytes)
    assert sorted(keys(found)) == wanted
    if range_bytes == 1 << 20:
        assert (len(copies), len(found)) == (1, 5), "one stretch for each shard, of one sorted copy"
    for shard in "abcde":
        assert answered_rows([each for name, each in found if name == shard], 40).all()


def test_rows_without_an_answer_show(tmp_path: Path) -> None:
    path = tmp_path / "results"
    path.write_text(line("a", 0) + line("a", 9) + "half a line")
    (_, found), = stretches(path)[0]  # fmt: skip
    assert np.flatnonzero(answered_rows([found], 12)).tolist() == [0, 9]
    assert np.flatnonzero(answered_rows([found], 5)).tolist() == [0], "a row that the shard does not have"
    assert not answered_rows([], 3).any()


def test_few_rows_of_a_large_shard_take_few_bytes(tmp_path: Path) -> None:
    """Where answers are scattered, every file has such rows of every shard."""
    path = tmp_path / "results"
    path.write_text("".join(line(f"shard{n}", 65_535) for n in range(100)))
    found, _ = stretches(path)
    assert len(found) == 100 and max(len(each.rows) for _, each in found) < 50
    assert np.flatnonzero(answered_rows([found[7][1]], 65_536)).tolist() == [65_535]


def test_a_stretch_is_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "results"
    path.write_text(line("a", 0) + line("b", 1) + line("b", 2) + line("c", 3))
    first, second = len(line("a", 0)), len(line("b", 1) + line("b", 2))
    found = list(lines_of(Stretch(str(path), first, first + second)))
    assert [each.key for each in found] == [("b", 1), ("b", 2)]
    assert b"".join(each.text for each in found).decode() == line("b", 1) + line("b", 2)
