"""`sluice batch` with a managed model, end to end on the local service: what comes out, and what happens on the way."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sluice.pipelines.cli import main
from sluice.pipelines.managed.client import JobClient
from sluice.transforms.core.beam_files import match_files, open_binary, write_text
from sluice.transforms.files.commit import FilesCommitter
from sluice.transforms.managed import published
from tests.support.outputs import failures_of, rows_of
from tests.support.processes import Forked, sluice
from tests.support.pubsub.streams import wait_until
from tests.support.saved_models.zoo import ZooSample, plain
from tests.support.servers import BigQuery, Gcs
from tests.support.vertex.jobs import plus_two
from tests.support.vertex.service import VertexService, vertex_service

WAIT_SECS = 120


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, zoo_samples: dict[str, ZooSample]) -> Iterator[VertexService]:
    small = plus_two([-1]).write(tmp_path_factory.mktemp("managed") / "small" / "1")
    models = {"small": str(Path(small).parent), "criteo": zoo_samples["criteo"].model}
    with vertex_service(models, polls=1) as running:  # a job ends when it is first looked at
        yield running


@pytest.fixture(autouse=True)
def no_faults(service: VertexService) -> Iterator[None]:
    yield
    faults = service.faults
    faults.hold_jobs, faults.is_bad, faults.lost_shard = False, None, None
    faults.end_states.clear()


def flags(service: VertexService, model: str, source: str, output: Path | str, *more: str) -> list[str]:
    managed = ["--model", service.model_uri(model), "--vertex_endpoint", service.url]
    return ["batch", "--progress=none", *managed, "--input", source, "--output", str(output), *more]


def numbers(path: Path, rows: int, bad: tuple[int, ...] = ()) -> str:
    """Writes rows for the model `small`; those at the bad places do not fit it."""
    lines = [json.dumps({"x": "no number" if n in bad else float(n), "id": n}) + "\n" for n in range(rows)]
    path.write_text("".join(lines))
    return str(path)


def jobs_since(service: VertexService, before: int) -> list[str]:
    """Returns the states of the jobs that were created since there were so many."""
    return list(service.jobs.states().values())[before:]


def left(directory: Path) -> list[Path]:
    """Returns the files of managed jobs that are left."""
    return [path for path in directory.glob("sluice-managed/**/*") if path.is_file()]


def refuses(*values: float) -> Callable[[Any], bool]:
    return lambda instance: instance["x"] in values


def test_rows_and_their_failures_go_into_tables_once(
    service: VertexService, bigquery: BigQuery, gcs: Gcs, tmp_path: Path
) -> None:
    """Failures are there after exit code 3 too, and the same command with a higher rate brings no row again."""
    source = str(tmp_path / "in.parquet")
    pq.write_table(pa.table({"id": [1, 2, 3], "x": [1.5, None, 4.0]}), source)
    output, failures = f"{bigquery.make_dataset()}.scored", f"{bigquery.make_dataset()}.failed"
    command = [*flags(service, "small", source, "")[:-2], "--output_table", output, "--failures_table", failures]
    assert main(command) == 2, "there is no directory for the rows under way"
    command += ["--temp_location", gcs.path("managed")]
    service.faults.is_bad = refuses(4.0)
    for rate, code, stages in ((0, 3, ["bind"]), (0.5, 3, ["bind", "predict"]), (1, 0, ["bind", "predict"])):
        assert main([*command, f"--max_failure_rate={rate}"]) == code
        assert sorted(row["stage"] for row in bigquery.rows(failures)) == stages
    assert [(row["id"], row["y"], row["_version"]) for row in bigquery.rows(output)] == [(1, 2.75, 1)]
    assert match_files(gcs.path("managed/**")) == []


def test_rows_that_were_appended_are_not_appended_again(
    service: VertexService,
    bigquery: BigQuery,
    gcs: Gcs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A command that breaks once its rows are in the table is brought to its end by the next one."""

    def broken(path: str, text: str) -> None:
        if path.endswith("-done.json"):
            raise OSError("the machine is gone")
        write_text(path, text)

    output, before = f"{bigquery.make_dataset()}.scored", len(service.jobs.states())
    ends = ["--output_table", output, "--failures", str(tmp_path / "bad.jsonl")]
    source = _parquet(tmp_path / "in.parquet", 3)
    command = [*flags(service, "small", source, "")[:-2], *ends, "--temp_location", gcs.path("appended")]
    with monkeypatch.context() as breaks:
        breaks.setattr(published, "write_text", broken)
        assert main(command) == 1
    assert "the same command goes on from there" in capsys.readouterr().err
    assert len(bigquery.rows(output)) == 3
    assert main([*command, "--overwrite"]) == 0, "which is of the files of failures"
    assert "an earlier command has published the answers of this job" in capsys.readouterr().err
    assert sorted(row["id"] for row in bigquery.rows(output)) == [0, 1, 2]
    assert len(jobs_since(service, before)) == 1
    assert match_files(gcs.path("appended/**")) == []


SOAKED = (pytest.mark.soak, pytest.mark.soak_only)


# Of the other formats tests/pipelines/test_every_way.py has more rows.
@pytest.mark.parametrize("read,written", [
    ("avro", "tfrecord"),
    pytest.param("avro", "avro", marks=SOAKED),
    pytest.param("tfrecord", "tfrecord", marks=SOAKED),
])  # fmt: skip
def test_formats_are_prepared_and_joined(
    read: str, written: str, service: VertexService, criteo: ZooSample, tmp_path: Path
) -> None:
    output = tmp_path / f"out.{written}"
    assert main(flags(service, "criteo", criteo.path(read), output)) == 0
    rows = sorted(rows_of(output), key=lambda row: plain(row["id"]))
    assert [plain(row["id"]) for row in rows] == [f"{number:07d}" for number in range(criteo.rows)]
    scores = np.array([plain(row["score"]) for row in rows], np.float64)
    np.testing.assert_allclose(scores, criteo.expected()["score"], rtol=1e-6)


def test_everything_on_gcs(service: VertexService, gcs: Gcs, tmp_path: Path) -> None:
    before = len(service.jobs.states())
    output = gcs.path("managed-out/pred.jsonl")
    assert main(flags(service, "small", numbers(tmp_path / "in.jsonl", 300), output)) == 0
    (found,) = match_files(gcs.path("managed-out/**"))
    with open_binary(found.path) as file:
        assert len(file.read().splitlines()) == 300
    (job,) = service.jobs.messages()[before:]
    assert job.input_config.gcs_source.uris[0].startswith(gcs.path("managed-out/sluice-managed/"))


def test_a_row_that_fails_takes_no_other_with_it_in_the_end(service: VertexService, tmp_path: Path) -> None:
    output, before = tmp_path / "out.jsonl", len(service.jobs.states())
    service.faults.is_bad = refuses(70.0, 71.0, 500.0)
    summary = tmp_path / "summary.json"
    more = f"--summary_file={summary}"
    assert main(flags(service, "small", numbers(tmp_path / "in.jsonl", 600), output, more)) == 0
    (reason,) = json.loads(summary.read_text())["reasons"]
    assert (reason["count"], reason["stage"], reason["error_type"]) == (3, "predict", "Unanswered")
    assert sorted(row["id"] for row in rows_of(output)) == [n for n in range(600) if n not in (70, 71, 500)]
    failures = failures_of(output)
    assert sorted(json.loads(each["payload_text"])["id"] for each in failures) == [70, 71, 500]
    assert {(each["stage"], each["error_type"], each["model"]) for each in failures} == {
        ("predict", "Unanswered", service.model_uri("small"))
    }
    assert all("an instance that the local service was told to refuse" in each["error_message"] for each in failures)
    first, second = service.jobs.messages()[before:]
    assert second.manual_batch_tuning_parameters.batch_size == 1
    assert (first.completion_stats.failed_count, second.completion_stats.failed_count) == (128, 3)
    assert left(tmp_path) == []


def test_a_job_that_failed_because_of_its_rows_is_paid_for_once_and_mended(
    service: VertexService, tmp_path: Path
) -> None:
    """The service says FAILED where no row has an answer. Rows are private, so its words are withheld."""
    output, before = tmp_path / "out.jsonl", len(service.jobs.states())
    service.faults.is_bad = refuses(3.0)
    source = numbers(tmp_path / "in.jsonl", 21, bad=(20,))
    command = flags(service, "small", source, output, "--failure_payload=none")
    client = JobClient("p", "l", service.url)
    for _ in range(2):
        assert main([*command, "--detach"]) == 0
        while not client.get(service.jobs.messages()[-1].name).is_ended:
            pass
    assert main(command) == 0
    assert sorted(row["id"] for row in rows_of(output)) == [n for n in range(20) if n != 3]
    texts = {each["stage"]: each["error_message"] for each in failures_of(output)}
    assert len(failures_of(output)) == 2 and "no number" not in texts["decode"] and "refuse" not in texts["predict"]
    assert texts["predict"] == "the service gives no answer to this row, not even alone[withheld]"
    assert jobs_since(service, before) == ["JOB_STATE_FAILED", "JOB_STATE_SUCCEEDED"]


def test_a_command_that_broke_while_it_published_does_not_say_that_it_can_be_repeated(
    service: VertexService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(committer: FilesCommitter, shards: Any) -> list[str]:
        if committer.spec is None:  # failures, which come before
            return []
        raise OSError("the disk is gone")

    monkeypatch.setattr(FilesCommitter, "commit", broken)
    assert main(flags(service, "small", numbers(tmp_path / "in.jsonl", 5), tmp_path / "out.jsonl")) == 1
    said = capsys.readouterr().err
    assert "Its output may be published: look at it" in said and "paid for twice" not in said


def test_a_job_that_fails_names_itself_where_rows_are_private(
    service: VertexService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.faults.end_states.append("JOB_STATE_EXPIRED")
    source, output = numbers(tmp_path / "in.jsonl", 10), tmp_path / "out.jsonl"
    assert main(flags(service, "small", source, output, "--failure_payload=none")) == 1
    said = capsys.readouterr().err
    assert "batchPredictionJobs/" in said and "expired: it ran for longer than the service allows" in said


def test_too_many_failures_before_the_job_are_not_paid_for(
    service: VertexService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, before = tmp_path / "out.jsonl", len(service.jobs.states())
    command = flags(service, "small", numbers(tmp_path / "in.jsonl", 50, bad=tuple(range(10, 20))), output)
    summary = tmp_path / "summary.json"
    assert main([*command, "--max_failure_rate=0.1", "--summary_file", str(summary)]) == 3
    said = capsys.readouterr().err
    assert "10 of 50 rows failed (20.0%), more than --max_failure_rate 0.1 allows" in said
    assert (rows_of(output), len(failures_of(output)), jobs_since(service, before)) == ([], 10, [])
    assert json.loads(summary.read_text())["rows_in"] == 50
    assert f"{tmp_path}/sluice-managed/" in said
    assert main([*command, "--max_failure_rate=0.2", "--overwrite"]) == 0
    assert (len(rows_of(output)), len(failures_of(output))) == (40, 10)
    assert left(tmp_path) == []


def test_too_many_failures_after_the_job_keep_what_was_paid_for(service: VertexService, tmp_path: Path) -> None:
    output, before = tmp_path / "out.jsonl", len(service.jobs.states())
    service.faults.is_bad = lambda instance: instance["x"] >= 150
    command = flags(service, "small", numbers(tmp_path / "in.jsonl", 200), output)
    assert main([*command, "--max_failure_rate=0.1"]) == 3
    assert (rows_of(output), len(failures_of(output))) == ([], 50)
    assert main([*command, "--max_failure_rate=0.5", "--overwrite"]) == 0
    assert (len(rows_of(output)), len(failures_of(output))) == (150, 50)
    assert len(jobs_since(service, before)) == 2, "a first job, and a second one row by row: nothing is paid twice"


@pytest.mark.parametrize("text", ["", '{"x": null}\n'])
def test_no_rows_to_score_are_no_job(service: VertexService, tmp_path: Path, text: str) -> None:
    source, output, before = tmp_path / "in.jsonl", tmp_path / "out.jsonl", len(service.jobs.states())
    source.write_text(text)
    assert main(flags(service, "small", str(source), output, "--max_failure_rate=1")) == 0
    assert rows_of(output) == [] and len(failures_of(output)) == len(text.splitlines())
    assert jobs_since(service, before) == []


def test_a_model_that_answers_nothing_is_not_asked_again_row_by_row(
    service: VertexService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every row is a failure, with the words of the service; once the cause is mended, there is a new job."""
    output, before = tmp_path / "out.jsonl", len(service.jobs.states())
    service.faults.is_bad = lambda instance: True
    command = flags(service, "small", numbers(tmp_path / "in.jsonl", 1100), output)
    assert main(command) == 3
    assert "the same command makes a new job for the rows, which are prepared" in capsys.readouterr().err
    failures = failures_of(output)
    assert len(failures) == 1100 and {each["error_type"] for each in failures} == {"Unanswered"}
    assert all("the local service was told to refuse" in each["error_message"] for each in failures)
    assert len(jobs_since(service, before)) == 1 and not output.exists()
    service.faults.is_bad = None
    assert main([*command, "--overwrite"]) == 0, "a new attempt over the rows that are prepared"
    assert (len(rows_of(output)), failures_of(output)) == (1100, [])
    assert len(jobs_since(service, before)) == 2 and left(tmp_path) == []


def test_a_second_job_over_many_rows_is_paid_for_only_if_that_is_wanted(
    service: VertexService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, before = tmp_path / "out.jsonl", len(service.jobs.states())
    service.faults.is_bad = lambda instance: instance["x"] % 64 == 0 and instance["x"] < 1152
    command = flags(service, "small", numbers(tmp_path / "in.jsonl", 1300), output)
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "left 1,152 of 1,300 rows without an answer (88.6%)" in said
    assert "more than --vertex_max_rescore_rate 0.5 allows to score once more, one by one" in said
    assert len(jobs_since(service, before)) == 1
    assert main([*command, "--vertex_max_rescore_rate=0.9"]) == 0
    assert (len(rows_of(output)), len(failures_of(output))) == (1282, 18)
    assert len(jobs_since(service, before)) == 2, "the first one is not paid for again"


def killed_when(job: Forked, condition: Callable[[], bool]) -> None:
    wait_until(lambda: condition() or job.poll() is not None, "what the job is killed after")
    assert job.poll() is None
    job.kill()
    job.wait(WAIT_SECS)


def test_a_command_killed_twice_after_it_has_asked_for_the_job_finds_it_again(
    service: VertexService, tmp_path: Path
) -> None:
    output, before = tmp_path / "out.jsonl", len(service.jobs.states())
    command = flags(service, "small", numbers(tmp_path / "in.jsonl", 300, bad=(7,)), output)
    service.faults.hold_jobs = True
    killed_when(sluice(*command), lambda: len(jobs_since(service, before)) == 1)
    asked = service.calls.count("getJob")
    killed_when(sluice(*command), lambda: service.calls.count("getJob") > asked)
    prepared = sorted(tmp_path.glob("sluice-managed/*/*/prepared.json"))
    assert len(prepared) == 1 and not output.exists()
    service.faults.hold_jobs = False
    job = sluice(*command)
    assert job.wait(WAIT_SECS) == 0
    assert (len(rows_of(output)), len(failures_of(output))) == (299, 1)
    assert jobs_since(service, before) == ["JOB_STATE_SUCCEEDED"]
    assert left(tmp_path) == []


def test_a_command_that_was_interrupted_says_how_to_go_on(service: VertexService, tmp_path: Path) -> None:
    output, before, errors = tmp_path / "out.jsonl", len(service.jobs.states()), tmp_path / "errors"
    command = flags(service, "small", numbers(tmp_path / "in.jsonl", 100), output)
    service.faults.hold_jobs = True
    asked = service.calls.count("getJob")
    job = sluice(*command, errors=str(errors))
    wait_until(lambda: service.calls.count("getJob") > asked or job.poll() is not None, "the job")
    job.send_signal(signal.SIGINT)
    assert job.wait(WAIT_SECS) == 130
    said = errors.read_text()
    assert "goes on. To follow it and get its output: sluice batch --progress=none" in said
    assert f"stay in {tmp_path}/sluice-managed/" in said
    service.faults.hold_jobs = False
    assert main(command) == 0
    assert (len(rows_of(output)), jobs_since(service, before)) == (100, ["JOB_STATE_SUCCEEDED"])


def test_a_detached_job_is_followed_by_the_command_that_it_names(
    service: VertexService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though its input has grown since."""
    output, before = tmp_path / "out.jsonl", len(service.jobs.states())
    command = flags(service, "small", numbers(tmp_path / "in.jsonl", 100), output)
    assert main([*command, "--detach"]) == 0
    said = capsys.readouterr().err
    assert "goes on by itself" in said
    assert not output.exists() and left(tmp_path)
    numbers(tmp_path / "in.jsonl", 110)
    name = said.split()[-1]
    assert name == f"--vertex_job={service.jobs.messages()[-1].name.rpartition('/')[2]}"
    assert main([*command, name, "--output_prefix=other_"]) == 2, "that is another job"
    assert main([*command, name]) == 0
    assert (len(rows_of(output)), len(jobs_since(service, before))) == (100, 1)
    assert main([*command, name, "--overwrite"]) == 1, "its rows are gone, and others are not prepared in their place"
    assert "Leave --vertex_job out to score the input as it is now" in capsys.readouterr().err
    numbers(tmp_path / "in.jsonl", 100)
    assert left(tmp_path) == []
    assert main(command) == 2, "its output is there"
    assert main([*command, "--overwrite"]) == 0, "what was joined is not joined again, but scored anew"
    assert (len(rows_of(output)), len(jobs_since(service, before))) == (100, 2)


def test_a_job_that_ends_without_results_is_replaced_and_its_rows_are_not_prepared_again(
    service: VertexService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the other states see test_follow.py and test_standing.py."""
    output, before, state = tmp_path / "out.jsonl", len(service.jobs.states()), "JOB_STATE_FAILED"
    command = flags(service, "small", numbers(tmp_path / "in.jsonl", 1200), output)
    service.faults.end_states.append(state)
    assert main(command) == 1
    assert "The same command makes a new job" in capsys.readouterr().err
    prepared = sorted(tmp_path.glob("sluice-managed/*/*/prepared.json"))
    assert len(prepared) == 1
    written = prepared[0].stat().st_mtime_ns
    service.faults.hold_jobs = True
    assert main([*command, "--detach"]) == 0
    assert prepared[0].stat().st_mtime_ns == written
    service.faults.hold_jobs = False
    assert main(command) == 0
    assert (len(rows_of(output)), jobs_since(service, before)) == (1200, [state, "JOB_STATE_SUCCEEDED"])


def test_rows_whose_answers_are_not_there_are_scored_again(service: VertexService, tmp_path: Path) -> None:
    """The job has succeeded in part, with half of the rows, and of its files of results one is lost."""
    output, before = tmp_path / "out.parquet", len(service.jobs.states())
    service.faults.end_states.append("JOB_STATE_PARTIALLY_SUCCEEDED")
    service.faults.lost_shard = 1
    assert main(flags(service, "small", _parquet(tmp_path / "in.parquet", 400), output)) == 0
    rows = sorted(rows_of(output), key=lambda row: row["id"])
    assert [(row["id"], row["y"]) for row in rows] == [(n, n / 2 + 2) for n in range(400)]
    first, second = service.jobs.messages()[before:]
    assert first.state.name == "JOB_STATE_PARTIALLY_SUCCEEDED"
    assert second.completion_stats.successful_count > first.completion_stats.failed_count > 0, "those of the file too"
    assert failures_of(output) == []


def _parquet(path: Path, rows: int) -> str:
    pq.write_table(pa.table({"id": list(range(rows)), "x": [float(n) for n in range(rows)]}), path)
    return str(path)
