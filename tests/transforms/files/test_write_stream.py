"""Files of a stream: complete under their names, one or more for each bundle, none of a failed bundle."""

import csv
import datetime
import gzip
import io
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from fastavro import reader

from sluice.models.errors import SluiceError, UsageError
from sluice.models.protos import message_class
from sluice.models.tensors.tfrecord import read_records
from sluice.transforms.core.beam_files import match_files, open_binary
from sluice.transforms.core.failures import Failure
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.files import write_stream
from sluice.transforms.files.open_file import BatchFormat, FailureFormat, write_rows, write_whole
from sluice.transforms.files.write_stream import (
    StreamTarget,
    WriteFailureFiles,
    WriteStreamFiles,
    _WriteStream,
    check_stream_target,
    rename_finished,
)
from tests.support.processes import Forked
from tests.support.servers import Gcs

SCHEMA = pa.schema([("a", pa.int64()), ("s", pa.string())])
NAME = re.compile(r"out-\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{8}\.")
FORMATS = {
    "csv": ".csv",
    "jsonl": ".jsonl",
    "parquet": ".parquet",
    "avro": ".avro",
    "tfrecord": ".tfrecord",
    "csv.gz": ".csv.gz",
}


def batch_of(*values: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"a": list(values), "s": [f"<{v}>" for v in values], "_sluice_x": values})


def writer(directory: str | Path, suffix: str = ".csv", **limits: int) -> _WriteStream:
    spec = OutputSpec(suffix.split(".")[1], SCHEMA)
    return _WriteStream(StreamTarget(f"{directory}/out", suffix, **limits), BatchFormat(spec), write_rows)


def run_bundle(fn: _WriteStream, *elements: object) -> list[Failure]:
    fn.start_bundle()
    failures = [failure for element in elements for failure in fn.process(element)]
    fn.finish_bundle()
    return failures


def names(directory: Path) -> list[str]:
    """Returns all files there, hidden or not."""
    return sorted(path.name for path in directory.iterdir())


def values(data: bytes, suffix: str) -> list[int]:
    """Returns the column "a" of a file, read by the format's own library."""
    if suffix.endswith(".gz"):
        data, suffix = gzip.decompress(data), suffix.removesuffix(".gz")
    if suffix == ".csv":
        return [int(row["a"]) for row in csv.DictReader(io.StringIO(data.decode()))]
    if suffix == ".jsonl":
        return [json.loads(line)["a"] for line in data.splitlines()]
    if suffix == ".parquet":
        return list(pq.read_table(io.BytesIO(data))["a"].to_pylist())
    if suffix == ".avro":
        return [row["a"] for row in reader(io.BytesIO(data))]
    return [_example_value(record) for _, record in read_records(io.BytesIO(data))]


def _example_value(record: bytes) -> int:
    return int(message_class("tensorflow.Example").FromString(record).features.feature["a"].int64_list.value[0])


@pytest.mark.parametrize("suffix", FORMATS.values(), ids=FORMATS)
def test_a_bundle_is_a_file(suffix: str, tmp_path: Path) -> None:
    assert run_bundle(writer(tmp_path, suffix), batch_of(1, 2), batch_of(3)) == []
    (name,) = names(tmp_path)
    assert NAME.match(name) and name.endswith(suffix)
    assert values((tmp_path / name).read_bytes(), suffix) == [1, 2, 3]


def test_files_sort_by_time(tmp_path: Path) -> None:
    fn = writer(tmp_path)
    for number in range(5):
        run_bundle(fn, batch_of(number))
    files = [tmp_path / name for name in names(tmp_path)]
    assert [values(file.read_bytes(), ".csv") for file in files] == [[0], [1], [2], [3], [4]]


def test_a_name_tells_when_the_file_was_begun() -> None:
    begun = datetime.datetime(2026, 1, 31, 23, 59, 58, 7, datetime.UTC)
    assert StreamTarget("gs://b/p", ".csv").name(begun, "89abcdef") == "gs://b/p-20260131T235958.000007Z-89abcdef.csv"


def test_a_bundle_without_rows_writes_no_file(tmp_path: Path) -> None:
    run_bundle(writer(tmp_path))
    assert names(tmp_path) == []


@pytest.mark.parametrize("suffix", FORMATS.values(), ids=FORMATS)
def test_a_file_that_is_full_is_followed_by_another(suffix: str, tmp_path: Path) -> None:
    run_bundle(writer(tmp_path, suffix, max_rows=3), *(batch_of(n, n) for n in range(5)))
    found = [values((tmp_path / name).read_bytes(), suffix) for name in names(tmp_path)]
    assert found == [[0, 0, 1, 1], [2, 2, 3, 3], [4, 4]]


def test_bytes_make_a_file_full_too(tmp_path: Path) -> None:
    run_bundle(writer(tmp_path, max_bytes=40), *(batch_of(n) for n in range(20)))
    files = [(tmp_path / name).read_bytes() for name in names(tmp_path)]
    assert [value for data in files for value in values(data, ".csv")] == list(range(20))
    assert all(40 <= len(data) < 50 for data in files[:-1]) and len(files) > 3


@pytest.mark.parametrize("limits", [{}, {"max_rows": 1}])
def test_nothing_is_seen_before_the_bundle_is_finished(limits: dict[str, int], tmp_path: Path) -> None:
    fn = writer(tmp_path, **limits)
    fn.start_bundle()
    for number in range(3):
        list(fn.process(batch_of(number)))
        assert match_files(f"{tmp_path}/*") == []
        assert not list(tmp_path.glob("*.csv"))
    fn.finish_bundle()
    assert len(match_files(f"{tmp_path}/*.csv")) == (3 if limits else 1)


@pytest.mark.parametrize("limits", [{}, {"max_rows": 1}])
@pytest.mark.parametrize("end", ["start_bundle", "teardown"])
def test_a_bundle_that_fails_leaves_nothing(end: str, limits: dict[str, int], tmp_path: Path) -> None:
    fn = writer(tmp_path, **limits)
    fn.start_bundle()
    list(fn.process(batch_of(1)))
    list(fn.process(batch_of(2)))
    assert len(names(tmp_path)) == (2 if limits else 1)
    getattr(fn, end)()
    assert names(tmp_path) == []
    run_bundle(fn, batch_of(3))
    (name,) = names(tmp_path)
    assert values((tmp_path / name).read_bytes(), ".csv") == [3]


def test_rows_that_the_format_cannot_hold_fail_alone(tmp_path: Path) -> None:
    spec = OutputSpec("tfrecord", pa.schema([("a", pa.list_(pa.int64()))]))
    fn = _WriteStream(StreamTarget(f"{tmp_path}/out", ".tfrecord"), BatchFormat(spec), write_rows)
    failures = run_bundle(fn, pa.RecordBatch.from_pydict({"a": [[1], [2, None], [3], [None]]}))
    assert [(each.stage, each.payload) for each in failures] == [
        ("encode", b'{"a":[2,null]}'),
        ("encode", b'{"a":[null]}'),
    ]
    (name,) = names(tmp_path)
    assert len(list(read_records(io.BytesIO((tmp_path / name).read_bytes())))) == 2
    os.remove(tmp_path / name)
    assert len(run_bundle(fn, pa.RecordBatch.from_pydict({"a": [[None]]}))) == 1
    assert names(tmp_path) == [], "a file of no rows is not worth its name"


def test_a_file_that_cannot_be_put_in_place_fails_the_bundle(tmp_path: Path) -> None:
    fn = writer(tmp_path)
    fn.start_bundle()
    list(fn.process(batch_of(1)))
    (hidden,) = tmp_path.iterdir()
    hidden.unlink()
    with pytest.raises(SluiceError, match="could not be renamed"):
        fn.finish_bundle()


def _no_links(*_: str) -> None:
    raise PermissionError("Operation not permitted")


@pytest.mark.parametrize("has_links", [True, False])
def test_another_file_is_never_replaced(has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_links:  # as on some file systems, and most mounted ones
        monkeypatch.setattr(os, "link", _no_links)
    (tmp_path / "old").write_text("old")
    (tmp_path / "new").write_text("new")
    with pytest.raises(SluiceError, match="exists"):
        rename_finished(f"{tmp_path}/new", f"{tmp_path}/old")
    assert (tmp_path / "old").read_text() == "old"
    rename_finished(f"{tmp_path}/new", f"{tmp_path}/newer")
    assert names(tmp_path) == ["newer", "old"]


def test_a_file_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = OutputSpec("csv", SCHEMA)
    run_bundle(_WriteStream(StreamTarget("out", ".csv"), BatchFormat(spec), write_rows), batch_of(1))
    assert [NAME.match(name) is not None for name in names(tmp_path)] == [True]


def test_in_a_graph(tmp_path: Path) -> None:
    bad = batch_of(1).set_column(0, "a", pa.array(["x"]))
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        batches = pipeline | beam.Create([batch_of(1, 2), bad, batch_of(3)], reshuffle=False)
        failures = batches | "Write" >> WriteStreamFiles(f"{tmp_path}/out", ".csv", OutputSpec("csv", SCHEMA))
        failures | "Failures" >> WriteFailureFiles(f"{tmp_path}/bad", "none")
        assert_that(failures | beam.Map(lambda failure: failure.stage), equal_to(["encode"]))
    files = [(tmp_path / name).read_bytes() for name in names(tmp_path) if name.startswith("out-")]
    assert sorted(value for data in files for value in values(data, ".csv")) == [1, 2, 3]
    (failed,) = [json.loads((tmp_path / name).read_text()) for name in names(tmp_path) if name.startswith("bad-")]
    assert (failed["stage"], failed["payload"]) == ("encode", None)


def test_failures_are_json_lines(tmp_path: Path) -> None:
    fn = _WriteStream(StreamTarget(f"{tmp_path}/bad", ".jsonl.gz", max_rows=2), FailureFormat("full"), write_whole)
    assert run_bundle(fn, *(Failure("decode", "X", "x", f"o{n}", b"p") for n in range(3))) == []
    lines = [
        json.loads(line)
        for name in names(tmp_path)
        for line in gzip.decompress((tmp_path / name).read_bytes()).splitlines()
    ]
    assert [(line["origin"], line["payload_text"]) for line in lines] == [("o0", "p"), ("o1", "p"), ("o2", "p")]


def write_and_die_before_the_rename(prefix: str) -> None:
    write_stream.rename_finished = lambda path, name: os.kill(os.getpid(), signal.SIGKILL)
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        written = WriteStreamFiles(prefix, ".csv", OutputSpec("csv", SCHEMA))
        pipeline | beam.Create([batch_of(1, 2)], reshuffle=False) | written


@pytest.mark.job
def test_a_process_killed_between_write_and_rename_leaves_nothing_that_looks_like_output(tmp_path: Path) -> None:
    assert Forked(write_and_die_before_the_rename, f"{tmp_path}/out").wait() == -signal.SIGKILL
    (left,) = names(tmp_path)
    assert left.startswith(".sluice-") and left.endswith(".tmp")
    assert match_files(f"{tmp_path}/**") == []
    assert list(tmp_path.glob("*.csv")) == []


def test_where_files_cannot_be_written_is_said_at_launch(tmp_path: Path) -> None:
    check_stream_target(f"{tmp_path}/new/out", ".csv")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written to"):
        check_stream_target(f"{tmp_path}/file/out", ".csv")
    with pytest.raises(UsageError, match="cannot hold any of"):
        check_stream_target(f"{tmp_path}/out*", ".csv")


@pytest.fixture
def bucket(gcs: Gcs, request: pytest.FixtureRequest) -> Iterator[str]:
    yield gcs.path(re.sub(r"\W", "-", request.node.name))


def objects(directory: str) -> list[str]:
    return [file.path for file in FileSystems.match([f"{directory}/**"])[0].metadata_list]


@pytest.mark.parametrize("suffix", FORMATS.values(), ids=FORMATS)
def test_a_bundle_is_an_object(suffix: str, bucket: str) -> None:
    check_stream_target(f"{bucket}/out", suffix)
    run_bundle(writer(bucket, suffix, max_rows=2), batch_of(1, 2), batch_of(3))
    found = objects(bucket)
    assert len(found) == 2 and all(NAME.match(path.removeprefix(f"{bucket}/")) for path in found)
    data = []
    for path in sorted(found):
        with open_binary(path) as file:
            data += values(file.read(), suffix)
    assert data == [1, 2, 3]


def test_a_bundle_that_fails_leaves_no_object(bucket: str) -> None:
    fn = writer(bucket, max_rows=1)
    fn.start_bundle()
    list(fn.process(batch_of(1)))
    list(fn.process(batch_of(2)))
    assert match_files(f"{bucket}/*") == []
    fn.start_bundle()
    assert objects(bucket) == []


def test_a_copy_whose_original_could_not_be_deleted_is_in_place(bucket: str) -> None:
    with FileSystems.create(f"{bucket}/done", compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(b"done")
    rename_finished(f"{bucket}/.sluice-gone.tmp", f"{bucket}/done")
    with pytest.raises(SluiceError, match="could not be renamed"):
        rename_finished(f"{bucket}/.sluice-gone.tmp", f"{bucket}/not-done")
