"""Files that appear when the job succeeds: names, retries, failure policy."""

from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from sluice.models.errors import SluiceError, TooManyFailures, UsageError
from sluice.transforms.core.commit import Commit, FailurePolicy
from sluice.transforms.core.failures import Failure
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.files.commit import FilesCommitter, _rename, rename_shards
from sluice.transforms.files.write import Shard, Target, WriteFailureShards, WriteShards, check_writable, existing_files

SPEC = OutputSpec("csv", pa.schema([("a", pa.int64())]))
BATCH = pa.RecordBatch.from_pydict({"a": [1, 2, 3]})


def target(directory: Path, name: str = "out", suffix: str = ".csv") -> Target:
    return Target(f"{directory}/{name}", suffix, f"{directory}/.sluice-job-{name}")


def shards(place: Target, texts: list[str]) -> list[Shard]:
    Path(place.temp).mkdir(exist_ok=True)
    made = []
    for number, text in enumerate(texts):
        path = Path(place.temp) / f"{number}.csv"
        path.write_text(text)
        made.append(Shard(str(path), 1, len(text)))
    return made


def test_shards_are_named_as_beam_names_them(tmp_path: Path) -> None:
    names = rename_shards(target(tmp_path), shards(target(tmp_path), ["x", "y"]))
    assert names == [f"{tmp_path}/out-00000-of-00002.csv", f"{tmp_path}/out-00001-of-00002.csv"]
    assert [Path(name).read_text() for name in names] == ["x", "y"]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_a_commit_that_was_interrupted_is_done_again(done: int, old: bool, tmp_path: Path) -> None:
    place = target(tmp_path)
    for number in range(3 if old else 0):
        Path(place.shard(number, 3)).write_text("of an earlier run")
    made = shards(place, ["x", "y", "z"])
    for number in range(done):
        Path(made[number].path).rename(place.shard(number, 3))
    rename_shards(place, made)
    assert [Path(name).read_text() for name in existing_files(place)] == ["x", "y", "z"]


def test_a_shard_that_vanished_is_an_error(tmp_path: Path) -> None:
    place = target(tmp_path)
    made = shards(place, ["x"])
    Path(made[0].path).unlink()
    with pytest.raises(SluiceError, match="vanished"):
        rename_shards(place, made)
    Path(place.shard(0, 1)).write_text("of an earlier run")
    with pytest.raises(SluiceError, match="vanished"):
        rename_shards(place, made)


def test_many_files_are_renamed_in_their_order(tmp_path: Path) -> None:
    texts = [f"{number:03}" for number in range(300)]
    place = target(tmp_path)
    Path(place.temp).mkdir()
    made = [Shard(f"{place.temp}/{text}.csv", 1, 3) for text in texts]
    for shard, text in zip(made, texts, strict=True):
        Path(shard.path).write_text(text)
    assert [Path(name).read_text() for name in rename_shards(place, reversed(made))] == texts


def test_a_rename_that_fails_leaves_an_earlier_run_and_can_be_repeated(tmp_path: Path) -> None:
    place = target(tmp_path)
    made = shards(place, ["x", "y", "z"])
    earlier = Path(place.shard(0, 1))
    earlier.write_text("of an earlier run")
    obstacle = Path(place.shard(1, 3))
    obstacle.mkdir()
    with pytest.raises(SluiceError, match=f"1.csv could not be renamed to {obstacle}: .*Is a directory"):
        rename_shards(place, made)
    assert earlier.exists()
    obstacle.rmdir()
    rename_shards(place, made)
    assert [Path(name).read_text() for name in existing_files(place)] == ["x", "y", "z"]


@pytest.mark.parametrize("done", range(4))
def test_files_of_one_request_that_was_interrupted(done: int, tmp_path: Path) -> None:
    place = target(tmp_path)
    made = shards(place, ["x", "y", "z"])
    pairs = [(shard, place.shard(number, 3)) for number, shard in enumerate(made)]
    for shard, name in pairs[:done]:
        Path(shard.path).rename(name)
    _rename(pairs)
    assert [Path(name).read_text() for name in existing_files(place)] == ["x", "y", "z"]
    Path(pairs[1][1]).write_text("cut off")
    with pytest.raises(SluiceError, match=r"1.csv could not be renamed to .*: it has vanished"):
        _rename(pairs)


def test_rows_that_a_format_cannot_hold_fail_alone(tmp_path: Path) -> None:
    place = target(tmp_path, suffix=".tfrecord")
    spec = OutputSpec("tfrecord", pa.schema([("a", pa.list_(pa.int64()))]))
    batch = pa.RecordBatch.from_pydict({"a": [[1], [2, None], [3], [], [None]]})
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        written = pipeline | beam.Create([batch]) | WriteShards(place, spec)
        assert_that(written.shards | beam.Map(lambda shard: shard.rows), equal_to([3]), label="shards")
        failures = written.failures | "F" >> beam.Map(lambda failure: (failure.stage, failure.payload))
        assert_that(failures, equal_to([("encode", b'{"a":[2,null]}'), ("encode", b'{"a":[null]}')]), label="failures")


def test_only_shards_count_as_existing(tmp_path: Path) -> None:
    for name in ("out-00000-of-00001.csv", "out-1-of-2.csv", "out-a-of-b.csv", "out-00000-of-00001.csv.bak", "out.csv"):
        (tmp_path / name).write_text("")
    names = [Path(path).name for path in existing_files(target(tmp_path))]
    assert names == ["out-00000-of-00001.csv", "out-1-of-2.csv"]


@pytest.mark.parametrize(
    "rate,rows_in,predictions,failures,error",
    [
        (0.1, 0, 0, 0, None),
        (0.1, 10, 9, 1, None),
        (0.1, 10, 8, 2, TooManyFailures),
        (0.0, 10, 10, 0, None),
        (0.0, 10, 9, 1, TooManyFailures),
        (1.0, 10, 0, 10, None),
        (1.0, 10, 8, 1, SluiceError),
        (1.0, 10, 9, 2, SluiceError),
    ],
)
def test_judgement(rate: float, rows_in: int, predictions: int, failures: int, error: type | None) -> None:
    if error is None:
        FailurePolicy(rate).check(rows_in, predictions, failures)
        return
    with pytest.raises(error):
        FailurePolicy(rate).check(rows_in, predictions, failures)


def run(tmp_path: Path, rows_in: int, failures: int, rate: float, batches: int = 2) -> None:
    place, bad = target(tmp_path), target(tmp_path, "bad", ".jsonl")
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        written = pipeline | "Rows" >> beam.Create([BATCH] * batches) | "Write" >> WriteShards(place, SPEC)
        failed = pipeline | "Bad" >> beam.Create([Failure("decode", "X", "x", "o")] * failures)
        lost = failed | "WriteBad" >> WriteFailureShards(bad)
        tally = pipeline | "Tally" >> beam.Create([rows_in])
        (written.shards, lost, tally) | Commit(FilesCommitter(place, SPEC), [FilesCommitter(bad)], FailurePolicy(rate))


def test_commit_puts_predictions_and_failures_in_place_and_cleans_up(tmp_path: Path) -> None:
    run(tmp_path, rows_in=7, failures=1, rate=0.5)
    assert (tmp_path / "out-00000-of-00001.csv").read_text() == "a\n1\n2\n3\n1\n2\n3\n"
    assert len((tmp_path / "bad-00000-of-00001.jsonl").read_text().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad-00000-of-00001.jsonl", "out-00000-of-00001.csv"]


def test_too_many_failures_write_the_failures_only(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="more than --max_failure_rate"):
        run(tmp_path, rows_in=9, failures=3, rate=0.1)
    assert existing_files(target(tmp_path)) == []
    assert len(existing_files(target(tmp_path, "bad", ".jsonl"))) == 1


def test_rows_that_were_lost_fail_the_job(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="rows are missing or duplicated"):
        run(tmp_path, rows_in=8, failures=1, rate=1.0)
    assert existing_files(target(tmp_path)) == []


def test_no_rows_at_all_are_a_file_with_a_header(tmp_path: Path) -> None:
    run(tmp_path, rows_in=0, failures=0, rate=0.0, batches=0)
    assert (tmp_path / "out-00000-of-00001.csv").read_text() == "a\n"


def test_a_place_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    check_writable(target(tmp_path))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written to"):
        check_writable(Target(f"{tmp_path}/file/out", ".csv", f"{tmp_path}/file/.sluice-x"))
