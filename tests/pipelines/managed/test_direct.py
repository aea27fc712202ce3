"""--vertex_direct: the command, on the local service, in each format; what is checked first; how it ends."""

import gzip
import json
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sluice.models.errors import UsageError
from sluice.models.tensors.tfrecord import frame
from sluice.pipelines.cli import main
from sluice.pipelines.managed import follow
from sluice.pipelines.managed.direct_plan import plan_direct
from sluice.pipelines.managed.job import RegisteredModel, State
from sluice.pipelines.options.batch import BatchOptions
from sluice.transforms.core.beam_files import open_binary, write_text
from tests.support.bigquery.cases import load
from tests.support.processes import Forked
from tests.support.servers import BigQuery, Gcs
from tests.support.vertex.jobs import MACHINES, lengths, plus_two, states
from tests.support.vertex.service import VertexService, vertex_service

WAIT_SECS = 120
JOBS = ("createJob", "listJobs", "getJob", "cancelJob")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VertexService]:
    base = tmp_path_factory.mktemp("direct")
    models = {"scalar": plus_two([-1]), "array": plus_two([-1, 3]), "text": lengths()}
    written = {name: str(Path(made.write(base / name / "1")).parent) for name, made in models.items()}
    with vertex_service(written, methods=JOBS) as running:
        yield running


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs end at the second look, which the command would otherwise take half a second to come to."""
    monkeypatch.setattr(follow, "_FIRST_LOOK_SECS", 0.01)


@pytest.fixture(autouse=True)
def no_faults(service: VertexService) -> Iterator[None]:
    yield
    service.faults.hold_jobs, service.faults.is_bad = False, None
    service.faults.unknown_incomplete, service.faults.shards, service.faults.polls = False, 3, 2
    for asked in (service.faults.next_errors, service.faults.end_states, service.faults.lost_answers):
        asked.clear()


def write(directory: Path, name: str, data: str | bytes) -> str:
    path = directory / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def lines(values: list[Any]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


record = frame


def flags(service: VertexService, model: str, **more: str) -> list[str]:
    usual = {"model": service.model_uri(model), "vertex_endpoint": service.url, "progress": "none"}
    return ["batch", "--vertex_direct", *(f"--{name}={value}" for name, value in (usual | more).items())]


Command = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def command(service: VertexService, tmp_path: Path) -> Command:
    """Runs the command; returns its exit code and its summary, {} if it wrote none."""

    def run(model: str, given: str, **more: str) -> tuple[int, dict[str, Any]]:
        summary = tmp_path / "summary.json"
        summary.unlink(missing_ok=True)
        more = {"output": str(tmp_path / "out"), "summary_file": str(summary)} | more
        code = main(flags(service, model, input=given, **more))
        return code, json.loads(summary.read_text()) if summary.exists() else {}

    return run


def predictions(summary: dict[str, Any]) -> list[Any]:
    found = [path for path in summary["output_files"] if "prediction.results" in path]
    return [json.loads(line)["prediction"] for path in found for line in Path(path).read_text().splitlines()]


ROWS = list(range(10))


@pytest.mark.parametrize("name,model,data,expected", [
    ("rows.jsonl", "scalar", lines([{"x": float(x)} for x in ROWS]), [x / 2 + 2 for x in ROWS]),
    ("rows.jsonl", "scalar", lines([{"x": float(x), "id": "a"} for x in ROWS]), [x / 2 + 2 for x in ROWS]),
    ("rows.jsonl", "array", lines([{"x": [x, 1, 2]} for x in ROWS]), [[x / 2 + 2, 2.5, 3.0] for x in ROWS]),
    ("rows.csv", "array", "a,b,c\n" + "".join(f"{x},1,2\n" for x in ROWS), [[x / 2 + 2, 2.5, 3.0] for x in ROWS]),
    ("rows.tfrecord", "text", b"".join(record(b"\xff" * x) for x in ROWS), ROWS),
    ("rows.jsonl", "text", lines([{"x": "é" * x} for x in ROWS]), [2 * x for x in ROWS]),
])  # fmt: skip
def test_each_format(
    command: Command, tmp_path: Path, name: str, model: str, data: str | bytes, expected: list[Any]
) -> None:
    code, summary = command(model, write(tmp_path, name, data))
    assert code == 0
    assert sorted(predictions(summary)) == sorted(expected)
    assert (summary["rows_in"], summary["predictions"], summary["failures"]) == (10, 10, 0)
    assert (summary["state"], summary["version"], summary["error_reasons"]) == ("SUCCEEDED", 1, {})


def test_gzipped_records(command: Command, tmp_path: Path) -> None:
    data = gzip.compress(b"".join(record(b"a" * x) for x in ROWS))
    code, summary = command("text", write(tmp_path, "rows.tfrecord.gz", data))
    assert (code, sorted(predictions(summary))) == (0, ROWS)


def test_on_cloud_storage(command: Command, gcs: Gcs, tmp_path: Path) -> None:
    base = f"gs://{gcs.bucket}/{tmp_path.name}"
    write_text(f"{base}/in/rows.jsonl", lines([{"x": x} for x in ROWS]))
    code, summary = command("scalar", f"{base}/in/*.jsonl", output=f"{base}/out", report_file=f"{base}/report.html")
    assert (code, summary["predictions"]) == (0, 10)
    with open_binary(f"{base}/report.html") as report:
        page = report.read().decode()
    assert ">10 predictions<" in page and "passed through other processes" in page
    assert all(path.startswith(f"{base}/out/prediction-scalar-") for path in summary["output_files"])
    code, again = command("scalar", f"{base}/in/*.jsonl", output=f"{base}/out")
    assert (code, again["job"]) == (0, summary["job"])
    code, new = command("scalar", f"{base}/in/*.jsonl", output=f"{base}/out", overwrite="true")
    assert code == 0 and new["job"] != summary["job"]


def test_results_as_csv(command: Command, tmp_path: Path) -> None:
    given = write(tmp_path, "rows.jsonl", lines([{"x": x} for x in ROWS]))
    code, summary = command("scalar", given, output_format="csv")
    assert (code, summary["predictions"]) == (0, 10)
    texts = [Path(path).read_text() for path in summary["output_files"] if "results" in path]
    assert {text.partition("\n")[0] for text in texts if text} == {"x,prediction"}


def test_several_files_by_a_glob(command: Command, service: VertexService, tmp_path: Path) -> None:
    for part in range(3):
        write(tmp_path, f"rows-{part}.jsonl", lines([{"x": x} for x in ROWS]))
    code, summary = command("scalar", str(tmp_path / "rows-*.jsonl"))
    assert (code, summary["rows_in"]) == (0, 30)
    assert len(service.jobs.messages()[-1].input_config.gcs_source.uris) == 3


def test_counts_and_reasons_of_failed_rows(
    command: Command, service: VertexService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.faults.is_bad = lambda instance: instance["x"] == 3
    given = write(tmp_path, "rows.jsonl", lines([{"x": x} for x in range(20)]))
    code, summary = command("scalar", given, vertex_batch_size="2")
    assert code == 0
    assert (summary["rows_in"], summary["predictions"], summary["failures"]) == (20, 18, 2)
    assert summary["failures_by_stage"] == {"predict": {"Failed": 2}}
    ((reason, number),) = summary["error_reasons"].items()
    assert number == 2 and "told to refuse" in reason
    assert [(each["count"], each["example"]) for each in summary["reasons"]] == [(2, reason)]
    assert f"such as: {reason}" in capsys.readouterr().err


def test_more_failures_than_allowed(command: Command, service: VertexService, tmp_path: Path) -> None:
    service.faults.is_bad = lambda instance: instance["x"] == 3
    given = write(tmp_path, "rows.jsonl", lines([{"x": x} for x in range(20)]))
    code, summary = command("scalar", given, vertex_batch_size="2", max_failure_rate="0.09")
    assert (code, summary["failures"]) == (3, 2)


def test_a_job_that_succeeds_in_part(
    command: Command, service: VertexService, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service.faults.end_states += ["JOB_STATE_PARTIALLY_SUCCEEDED"]
    given = write(tmp_path, "rows.jsonl", lines([{"x": x} for x in ROWS]))
    code, summary = command("scalar", given, max_failure_rate="0.5", vertex_batch_size="1")
    assert (code, summary["state"], summary["predictions"], summary["failures"]) == (0, "PARTIALLY_SUCCEEDED", 5, 5)
    assert "succeeded in part only" in caplog.text


@pytest.mark.parametrize(
    "state,words",
    [
        ("FAILED", "failed: The job failed: too many predictions failed"),
        ("EXPIRED", "expired: it ran for longer than the service allows"),
        ("CANCELLED", "was cancelled"),
    ],
)
def test_a_job_without_results_is_exit_1_and_replaced(
    command: Command, service: VertexService, tmp_path: Path, state: str, words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    service.faults.end_states += [f"JOB_STATE_{state}"]
    given = write(tmp_path, "rows.jsonl", lines([{"x": x} for x in ROWS]))
    before = len(states(service))
    assert command("scalar", given) == (1, {})
    assert words in capsys.readouterr().err
    code, summary = command("scalar", given)
    assert (code, summary["predictions"]) == (0, 10)
    assert states(service)[before:] == [State[state], State.SUCCEEDED]


def test_the_same_command_again_pays_nothing_and_overwrite_pays_anew(
    command: Command, service: VertexService, tmp_path: Path
) -> None:
    given = write(tmp_path, "rows.jsonl", lines([{"x": x} for x in ROWS]))
    before = len(states(service))
    _, first = command("scalar", given)
    code, again = command("scalar", given)
    assert (code, again["job"], again["predictions"]) == (0, first["job"], 10)
    assert len(states(service)) == before + 1
    code, new = command("scalar", given, overwrite="true")
    assert code == 0 and new["job"] != first["job"]
    assert len(states(service)) == before + 2


def test_results_that_were_deleted_are_not_reported_as_there(
    command: Command, service: VertexService, tmp_path: Path
) -> None:
    given = write(tmp_path, "rows.jsonl", lines([{"x": x} for x in ROWS]))
    _, first = command("scalar", given)
    for path in first["output_files"]:
        Path(path).unlink()
    code, second = command("scalar", given)
    assert (code, second["predictions"]) == (0, 10) and second["job"] != first["job"]
    assert len(predictions(second)) == 10


def test_the_command_without_overwrite_follows_the_job_that_overwrite_has_made(
    command: Command, service: VertexService, tmp_path: Path
) -> None:
    given = write(tmp_path, "rows.jsonl", lines([{"x": x} for x in ROWS]))
    _, first = command("scalar", given)
    service.faults.hold_jobs = True
    assert command("scalar", given, overwrite="true", detach="true") == (0, {})
    service.faults.hold_jobs = False
    code, second = command("scalar", given)
    assert code == 0 and second["job"] == service.jobs.messages()[-1].name != first["job"]
    _, third = command("scalar", given)
    assert third["job"] == second["job"]


def test_changed_input_is_another_job(command: Command, service: VertexService, tmp_path: Path) -> None:
    given = write(tmp_path, "rows.jsonl", lines([{"x": x} for x in ROWS]))
    _, first = command("scalar", given)
    write(tmp_path, "rows.jsonl", lines([{"x": x} for x in range(11)]))
    _, second = command("scalar", given)
    assert (first["rows_in"], second["rows_in"]) == (10, 11)
    code, named = command("scalar", given, vertex_job=first["job"].rpartition("/")[2])
    assert (code, named["job"], named["rows_in"]) == (0, first["job"], 10)
    assert command("scalar", given, vertex_job=first["job"], overwrite="true") == (1, {}), "its results were used"


def test_detach_and_then_follow(
    command: Command, service: VertexService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.faults.hold_jobs = True
    given = write(tmp_path, "rows.jsonl", lines([{"x": x} for x in ROWS]))
    before = len(states(service))
    assert command("scalar", given, detach="true") == (0, {})
    name = service.jobs.messages()[-1].name
    said = capsys.readouterr().err
    assert f"{name} goes on by itself" in said and "To follow it and get its output: " in said
    assert command("scalar", given, detach="true") == (0, {})  # it is there already
    service.faults.hold_jobs = False
    code, summary = command("scalar", given)
    assert (code, summary["job"], summary["predictions"]) == (0, name, 10)
    assert len(states(service)) == before + 1


def _command(arguments: list[str]) -> int:
    logging.disable()
    return main(arguments)


@pytest.mark.parametrize("cancel", [False, True])
def test_ctrl_c(service: VertexService, tmp_path: Path, cancel: bool) -> None:
    service.faults.hold_jobs = True
    given = write(tmp_path, "rows.jsonl", lines([{"x": x} for x in ROWS]))
    more = {"cancel_on_interrupt": "true"} if cancel else {}
    arguments = flags(service, "scalar", input=given, output=str(tmp_path / "out"), **more)
    said = str(tmp_path / "said")
    service.calls.clear()
    process = Forked(_command, arguments, output=said, errors=said)
    assert service.calls.wait(1, "getJob", WAIT_SECS)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(WAIT_SECS) == 130
    text = Path(said).read_text()
    if cancel:
        assert "interrupted; cancelled batch prediction job" in text
        assert states(service)[-1] is State.CANCELLING
    else:
        assert "goes on. To follow it and get its output: " in text
        assert states(service)[-1] in (State.PENDING, State.RUNNING)


def test_killed_and_started_again_it_is_one_job(command: Command, service: VertexService, tmp_path: Path) -> None:
    service.faults.hold_jobs = True
    given = write(tmp_path, "rows.jsonl", lines([{"x": x} for x in ROWS]))
    arguments = flags(service, "scalar", input=given, output=str(tmp_path / "out"))
    before = len(states(service))
    service.calls.clear()
    process = Forked(_command, arguments)
    assert service.calls.wait(1, "getJob", WAIT_SECS)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(WAIT_SECS)
    service.faults.hold_jobs = False
    code, summary = command("scalar", given)
    assert (code, summary["predictions"]) == (0, 10)
    assert len(states(service)) == before + 1


REFUSED = [
    ("scalar", "r.jsonl", lines([{"x": "one"}] * 10), {}, "none of the first 10 rows"),
    ("scalar", "r.jsonl", lines([{"X": 1}] * 10), {}, "the model takes column 'x'"),
    ("scalar", "r.jsonl", lines([{"x": [1]}] * 10), {}, "the model takes float32 [batch], and values are lists"),
    ("array", "r.jsonl", lines([{"x": 1}] * 10), {}, "values are single ones; the service sends them as"),
    ("scalar", "r.csv", "x\n1\n", {}, "makes an array of each line of CSV, of 1 values here"),
    ("array", "r.csv", "a,b\n1,2\n", {}, "of 2 values here; signature 'serving_default' takes 'x' (float32 [batch"),
    ("array", "r.csv", "a,b,c\n" + "1,2,x\n" * 10, {}, "none of the first 10 rows"),
    ("scalar", "r.tfrecord", record(b"a"), {}, "gives the model each record as bytes"),
    ("scalar", "r.parquet", b"", {}, "the service reads no parquet files"),
    ("scalar", "r.jsonl.gz", b"", {}, "the service reads no gzipped jsonl files"),
    ("scalar", "r.jsonl", lines([{"x": 1}]), {"output": "/tmp/o.jsonl"}, "it is a directory, and the service names"),
    ("scalar", "r.jsonl", lines([{"x": 1}]), {"output_format": "avro"}, "the service writes jsonl or csv"),
    ("scalar", "r.jsonl", lines([{"x": 1}]), {"columns": "x"}, "--columns applies to rows that Sluice reads"),
    ("scalar", "r.jsonl", lines([{"x": 1}]), {"vertex_accelerator": "GPU"}, "Vertex AI has no such accelerator"),
]  # fmt: skip


@pytest.mark.parametrize("model,name,data,more,words", REFUSED)
def test_what_is_refused_before_anything_is_paid_for(
    command: Command, service: VertexService, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    model: str, name: str, data: str | bytes, more: dict[str, str], words: str,
) -> None:  # fmt: skip
    before = len(states(service))
    assert command(model, write(tmp_path, name, data), **more) == (2, {})
    assert words in capsys.readouterr().err
    assert len(states(service)) == before


def test_the_service_itself_reads_gs_only(tmp_path: Path) -> None:
    given = write(tmp_path, "r.jsonl", lines([{"x": 1}]))
    options = BatchOptions(
        model="vertex://projects/p/locations/l/models/m", input=given, output="gs://b/o", vertex_direct=True
    )
    with pytest.raises(UsageError, match="reads and writes Cloud Storage only; give a gs:// path"):
        plan_direct(options, RegisteredModel("projects/p/locations/l/models/m", "1"), MACHINES)


def test_a_right_that_is_missing(
    command: Command, service: VertexService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.faults.next_errors += ["PERMISSION_DENIED"]
    given = write(tmp_path, "rows.jsonl", lines([{"x": x} for x in ROWS]))
    assert command("scalar", given) == (2, {})
    assert "needs the permission aiplatform.batchPredictionJobs.list" in capsys.readouterr().err


def table_options(service: VertexService, table: str) -> BatchOptions:
    return BatchOptions(
        model=service.model_uri("scalar"), input_table=table, output_table="p.d.out", vertex_direct=True,
        vertex_endpoint=service.url,
    )  # fmt: skip


@pytest.mark.parametrize("columns", [{"x": ROWS}, {"id": ROWS, "x": ROWS, "name": ["a"] * 10}])
def test_from_table_to_table(
    bigquery: BigQuery, service: VertexService, tmp_path: Path, columns: dict[str, list[Any]]
) -> None:
    given = load(bigquery, pa.table({name: _float(values) for name, values in columns.items()}))
    output, summary = f"{bigquery.make_dataset()}.scored", tmp_path / "summary.json"
    arguments = flags(service, "scalar", input_table=given, output_table=output, summary_file=str(summary))
    assert main(arguments) == 0
    found = json.loads(summary.read_text())
    assert (found["rows_in"], found["predictions"], found["output_table"]) == (10, 10, output)
    rows = bigquery.client.list_rows(bigquery.client.get_table(output))
    assert sorted(json.loads(row["prediction"]) for row in rows) == [x / 2 + 2 for x in ROWS]


def _float(values: list[Any]) -> pa.Array:
    return pa.array(values, pa.string() if isinstance(values[0], str) else pa.float64())


def test_a_table_is_checked_and_asked_for(bigquery: BigQuery, service: VertexService) -> None:
    table = load(bigquery, pa.table({"x": pa.array([1.0, 2.0], pa.float64()), "other": ["a", "b"]}))
    model = RegisteredModel(service.model_uri("scalar").removeprefix("vertex://"), "1")
    request = plan_direct(table_options(service, table), model, MACHINES, local=True)
    assert (request.input_format, request.inputs) == ("bigquery", (f"bq://{table}",))
    assert (request.output_format, request.output) == ("bigquery", "bq://p.d.out")
    assert (request.instance_type, request.fields) == ("object", ("x",))


def test_a_table_that_does_not_fit(bigquery: BigQuery, service: VertexService) -> None:
    table = load(bigquery, pa.table({"x": ["a", "b"]}))
    model = RegisteredModel("projects/p/locations/l/models/m", "1")
    with pytest.raises(UsageError, match="column 'x': the model takes float32"):
        plan_direct(table_options(service, table), model, MACHINES, local=True)
    jsonl_only = RegisteredModel("projects/p/locations/l/models/m", "1", input_formats=("jsonl",))
    with pytest.raises(UsageError, match="reads no bigquery for this model, but jsonl"):
        plan_direct(table_options(service, table), jsonl_only, MACHINES, local=True)
