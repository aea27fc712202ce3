"""Two jobs with one --output: whichever ends first, exactly one puts its files in place, and the other says why not."""

import concurrent.futures
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from sluice.models.errors import SluiceError
from sluice.transforms.core.beam_files import match_files, open_binary
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.files.claim import claim, claim_path, read_claim, release
from sluice.transforms.files.commit import FilesCommitter, rename_shards
from sluice.transforms.files.write import Shard, Target
from tests.support.gcs_proxy import strict_emulator
from tests.support.servers import Gcs
from tests.support.sizes import size

SPEC = OutputSpec("csv", pa.schema([("a", pa.int64())]))
# As many files as two jobs would mix if they could.
FILES = 5


def target(directory: str, job: str) -> Target:
    return Target(f"{directory}/out", ".csv", f"{directory}/.sluice-{job}")


def shards(place: Target, text: str, count: int = FILES) -> list[Shard]:
    made = []
    for number in range(count):
        path = f"{place.temp}/{number}.csv"
        with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.write(text.encode())
        made.append(Shard(path, 1, len(text)))
    return made


def publish(committer: FilesCommitter, made: list[Shard]) -> None:
    """As the last step of a job does."""
    try:
        committer.claim(made)
        committer.commit(made)
    finally:
        committer.clean_up()


def contents(directory: str) -> dict[str, str]:
    found = {}
    for file in match_files(f"{directory}/*"):
        with open_binary(file.path) as stored:
            found[file.path.rpartition("/")[2]] = stored.read().decode()
    return found


def whole(text: str, count: int = FILES) -> dict[str, str]:
    return {f"out-{number:05}-of-{count:05}.csv": text for number in range(count)}


def run_pair(directory: str) -> None:
    """Lets two jobs publish at once, and checks that one of them did and the other left it alone."""
    jobs = {"first": FILES, "second": FILES + 1}
    made = {job: shards(target(directory, job), job, count) for job, count in jobs.items()}
    begin = threading.Barrier(2)

    def run(job: str) -> str:
        begin.wait()
        try:
            publish(FilesCommitter(target(directory, job), SPEC), made[job])
        except SluiceError as error:
            return str(error)
        return ""

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        errors = dict(zip(jobs, threads.map(run, jobs), strict=True))
    (winner,) = [job for job in jobs if not errors[job]]
    (reason,) = filter(None, errors.values())
    assert "--overwrite" in reason
    assert contents(directory) == whole(winner, jobs[winner])
    assert read_claim(target(directory, "any")) == ""


def test_of_two_jobs_at_once_one_publishes(tmp_path: Path) -> None:
    for number in range(size(20, soak=200)):
        run_pair(f"{tmp_path}/{number}")


@pytest.fixture
def strict_gcs(gcs: Gcs) -> Iterator[Gcs]:
    """The emulator, with conditions on generations."""
    with strict_emulator(gcs) as strict:
        yield strict


def test_of_two_jobs_at_once_one_publishes_on_gcs(strict_gcs: Gcs) -> None:
    for _ in range(size(2, soak=20)):
        run_pair(strict_gcs.path(uuid.uuid4().hex))


@pytest.mark.parametrize("place", ["disk", pytest.param("gcs", marks=pytest.mark.slow)])
def test_a_claim_of_a_dead_job_is_taken_over_by_one_job(place: str, request: pytest.FixtureRequest) -> None:
    if place == "gcs":
        directory = request.getfixturevalue("strict_gcs").path(uuid.uuid4().hex)
    else:
        directory = str(request.getfixturevalue("tmp_path"))
    claim(target(directory, "dead"))
    claim(target(directory, "dead"))  # again, as after an interruption
    with pytest.raises(SluiceError, match=r"the job dead .*--overwrite"):
        claim(target(directory, "next"))
    claim(target(directory, "next"), stale="dead")
    with pytest.raises(SluiceError, match=r"the job next "):
        claim(target(directory, "third"), stale="dead")
    release(target(directory, "third"))
    assert read_claim(target(directory, "third")) == "next"
    release(target(directory, "next"))
    assert read_claim(target(directory, "third")) == ""
    release(target(directory, "next"))


@pytest.mark.parametrize("counts", [(FILES, FILES), (FILES, FILES + 1), (FILES, 1), (1, FILES), (0, FILES), (FILES, 0)])
def test_finished_output_is_kept(counts: tuple[int, int], tmp_path: Path) -> None:
    first, second = (
        shards(target(str(tmp_path), job), job, n) for job, n in zip(("first", "second"), counts, strict=True)
    )
    publish(FilesCommitter(target(str(tmp_path), "first"), SPEC), first)
    with pytest.raises(SluiceError, match=r"was written by another job .*--overwrite"):
        publish(FilesCommitter(target(str(tmp_path), "second"), SPEC), second)
    assert contents(str(tmp_path)) == (whole("first", counts[0]) if counts[0] else whole("a\n", 1))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(contents(str(tmp_path)))


def test_overwrite_replaces_it(tmp_path: Path) -> None:
    publish(FilesCommitter(target(str(tmp_path), "first"), SPEC), shards(target(str(tmp_path), "first"), "first"))
    second = FilesCommitter(target(str(tmp_path), "second"), SPEC, overwrite=True)
    publish(second, shards(target(str(tmp_path), "second"), "second", 2))
    assert contents(str(tmp_path)) == whole("second", 2)


@pytest.mark.parametrize("renamed", range(FILES + 1))
def test_a_job_that_was_interrupted_goes_on_under_its_own_claim(renamed: int, tmp_path: Path) -> None:
    place = target(str(tmp_path), "first")
    made = shards(place, "first")
    claim(place)
    for number in range(renamed):
        Path(made[number].path).rename(place.shard(number, FILES))
    publish(FilesCommitter(place, SPEC), made)
    assert contents(str(tmp_path)) == whole("first")
    publish(FilesCommitter(place, SPEC), made)  # as a worker does that did not learn of the success
    assert contents(str(tmp_path)) == whole("first")


def test_a_claim_without_a_name_is_that_of_a_job_that_died_at_once(tmp_path: Path) -> None:
    Path(claim_path(target(str(tmp_path), "any"))).touch()
    claim(target(str(tmp_path), "next"))
    assert read_claim(target(str(tmp_path), "any")) == "next"
    assert rename_shards(target(str(tmp_path), "next"), []) == []
