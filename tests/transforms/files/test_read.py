"""`ReadPatterns` on Beam's in-process runner. Its functions have tests of their own."""

import gzip
import itertools
import threading
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from sluice.models.errors import InputChanged
from sluice.models.reserved import is_reserved
from sluice.transforms.core import metrics
from sluice.transforms.core.batches import origin_of
from sluice.transforms.core.formats import CSV, FILES, JSONL, PATH
from sluice.transforms.decode.ranges import FileRange
from sluice.transforms.decode.spec import InputSpec
from sluice.transforms.files.read import MAX_BATCH_ROWS, ReadPatterns, _Decode, _Split, in_file_groups
from tests.support.formats.decode_cases import put

COLUMNS = (("id", pa.int64()), ("zip", pa.string()))


def rows_of(batch: pa.RecordBatch) -> list[tuple[Any, ...]]:
    assert 0 < batch.num_rows <= MAX_BATCH_ROWS
    names = [name for name in batch.schema.names if not is_reserved(name)]
    values = zip(*(batch.column(name).to_pylist() for name in names), strict=True)
    return [(origin_of(batch, row).rsplit("/", 1)[1].split("=")[0], *found) for row, found in enumerate(values)]


def test_files_of_all_sorts_become_rows_failures_and_a_tally(tmp_path: Path) -> None:
    put(tmp_path, "1.csv", b"id,zip\n" + b"".join(b"%d,00%d\n" % (row, row) for row in range(10_000)))
    put(tmp_path, "2.csv", b"zip,id\n007,1\n008,x\n009\n")
    put(tmp_path, "3.csv", b"")
    put(tmp_path, "4.csv", b"id,zip\n")
    put(tmp_path, "5.csv", b"id\n1\n")
    put(tmp_path, "6.csv", b"id,id\n1,2\n")
    put(tmp_path, "7.csv.gz", gzip.compress(b"id,zip\n3,a\n4,b\n")[:-4])
    pattern = str(tmp_path / "*.csv*")
    metrics.reset_tally()
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        read = pipeline | "Read" >> ReadPatterns(pattern, InputSpec(CSV, COLUMNS))
        expected = [("1.csv#byte", row, f"00{row}") for row in range(10_000)]
        expected += [("2.csv#byte", 1, "007"), ("7.csv.gz#byte", 3, "a"), ("7.csv.gz#byte", 4, "b")]
        assert_that(read.rows | beam.FlatMap(rows_of), equal_to(expected), label="rows")
        failures = read.failures | beam.Map(lambda f: (f.stage, f.error_type, Path(f.origin).name, f.payload))
        bad = [
            ("decode", "InvalidRow", "2.csv#byte=13", b"008,x"),
            ("decode", "InvalidRow", "2.csv#byte=19", b"009"),
            ("read", "CorruptFile", "5.csv", b""),
            ("read", "CorruptFile", "6.csv", b""),
            ("read", "EOFError", "7.csv.gz#byte=15", b""),
        ]
        assert_that(failures, equal_to(bad), label="failures")
        assert_that(read.tally | beam.CombineGlobally(sum), equal_to([10_008]), label="tally")
    tally = metrics.tally()
    assert (tally["rows_read"], tally["rows_failed"]) == (10_008, 5)
    assert (tally["rows_failed/decode/InvalidRow"], tally["rows_failed/read/CorruptFile"]) == (2, 2)
    assert tally["bytes_read"] > 100_000


def test_ranges_are_read_wherever_they_are_sent(tmp_path: Path) -> None:
    data = b"".join(b'{"id": %d}\n' % row for row in range(1000))
    path = put(tmp_path, "f.jsonl", data)
    spec = InputSpec(JSONL, (("id", pa.int64()),))
    parts = [(FileRange(path, start, start + 5000),) for start in range(0, len(data), 5000)]
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        read = pipeline | beam.Create(parts) | beam.ParDo(_Decode(spec)).with_outputs("failures", "tally", main="rows")
        assert_that(read.rows | beam.FlatMap(lambda batch: batch.column("id").to_pylist()), equal_to(list(range(1000))))


def test_one_file_that_cannot_be_opened_costs_that_file(tmp_path: Path) -> None:
    (tmp_path / "1.csv").mkdir()
    put(tmp_path, "2.csv", b"id,\xff\n1,2\n")
    put(tmp_path, "3.csv", b"id,zip\n1,2\n")
    parts = [FileRange(str(tmp_path / name), 0, 10) for name in ("1.csv", "2.csv", "3.csv")]
    found = list(_Decode(InputSpec(CSV, COLUMNS)).process(tuple(parts)))
    assert [batch.column("id").to_pylist() for batch in found if isinstance(batch, pa.RecordBatch)] == [[1]]
    outputs = [output for output in found if not isinstance(output, pa.RecordBatch)]
    assert [output.tag for output in outputs] == ["failures", "failures", "tally"]
    assert outputs[-1].value == 3


def test_files_are_cut_without_being_opened_and_opened_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand files would otherwise be opened on one thread, all of them before the first row."""
    for number in range(40):
        put(tmp_path, f"{number:02}.csv", b"id,zip\n%d,x\n" % number)
    put(tmp_path, "large.csv", b"id,zip\n" + b"1,2\n" * (5 << 20))
    open_file, opening, side_by_side = FileSystems.open, itertools.count(1), threading.Event()
    monkeypatch.setattr(FileSystems, "open", lambda *_, **__: pytest.fail("a file is opened"))
    groups = list(_Split(InputSpec(CSV, COLUMNS)).process((str(tmp_path / "*.csv"),)))
    assert [len(group) for group in groups] == [1] * 42, "few files are spread over all workers"
    groups = list(in_file_groups((part for group in groups for part in group), 32))
    assert [len(group) for group in groups] == [32, 8, 1, 1]

    def wait_for_another(path: str, *arguments: Any, **options: Any) -> Any:
        if next(opening) > 1:
            side_by_side.set()
        assert side_by_side.wait(60), "files are opened one after another"
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(FileSystems, "open", wait_for_another)
    found = list(_Decode(InputSpec(CSV, COLUMNS)).process(groups[0]))
    ids = [number for batch in found if isinstance(batch, pa.RecordBatch) for number in batch.column("id").to_pylist()]
    assert ids == list(range(32))


def listed(directory: Path, limit: int = 0) -> tuple[list[list[str]], int]:
    """The paths in the batches of a folder whose files are rows, and how many rows were counted."""
    spec = InputSpec(FILES, ((PATH, pa.string()),))
    decode = _Decode(spec, limit)
    found = [each for group in _Split(spec, limit).process((f"{directory}/*",)) for each in decode.process(group)]
    batches = [each for each in found if isinstance(each, pa.RecordBatch)]
    tally = sum(each.value for each in found if not isinstance(each, pa.RecordBatch) and each.tag == "tally")
    return [[Path(path).name for path in each[PATH].to_pylist()] for each in batches], tally


def test_files_are_rows_in_the_order_of_their_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number:03}.jpg" for number in range(100)]
    for name in reversed(names):
        put(tmp_path, name, b"x" * (int(name[:3]) % 3))
    monkeypatch.setattr(FileSystems, "open", lambda *_, **__: pytest.fail("a file is opened"))
    batches, tally = listed(tmp_path)
    assert [name for batch in batches for name in batch] == names
    assert tally == 100
    assert max(map(len, batches)) == 7, "workers have files each, and read some of them side by side"
    assert listed(tmp_path, limit=30) == ([names[:30]], 30)


def test_a_file_that_is_a_row_may_change_or_vanish_after_it_was_listed(tmp_path: Path) -> None:
    put(tmp_path, "1.jpg", b"x")
    spec = InputSpec(FILES, ((PATH, pa.string()),))
    (group,) = _Split(spec).process((f"{tmp_path}/*",))
    (tmp_path / "1.jpg").unlink()
    assert [each.num_rows for each in _Decode(spec).process(group) if isinstance(each, pa.RecordBatch)] == [1]


def test_ranges_are_as_small_as_they_are_asked_to_be(tmp_path: Path) -> None:
    """A range of 16 MB may name 200,000 files."""
    path = put(tmp_path, "f.csv", b"id,zip\n" + b"1,2\n" * 1000)
    spec = InputSpec(CSV, COLUMNS)
    assert [len(list(_Split(spec, 0, size).process((path,)))) for size in (16 << 20, 1000)] == [1, 5]


def test_rows_that_are_appended_after_a_file_was_cut_fail_the_job(tmp_path: Path) -> None:
    path = put(tmp_path, "f.csv", b"id,zip\n1,a\n")
    spec = InputSpec(CSV, COLUMNS)
    (group,) = _Split(spec).process((path,))
    assert sum(batch.num_rows for batch in _Decode(spec).process(group) if isinstance(batch, pa.RecordBatch)) == 1
    with open(path, "ab") as file:
        file.write(b"2,b\n")
    with pytest.raises(InputChanged, match="it had 11 bytes, and has 15 now"):
        list(_Decode(spec).process(group))
