"""What the readers of a stream and its launcher tell each other by files."""

import dataclasses
from pathlib import Path

from sluice.transforms.pubsub.reader_files import ReaderFiles, Report


def test_readers_hear_of_a_drain_and_are_heard(tmp_path: Path) -> None:
    files = ReaderFiles(f"{tmp_path}/job")
    assert not files.is_asked()
    assert files.reports() == []
    one = Report("one", 1, pulled=5, acknowledged=3, in_work=2)
    files.tell(one)
    files.tell(dataclasses.replace(one, beat=2, acknowledged=5, in_work=0))
    files.tell(Report("two", 1, drained=True))
    assert files.reports() == [Report("one", 2, pulled=5, acknowledged=5), Report("two", 1, drained=True)]
    files.ask_to_drain()
    assert files.is_asked()
    files.clear()
    assert not files.is_asked()
    assert files.reports() == []


def test_half_a_report_is_none_and_a_place_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    files = ReaderFiles(str(tmp_path))
    (tmp_path / "reader-half.json").write_text('{"reader": "ha')
    (tmp_path / "reader-other.json").write_text('{"of": "another version"}')
    assert files.reports() == []
    nowhere = ReaderFiles("/proc/none/job")
    nowhere.tell(Report("one", 1))
    assert nowhere.reports() == []
    assert not nowhere.is_asked()
    nowhere.clear()
