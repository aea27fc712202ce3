"""Rows become instances, and are kept beside them."""

import dataclasses
import json
from pathlib import Path

import pyarrow as pa
import pytest

from sluice.models.reserved import FED
from sluice.models.signature import TensorSpec
from sluice.transforms.core import metrics
from sluice.transforms.core.failures import FAILURES, Failure
from sluice.transforms.core.file_contents import FileInputs
from sluice.transforms.core.file_paths import PathRules
from sluice.transforms.managed.kept_failures import read_failures
from sluice.transforms.managed.place import Place, Prepared
from sluice.transforms.managed.prepare import Encoding, _WriteInstances
from sluice.transforms.managed.row_files import read_batches
from tests.support.fakes import X_TO_Y
from tests.support.managed import instances_of, prepare


def batch(values: list[int | None]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"x": pa.array(values, pa.int64()), "id": [f"r{value}" for value in values]})


def rows_of(place: Place, prepared: Prepared) -> dict[str, list[dict]]:
    kept = {}
    for shard in prepared.shards:
        with open(place.rows(shard.id), "rb") as file:
            kept[shard.id] = [row for each in read_batches(file) for row in each.to_pylist()]
    return kept


def test_every_row_is_an_instance_and_kept_or_a_failure(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "p"))
    batches = [batch([start, None, *range(start + 1, start + 50)]) for start in range(0, 500, 50)]
    unread = Failure("read", "EOFError", "it ends", "f.csv")
    metrics.reset_tally()
    prepared = prepare(place, batches, [unread], max_rows=120)
    assert (prepared.rows_in, prepared.rows, len(prepared.shards)) == (511, 500, 4)
    assert {key: metrics.tally()[key] for key in ("rows_prepared", "rows_failed")} == {
        "rows_prepared": 500,
        "rows_failed": 10,
    }
    kept, files = rows_of(place, prepared), sorted((tmp_path / "p" / "instances").iterdir())
    assert [path.name for path in files] == [f"part-{number:05d}-of-00004.jsonl" for number in range(4)]
    for shard, path in zip(prepared.shards, files, strict=True):
        instances = instances_of([path])
        assert [each["_sluice_key"] for each in instances] == [f"{shard.id}:{row}" for row in range(shard.rows)]
        assert [each["x"] for each in instances] == [row["x"] for row in kept[shard.id]]
        assert path.stat().st_size == shard.size
    assert sorted(row["x"] for rows in kept.values() for row in rows) == list(range(500))
    failures = []
    for path in prepared.failures:
        with open(path, "rb") as file:
            failures += read_failures(file)
    assert sorted((each.stage, each.model) for each in failures) == [*[("bind", "m")] * 10, ("read", "m")]
    assert json.loads((tmp_path / "p" / "prepared.json").read_text())["rows_in"] == 511


def test_nothing_to_prepare_is_a_record_of_nothing(tmp_path: Path) -> None:
    assert prepare(Place(str(tmp_path)), []) == Prepared(0, (), ())
    assert Prepared.read(Place(str(tmp_path / "elsewhere"))) is None


def test_what_only_the_model_is_fed_is_not_kept(tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    fed = pa.RecordBatch.from_pydict({"x": ["007"], FED + "x": pa.array([7], pa.int64())})
    prepared = prepare(place, [fed])
    assert rows_of(place, prepared) == {prepared.shards[0].id: [{"x": "007"}]}
    assert instances_of((tmp_path / "instances").iterdir())[0]["x"] == 7


def test_what_is_in_files_becomes_instances_and_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"\xff\xd8")
    rows = pa.RecordBatch.from_pydict({"path": [f"{tmp_path}/1.jpg", f"{tmp_path}/2.jpg"]})
    image = dataclasses.replace(X_TO_Y, inputs=(TensorSpec("image", "string", (None,)),))
    contents = FileInputs((("image", "path"),), PathRules(local=True), 100)
    place = Place(str(tmp_path / "p"))
    fn = _WriteInstances(place, Encoding("m", image, (), contents), 1000, 1 << 20)
    fn.start_bundle()
    (failed,) = fn.process(rows)
    assert (failed.tag, failed.value.stage, failed.value.error_type) == (FAILURES, "read", "FileNotFoundError")
    (shard,) = (each.value for each in fn.finish_bundle())
    assert shard.rows == 1
    (instance,) = instances_of((tmp_path / "p" / "instances").iterdir())
    assert instance["image"] == {"b64": "/9g="}
    with open(place.rows(shard.id), "rb") as file:
        assert [row for each in read_batches(file) for row in each.to_pylist()] == [{"path": f"{tmp_path}/1.jpg"}]


def test_large_batches_are_encoded_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.transforms.managed.prepare._MAX_BATCH_BYTES", 100)
    place = Place(str(tmp_path))
    prepared = prepare(place, [batch(list(range(100)))])
    (shard,) = prepared.shards
    with open(place.rows(shard.id), "rb") as file:
        sizes = [each.num_rows for each in read_batches(file)]
    assert (sum(sizes), max(sizes) < 10) == (100, True)
    assert [each["x"] for each in instances_of((tmp_path / "instances").iterdir())] == list(range(100))


def test_a_bundle_that_fails_leaves_no_files(tmp_path: Path) -> None:
    fn = _WriteInstances(Place(str(tmp_path)), Encoding("m", X_TO_Y), 1000, 1 << 20)
    fn.start_bundle()
    list(fn.process(batch([1, 2])))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] != []
    fn.start_bundle()  # the bundle before failed without finish_bundle
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []
    list(fn.process(batch([3])))
    fn.teardown()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []
