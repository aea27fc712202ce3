"""The records of a managed job."""

from pathlib import Path

import pytest

from sluice.models.errors import SluiceError
from sluice.transforms.managed.place import (
    Answers,
    InstanceShard,
    Place,
    Prepared,
    Stretch,
    read_stretches,
    write_stretches,
)


def test_records_come_back_and_are_there_whole_or_not_at_all(tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    prepared = Prepared(7, (InstanceShard("a", 3, 40), InstanceShard("b", 2, 30)), ("f1", "f2"))
    answers = Answers(4, 1, "found-1")
    assert (Prepared.read(place), Answers.read(place, "12")) == (None, None)
    (tmp_path / "prepared.json.partial").write_text("half a rec")
    assert Prepared.read(place) is None
    prepared.write(place)
    answers.write(place, "12")
    assert (Prepared.read(place), Answers.read(place, "12"), Answers.read(place, "13")) == (prepared, answers, None)
    assert prepared.rows == 5
    (tmp_path / "prepared.json.partial").unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers-12.json", "prepared.json"]


def test_where_the_answers_to_a_shard_stand_comes_back(tmp_path: Path) -> None:
    path = Place(str(tmp_path)).found("found-1", "a")
    stretches = (Stretch("results-0", 0, 9), Stretch("results-1", 5, 9))
    with pytest.raises(SluiceError, match=r"found-1/a\.json is gone"):
        read_stretches(path)
    for written in (stretches, ()):
        write_stretches(path, written)
        assert read_stretches(path) == written
