"""Of all commands that join the answers of one job, one appends them, whichever of them are killed."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from sluice.models.errors import SluiceError
from sluice.transforms.files.write import Target
from sluice.transforms.managed import published
from sluice.transforms.managed.place import Place, Prepared
from sluice.transforms.managed.published import AppendOnce


@dataclasses.dataclass(frozen=True)
class Table:
    """A committer that makes parts visible, each once, as BigQuery does with streams.

    Attributes:
      breaks: it fails when it has made the first part visible.
      gone: parts that cannot be made visible any more.
    """

    rows: list[str]
    breaks: bool = False
    gone: tuple[str, ...] = ()
    cleaned: list[str] = dataclasses.field(default_factory=list)

    def claim(self, written: Sequence[Any]) -> None: ...

    def commit(self, written: Sequence[Any]) -> Sequence[str]:
        for part in written:
            if part in self.gone and part not in self.rows:
                raise SluiceError(f"there is no stream {part}")
            if part not in self.rows:
                self.rows.append(part)
            if self.breaks:
                raise OSError("the machine is gone")
        return ()

    def clean_up(self) -> None:
        self.cleaned.append("temporary")

    def note(self, written: Sequence[Any]) -> dict[str, Any]:
        return {"parts": list(written)}

    def noted(self, note: dict[str, Any]) -> tuple[Self, Sequence[Any]]:
        return self, note["parts"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(str(tmp_path / "1"))
    Path(place.directory).mkdir()
    Prepared(2, (), ()).write(place)
    return place


def command(place: Place, name: str, table: Table, before: tuple[str, ...] = ()) -> AppendOnce:
    return AppendOnce(table, str(Path(place.directory).parent), "predictions", place, name, before)


def publish(once: AppendOnce, *parts: str) -> None:
    once.claim(parts)
    once.commit(parts)


def test_what_is_published_is_not_published_again(place: Place) -> None:
    table = Table([])
    publish(command(place, "a", table), "a1", "a2")
    publish(command(place, "a", table), "a1", "a2")  # a bundle that is retried
    publish(command(place, "b", table), "b1", "b2")
    assert table.rows == ["a1", "a2"]
    assert command(place, "c", table).finish() == ("a1", "a2")


def test_a_command_that_was_killed_while_it_published_is_brought_to_its_end(place: Place) -> None:
    rows: list[str] = []
    with pytest.raises(OSError):
        publish(command(place, "a", Table(rows, breaks=True)), "a1", "a2")
    assert rows == ["a1"]
    table = Table(rows)
    publish(command(place, "b", table), "b1", "b2")
    assert rows == ["a1", "a2"], "the rows of the first command, all of them, and no others"
    assert table.cleaned == ["temporary"], "what the first command has left"


def test_a_command_that_begins_finishes_what_another_one_has_begun(place: Place) -> None:
    rows: list[str] = []
    assert command(place, "b", Table(rows)).finish() is None
    with pytest.raises(OSError):
        publish(command(place, "a", Table(rows, breaks=True)), "a1", "a2")
    assert command(place, "b", Table(rows)).finish() == ("a1", "a2")
    assert rows == ["a1", "a2"]


def test_a_command_that_was_killed_before_it_claimed_is_as_if_it_had_not_been(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(target: Target) -> str:
        raise KeyboardInterrupt

    rows: list[str] = []
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(published, "first_claim", killed)
        publish(command(place, "a", Table(rows)), "a1")
    assert command(place, "b", Table(rows)).finish() is None
    publish(command(place, "b", Table(rows)), "b1")
    assert rows == ["b1"]


def test_rows_that_can_neither_be_published_nor_found_are_for_the_user_to_judge(place: Place, tmp_path: Path) -> None:
    with pytest.raises(OSError):
        publish(command(place, "a", Table([], breaks=True)), "a1", "a2")
    table = Table([], gone=("a1", "a2"))  # the streams have expired
    with pytest.raises(
        SluiceError, match=r"there is no stream a1\. Look whether the table has them: if it has"
    ) as error:
        command(place, "b", table).finish()
    (claim,) = tmp_path.glob(".sluice-*")
    assert str(claim) in str(error.value) and table.rows == []
    claim.unlink()
    publish(command(place, "b", table), "b1")
    assert table.rows == ["b1"]


def test_a_command_that_is_late_finds_that_the_job_has_ended(place: Place, tmp_path: Path) -> None:
    late, table = command(place, "b", Table([])), Table([])
    late.claim(["b1"])
    Path(place.prepared).unlink()
    for _ in range(2):
        with pytest.raises(SluiceError, match="another command has ended this job"):
            late.commit(["b1"])
    with pytest.raises(SluiceError, match="another command has ended this job"):
        command(place, "c", table).claim(["c1"])
    assert list(tmp_path.glob(".sluice-*")) == [], "it holds no claim"


def test_a_record_of_an_earlier_job_publishes_nothing_of_a_later_one(place: Place, tmp_path: Path) -> None:
    """A command that was late has written it when the files of its job were deleted."""
    (tmp_path / "predictions-done.json").write_text("a")
    table = Table([])
    publish(command(place, "b", table), "b1")
    assert table.rows == ["b1"]


def test_parts_that_were_published_before_are_left_out(place: Place) -> None:
    table = Table(["u1"])
    publish(command(place, "a", table, before=("u1",)), "u1", "a1")
    assert command(place, "b", table).finish() == ("a1",)
