"""The last step of files without a failure rate; pipelines of it are in tests/pipelines/library."""

from pathlib import Path

import pyarrow as pa
import pytest

from sluice.models.errors import SluiceError
from sluice.transforms.files.commit import FilesCommitter
from sluice.transforms.files.open_file import FirstBatchFormat
from sluice.transforms.files.publish import _Publish
from sluice.transforms.files.write import OpenShard, Shard, Target

BATCH = pa.RecordBatch.from_pydict({"x": [1], "_sluice_file": ["f"]})


def target_of(directory: Path) -> Target:
    return Target(f"{directory}/out", ".jsonl", f"{directory}/.sluice-job")


def shard_of(target: Target, *batches: pa.RecordBatch) -> Shard:
    shard = OpenShard(target, FirstBatchFormat("jsonl"))
    for batch in batches:
        shard.write(batch)
    return shard.finish()


def test_files_get_their_names_however_often_the_step_is_repeated(tmp_path: Path) -> None:
    target = target_of(tmp_path)
    shards = [shard_of(target, BATCH), shard_of(target, BATCH, BATCH)]
    fn = _Publish(FilesCommitter(target), target.prefix)
    names = list(fn.process(0, shards, ["x int64"]))
    assert list(fn.process(0, shards, ["x int64"])) == names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-00000-of-00002.jsonl", "out-00001-of-00002.jsonl"]
    assert sorted(Path(name).read_text() for name in names) == ['{"x":1}\n', '{"x":1}\n' * 2]


def test_files_of_different_columns_are_not_published(tmp_path: Path) -> None:
    target = target_of(tmp_path)
    with pytest.raises(SluiceError, match=r"out: batches have different columns: a int64; and x int64\."):
        fn = _Publish(FilesCommitter(target), target.prefix)
        list(fn.process(0, [shard_of(target, BATCH)], ["x int64", "a int64"]))
    assert not list(tmp_path.iterdir())


def test_batches_of_one_file_have_the_same_columns(tmp_path: Path) -> None:
    other = pa.RecordBatch.from_pydict({"x": [1.5]})
    with pytest.raises(TypeError, match="columns: x int64; and x double"):
        shard_of(target_of(tmp_path), BATCH, other)
