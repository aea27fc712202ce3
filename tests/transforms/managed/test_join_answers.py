"""Answers found, rows without one scored again, and all joined: over files in any order, in small shards."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sluice.models.signature import Signature, TensorSpec
from sluice.transforms.core import metrics
from sluice.transforms.core.failures import Failure
from sluice.transforms.managed import join_answers
from sluice.transforms.managed.join_answers import Decoding, join_batch
from sluice.transforms.managed.place import Place
from tests.support.fakes import X_TO_Y
from tests.support.managed import answer, find, instances_of, join, prepare

ROWS = 900
EARLIER = Failure("decode", "InvalidRow", "too short", "f.csv#byte=9", b"x")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place that is prepared; tests copy it."""
    directory = tmp_path_factory.mktemp("whole") / "p"
    rows = [pa.RecordBatch.from_pydict({"x": list(range(n, n + 90)), "id": [f"r{i}" for i in range(n, n + 90)]})
            for n in range(0, ROWS, 90)]  # fmt: skip
    prepare(Place(str(directory)), rows, [EARLIER], max_rows=170)
    return directory


@pytest.fixture
def place(whole: Path, tmp_path: Path) -> Place:
    """A place that is prepared, of this test alone."""
    copied = Place(str(tmp_path / "p"))
    shutil.copytree(whole, copied.directory)
    record = Path(copied.prepared)
    record.write_text(record.read_text().replace(str(whole), copied.directory))
    return copied


def instances(place: Place, name: str = "instances") -> list[dict[str, Any]]:
    return instances_of((Path(place.directory) / name).iterdir())


def row(n: int) -> dict[str, Any]:
    return {"x": n, "id": f"r{n}", "text": str(n), "y": 2 * n, "_model": "m", "_version": 7}


@pytest.mark.parametrize("seed", [None, 1])
def test_answers_in_any_order_are_joined_to_their_rows(place: Place, tmp_path: Path, seed: int | None) -> None:
    results = tmp_path / "results"
    answer(instances(place), results, files=4, seed=seed)
    answers = find(place, "1", results)
    assert (answers.answered, answers.missing) == (ROWS, 0)
    assert not (tmp_path / "p" / answers.again).exists()
    assert Path(place.answers("1")).stat().st_size < 500, "one record does not hold where all answers stand"
    assert (tmp_path / "p" / "sorted").exists() == (seed is not None)
    metrics.reset_tally()
    found = join(place, ("1",), tmp_path / "out")
    assert sorted(found.rows, key=lambda each: each["x"]) == [row(n) for n in range(ROWS)]
    assert found.failures == [] and found.tally == ROWS + 1
    assert [(each.stage, each.origin) for each in found.earlier] == [("decode", "f.csv#byte=9")]
    counts = metrics.tally()
    assert (counts["rows_read"], counts["rows_predicted"], counts["rows_failed"]) == (ROWS + 1, ROWS, 1)


def test_a_bad_row_and_a_lost_file_cost_only_what_the_second_job_does_not_answer(place: Place, tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"

    def is_bad(instance: dict[str, Any]) -> bool:
        return instance["x"] in (5, 333)

    answer(instances(place), first, files=5, is_bad=is_bad, lost=[2])
    answers = find(place, "1", first)
    again = instances(place, answers.again)
    assert answers.missing == len(again) > 128
    assert answers.answered == ROWS - len(again)
    answer(again, second, files=1, batch=1, is_bad=is_bad)
    assert find(place, "2", second, again=False).answered == len(again) - 2
    assert len(instances(place, answers.again)) == len(again), "the second look changes nothing"
    found = join(place, ("1", "2"), tmp_path / "out")
    assert sorted(found.rows, key=lambda each: each["x"]) == [row(n) for n in range(ROWS) if n not in (5, 333)]
    assert [(each.stage, each.error_type, each.error_message, each.model) for each in found.failures] == [
        ("predict", "Unanswered", "no answer", "m")
    ] * 2
    assert found.tally == len(found.rows) + len(found.failures) + len(found.earlier)


def test_no_results_at_all_are_all_rows_again(place: Place, tmp_path: Path) -> None:
    answers = find(place, "1", tmp_path / "nowhere")
    assert (answers.answered, answers.missing) == (0, ROWS)
    assert sorted(each["x"] for each in instances(place, answers.again)) == list(range(ROWS))


def test_two_commands_that_look_at_once_do_not_write_into_each_others_files(place: Place, tmp_path: Path) -> None:
    first = find(place, "1", tmp_path / "nowhere")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "p" / first.again).iterdir()}
    second = find(place, "1", tmp_path / "nowhere")
    assert second.again != first.again and len(instances(place, second.again)) == ROWS
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "p" / first.again).iterdir()} == before


def test_keys_of_others_and_answers_given_twice_change_nothing(place: Place, tmp_path: Path) -> None:
    results = tmp_path / "results"
    answer(instances(place), results, files=2)
    for path in list(results.glob("*results*")):
        (results / f"{path.name}.csv").write_text(path.read_text())
    with open(results / "prediction.results-9-of-9", "w", encoding="utf-8") as file:
        key = instances(place)[0]["_sluice_key"].split(":")[0]
        file.write('{"key": "another:1", "prediction": {}}\n' + f'{{"key": "{key}:99999", "prediction": {{}}}}\n')
    assert find(place, "1", results).answered == ROWS
    assert len(join(place, ("1",), tmp_path / "out").rows) == ROWS


@pytest.mark.parametrize("pattern", ["answers-1.json", "found-*/*.json"])
def test_records_that_were_deleted_are_not_taken_for_rows_without_an_answer(
    place: Place, tmp_path: Path, pattern: str
) -> None:
    """Another command that has joined the same answers deletes its files."""
    results = tmp_path / "results"
    answer(instances(place), results)
    find(place, "1", results)
    next(Path(place.directory).glob(pattern)).unlink()
    with pytest.raises(Exception, match="is gone: was it deleted, or has another command ended this job"):
        join(place, ("1",), tmp_path / "out")


def test_answers_that_do_not_fit_into_memory_wait_in_a_file(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join_answers, "_MAX_HELD_BYTES", 1000)
    monkeypatch.setattr(join_answers, "_MAX_JOINED_BYTES", 2000)
    results = tmp_path / "results"
    answer(instances(place), results, seed=3)
    find(place, "1", results)
    found = join(place, ("1",), tmp_path / "out")
    assert sorted(each["x"] for each in found.rows) == list(range(ROWS))


def test_without_a_job_there_are_failures_and_counts(place: Place, tmp_path: Path) -> None:
    metrics.reset_tally()
    found = join(place, (), tmp_path / "out")
    assert (found.rows, found.failures, len(found.earlier), found.tally) == ([], [], 1, ROWS + 1)
    assert metrics.tally()["rows_read"] == ROWS + 1


def decoding(*outputs: TensorSpec) -> Decoding:
    return Decoding("m", None, Signature("s", "p", X_TO_Y.inputs, outputs), "p_", "no answer")


def test_a_batch_is_joined_in_order_and_each_row_is_there_once() -> None:
    batch = pa.RecordBatch.from_pydict({"x": list(range(6))})
    predictions = [{"y": 0, "t": "a"}, None, {"y": 2}, {"y": 3, "t": {"b64": "/w=="}}, {"y": 4, "t": "e"}, {"y": "5"}]
    outputs = TensorSpec("y", "int64", (None,)), TensorSpec("t", "string", (None,))
    scored, failures = join_batch(batch, predictions, decoding(*outputs))
    assert scored is not None
    assert scored.to_pylist() == [
        {"x": 0, "p_y": 0, "p_t": "a", "_model": "m", "_version": None},
        {"x": 4, "p_y": 4, "p_t": "e", "_model": "m", "_version": None},
    ]
    assert [(each.error_type, json.loads(each.payload)["x"]) for each in failures] == [
        ("Unanswered", 1),
        ("BadOutput", 2),
        ("BadOutput", 3),
        ("BadOutput", 5),
    ]


def test_a_batch_without_answers_has_failures_only() -> None:
    batch = pa.RecordBatch.from_pydict({"x": [1, 2]})
    scored, failures = join_batch(batch, [None, None], decoding(TensorSpec("y", "int64", (None,))))
    assert scored is None and len(failures) == 2


def test_lists_of_different_sizes_stand_in_one_column() -> None:
    batch = pa.RecordBatch.from_pydict({"x": [1, 2, 3]})
    scored, _ = join_batch(batch, [[1.5], [1.0, 2.0], []], decoding(TensorSpec("v", "float32", (None, None))))
    assert scored is not None
    assert scored["p_v"].to_pylist() == [[1.5], [1.0, 2.0], []]
    assert scored["p_v"].type == pa.list_(pa.from_numpy_dtype(np.dtype("float32")))
