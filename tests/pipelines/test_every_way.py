"""The same rows through every way to reach a model: in process, gRPC, REST, Vertex AI online, and a managed job."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sluice.models import zoo
from sluice.models.zoo.sample import write_samples
from sluice.pipelines.cli import main
from tests.support.bigquery.cases import load, make_births
from tests.support.fakes import PATIENCE_SECS
from tests.support.outputs import Row, assert_same_rows, failures_of, rows_of, told
from tests.support.reports import all_numbers
from tests.support.reports import rows_of as numbers_of
from tests.support.saved_models.zoo import ZooSample
from tests.support.servers import BigQuery
from tests.support.serving.model_servers import model_server
from tests.support.sizes import size
from tests.support.vertex.service import vertex_service

HERE, MANAGED = "in process", "managed"
# From the name of a model to the flags of each way to it.
Ways = Callable[[str], dict[str, list[str]]]

BAD_ROWS = 20


@pytest.fixture(scope="module")
def ways(zoo_samples: dict[str, ZooSample]) -> Iterator[Ways]:
    models = {name: zoo_samples[name].model for name in ("criteo", "natality")}
    with model_server(models) as server, vertex_service(models, polls=1) as vertex:

        def flags(name: str) -> dict[str, list[str]]:
            patient = [f"--rpc_timeout_secs={PATIENCE_SECS}"]
            here = f"--vertex_endpoint={vertex.url}"
            return {
                HERE: [f"--model={models[name]}"],
                "gRPC": [f"--model=grpc://127.0.0.1:{server.grpc_port}/{name}", *patient],
                # Answers over REST do not name their version: the URI does.
                "REST": [f"--model=http://127.0.0.1:{server.rest_port}/v1/models/{name}/versions/1", *patient],
                "Vertex AI online": [f"--model={vertex.endpoint_uri(name)}", here, *patient],
                MANAGED: [f"--model={vertex.model_uri(name)}", here],
            }

        yield flags


@pytest.fixture(scope="module")
def bad_criteo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Criteo rows, 20 of them bad: too few or too many fields, no numbers, numbers out of range, no values."""
    directory, rows = tmp_path_factory.mktemp("bad"), size(2_000, soak=50_000)
    (path,) = write_samples(zoo.get("criteo"), str(directory), rows, ("csv",))
    lines = Path(path).read_bytes().splitlines()
    for number in range(BAD_ROWS):
        row = 1 + number * (rows // BAD_ROWS) + number
        fields = lines[row].split(b",")
        kinds = [fields[:3], [*fields, b"more"], [fields[0], b"twelve", *fields[2:]], [fields[0], b"", *fields[2:]],
                 [fields[0], b"99999999999999999999", *fields[2:]]]  # fmt: skip
        lines[row] = b",".join(kinds[number % 5])
    Path(path).write_bytes(b"\n".join(lines) + b"\n")
    return path


class Job:
    """A job that has ended with exit code 0.

    Attributes:
      counts: of its summary.
    """

    def __init__(self, flags: list[str], output: Path) -> None:
        summary = output.with_suffix(".json")
        files = [f"--output={output}", f"--summary_file={summary}"]
        assert main(["batch", "--progress=none", "--add_model_columns", *flags, *files]) == 0
        self.output = output
        self.summary: dict[str, Any] = json.loads(summary.read_text())
        self.rows: list[Row] = rows_of(output)
        self.failures = told(failures_of(output))
        self.counts = {name: self.summary[name] for name in ("rows_in", "predictions", "failures", "failures_by_stage")}


def run_all(ways: dict[str, list[str]], source: list[str], directory: Path, suffix: str) -> dict[str, Job]:
    """Runs a job by each way."""
    jobs = {}
    for number, (way, flags) in enumerate(ways.items()):
        (directory / str(number)).mkdir()
        report = [f"--report_file={directory}/report.html"] if way == MANAGED else []
        jobs[way] = Job([*flags, *source, *report], directory / str(number) / f"out{suffix}")
    return jobs


@pytest.mark.soak
def test_files_come_out_the_same_by_every_way(ways: Ways, bad_criteo: str, tmp_path: Path) -> None:
    jobs = run_all(ways("criteo"), [f"--input={bad_criteo}"], tmp_path, ".csv")
    here = jobs[HERE]
    rows = size(2_000, soak=50_000)
    assert here.counts | {"failures_by_stage": {}} == {
        "rows_in": rows, "predictions": rows - BAD_ROWS, "failures": BAD_ROWS, "failures_by_stage": {},
    }  # fmt: skip
    for way, job in jobs.items():
        assert job.counts == here.counts, way
        assert job.failures == here.failures and len(job.failures) == BAD_ROWS, way
        assert_same_rows(job.rows, here.rows, ("score",))
        assert {row["_model"] for row in job.rows} == {ways("criteo")[way][0].removeprefix("--model=")}
    check_managed(jobs[MANAGED], here)


def check_managed(job: Job, here: Job) -> None:
    """Checks what only a managed job has: phases of its own, and files under way, which are gone."""
    assert job.summary["version"] == here.summary["version"] == 1
    assert job.summary["output_files"] == [str(job.output.with_name("out-00000-of-00001.csv"))]
    phases = job.summary["phases"]
    assert list(phases) == ["imports", "plan", "model_load", "prepare", "score", "join", "run", "commit"]
    assert phases["run"] >= phases["prepare"] + phases["score"] + phases["join"] - 0.01
    assert [path for path in job.output.parent.glob("sluice-managed/**/*") if path.is_file()] == []
    numbers = all_numbers(job.output.parents[1] / "report.html")
    assert numbers["kind"] == "Sluice: managed batch job"
    seen = [numbers_of(numbers, f"{group} in numbers") for group in ("Predictions", "Inputs of the model")]
    assert [len(columns) for columns in seen] == [1, 13]
    assert seen[0][0]["values"] == job.summary["predictions"]


@pytest.mark.soak
def test_rows_of_a_table_come_out_the_same_by_every_way(
    ways: Ways, zoo_samples: dict[str, ZooSample], bigquery: BigQuery, tmp_path: Path
) -> None:
    table = load(bigquery, make_births(size(500, soak=5_000)))
    jobs = run_all(ways("natality"), [f"--input_table={table}", "--max_failure_rate=1"], tmp_path, ".parquet")
    here, outputs = jobs[HERE], tuple(zoo_samples["natality"].expected())
    assert here.rows and here.failures
    for way, job in jobs.items():
        assert job.counts == here.counts, way
        assert [(each[0], *each[4:6]) for each in job.failures] == [(each[0], *each[4:6]) for each in here.failures], (
            way
        )
        assert_same_rows(job.rows, here.rows, outputs)
