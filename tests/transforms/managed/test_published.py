"""Of all commands that join the answers of one job, one appends them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sluice.models.errors import SluiceError
from sluice.transforms.managed.place import Place, Prepared
from sluice.transforms.managed.published import AppendOnce, is_published

ROWS = ["r1", "r2"]


@dataclasses.dataclass(frozen=True)
class Table:
    """A committer that appends; it breaks after as many rows."""

    rows: list[Any]
    breaks: bool = False

    def claim(self, written: Sequence[Any]) -> None: ...

    def commit(self, written: Sequence[Any]) -> Sequence[str]:
        self.rows.extend(written)
        if self.breaks:
            raise OSError("the service is gone")
        return ()

    def clean_up(self) -> None: ...


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(str(tmp_path / "1"))
    Path(place.directory).mkdir()
    Prepared(2, (), ()).write(place)
    return place


def command(place: Place, name: str, table: Table) -> AppendOnce:
    return AppendOnce(table, str(Path(place.directory).parent), place, name)


def test_the_second_command_appends_nothing_while_the_first_one_does(place: Place) -> None:
    table = Table([])
    first, second = command(place, "a", table), command(place, "b", table)
    first.claim(ROWS)
    with pytest.raises(SluiceError, match="another command is publishing the answers of this job"):
        second.claim(ROWS)
    second.clean_up()
    with pytest.raises(SluiceError, match="is publishing"):
        second.claim(ROWS)
    first.commit(ROWS)
    assert table.rows == ROWS


def test_what_is_published_is_not_published_again(place: Place, tmp_path: Path) -> None:
    table = Table([])
    first = command(place, "a", table)
    first.claim(ROWS)
    assert not is_published(str(tmp_path))
    first.commit(ROWS)
    assert is_published(str(tmp_path))
    first.clean_up()
    second = command(place, "b", table)
    with pytest.raises(SluiceError, match="has published the answers of this job; they are not published again"):
        second.claim(ROWS)
    second.clean_up()
    first.claim(ROWS)  # a bundle that is retried


def test_a_command_that_is_late_finds_that_the_job_has_ended(place: Place) -> None:
    Path(place.prepared).unlink()
    with pytest.raises(SluiceError, match="another command has ended this job"):
        command(place, "b", Table([])).claim(ROWS)


def test_a_commit_that_broke_is_told_from_one_that_did_not_begin(place: Place, tmp_path: Path) -> None:
    refused, broken = command(place, "a", Table([])), command(place, "b", Table([], breaks=True))
    refused.claim(ROWS)
    refused.clean_up()
    broken.claim(ROWS)
    with pytest.raises(OSError):
        broken.commit(ROWS)
    assert not is_published(str(tmp_path))
    with pytest.raises(SluiceError, match="look whether the table has the rows") as error:
        command(place, "c", Table([])).claim(ROWS)
    (claim,) = tmp_path.glob(".sluice-*")
    assert str(claim) in str(error.value)
