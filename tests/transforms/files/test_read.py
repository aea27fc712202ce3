"""`ReadFiles` on Beam's in-process runner. Its functions have tests of their own."""

import gzip
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from sluice.models.reserved import is_reserved
from sluice.transforms.core import metrics
from sluice.transforms.core.batches import origin_of
from sluice.transforms.core.formats import CSV, JSONL
from sluice.transforms.decode.ranges import FileRange
from sluice.transforms.decode.spec import InputSpec
from sluice.transforms.files.read import MAX_BATCH_ROWS, ReadFiles, _Decode, _Split
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
        read = pipeline | "Read" >> ReadFiles(pattern, InputSpec(CSV, COLUMNS))
        expected = [("1.csv#byte", row, f"00{row}") for row in range(10_000)]
        expected += [("2.csv#byte", 1, "007"), ("7.csv.gz#byte", 3, "a"), ("7.csv.gz#byte", 4, "b")]
        assert_that(read.rows | beam.FlatMap(rows_of), equal_to(expected), label="rows")
        failures = read.failures | beam.Map(lambda f: (f.stage, f.error_type, Path(f.origin).name, f.payload))
        bad = [
            ("decode", "InvalidRow", "2.csv#byte=13", b"008,x"),
            ("decode", "InvalidRow", "2.csv#byte=19", b"009"),
            ("read", "CorruptFile", "5.csv#byte=3", b""),
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
    parts = [FileRange(path, start, start + 5000) for start in range(0, len(data), 5000)]
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        read = pipeline | beam.Create(parts) | beam.ParDo(_Decode(spec)).with_outputs("failures", "tally", main="rows")
        assert_that(read.rows | beam.FlatMap(lambda batch: batch.column("id").to_pylist()), equal_to(list(range(1000))))


def test_one_file_that_cannot_be_opened_costs_that_file(tmp_path: Path) -> None:
    (tmp_path / "1.parquet").mkdir()
    put(tmp_path, "2.csv", b"id,\xff\n1,2\n")
    good = put(tmp_path, "3.csv", b"id,zip\n1,2\n")
    found = list(_Split(InputSpec(CSV, COLUMNS)).process(str(tmp_path / "*")))
    assert [part.path for part in found if isinstance(part, FileRange)] == [good]
    assert [output.tag for output in found if not isinstance(output, FileRange)] == ["failures", "tally"]
