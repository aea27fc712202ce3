"""`sluice compare` as people run it, at tiny sizes: what it prints and writes, and what it refuses."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from sluice.pipelines import cli
from sluice.pipelines.commands import compare_run
from sluice.pipelines.compare import bench as bench_module
from sluice.pipelines.compare.bench import Processes
from sluice.pipelines.compare.budget import Budget
from sluice.pipelines.compare.costs import Cost
from sluice.pipelines.compare.found import Found, Job
from sluice.pipelines.compare.stream import Load
from sluice.pipelines.compare.subject import STAGES
from sluice.pipelines.compare.ways import find_ways
from sluice.pipelines.options.compare import CompareOptions
from sluice.pipelines.options.config import read_settings
from sluice.pipelines.outcome import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE
from tests.support.fake_bench import Clock, FakeBench, Nature
from tests.support.saved_models.zoo import ZooSample
from tests.support.sizes import SOAK
from tests.support.vertex.service import vertex_service

NATURES = {
    "worker": Nature(),
    "grpc": Nature(row_us=225.0, server_share=0.6),
    "rest": Nature(row_us=500.0, server_share=0.6),
}


def faked(monkeypatch: pytest.MonkeyPatch, interrupt_after: int = 0) -> FakeBench:
    """Makes comparisons reckon instead of measuring."""
    clock = Clock()
    bench = FakeBench(clock, NATURES, interrupt_after=interrupt_after)

    class Faked(Processes):
        def __enter__(self) -> FakeBench:  # type: ignore[override]
            return bench

    monkeypatch.setattr(compare_run, "Processes", Faked)
    monkeypatch.setattr(compare_run, "Budget", lambda minutes: Budget(minutes, clock))
    return bench


def compare(sample: ZooSample, *flags: str) -> int:
    return cli.main(["compare", f"--model={sample.model}", f"--input={sample.path('csv')}", "--progress=none", *flags])


def test_the_answer_is_printed_and_written(
    criteo: ZooSample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faked(monkeypatch)
    pytest.importorskip("vl_convert")
    summary, config, page = tmp_path / "s.json", tmp_path / "job.yaml", tmp_path / "r.html"
    flags = [f"--summary_file={summary}", f"--write_config={config}", "--rows=1000000000", "--deadline=5h"]
    assert compare(criteo, *flags, f"--report_file={page}", "--signature", "serving_default") == EXIT_OK
    printed = capsys.readouterr().out
    assert "1  in the worker" in printed and "At rest: in the worker" in printed
    assert json.loads(summary.read_text())["at_rest"] == "worker"
    assert "Ways to serve" in page.read_text() and "<svg" in page.read_text()
    found = read_settings(str(config))
    assert [(each.name, each.value) for each in found][:2] == [
        ("model", os.path.abspath(criteo.model)),
        ("signature", "serving_default"),
    ]


def test_ctrl_c_keeps_what_was_measured(
    criteo: ZooSample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = faked(monkeypatch)
    assert compare(criteo) == EXIT_OK
    jobs = [number for number, (what, _) in enumerate(bench.asked, 1) if what == "job"]
    faked(monkeypatch, interrupt_after=jobs[8])
    summary = tmp_path / "s.json"
    assert compare(criteo, f"--summary_file={summary}") == EXIT_INTERRUPTED
    found = json.loads(summary.read_text())
    assert found["interrupted"] and [len(way["rows_per_second"]) for way in found["ways"]] == [1, 1, 2]
    assert "Interrupted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--signature=nope"], "nope"),
        (["--only=vertex"], "give an --endpoint of this kind"),
        (["--output=x.csv"], "--output has no place in a comparison"),
        (["--prices=nowhere.json"], "--prices nowhere.json cannot be read"),
        (["--max_batch_size=-1"], "--max_batch_size is -1"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_measured(
    flags: list[str], said: str, criteo: ZooSample, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(criteo, *flags) == EXIT_USAGE
    assert said in capsys.readouterr().err


def test_an_unknown_flag_is_one_of_no_job(criteo: ZooSample, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare(criteo, "--signatur=x")
    assert "--signature" in capsys.readouterr().err


def run_here(command: Sequence[str], limit_secs: float | None) -> Cost:
    """Runs `python -m sluice ...` in this process, which has imported everything."""
    assert limit_secs in (300.0, None) and list(command[:3]) == [sys.executable, "-m", "sluice"]
    assert cli.main(list(command[3:])) == EXIT_OK
    return Cost(1.0, 1.0, 500.0)


@pytest.mark.job
@pytest.mark.soak
def test_processes_measure_the_worker(criteo: ZooSample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One measurement of each kind, really run; the job only in a soak in a process of its own."""
    if not SOAK:
        monkeypatch.setattr(bench_module, "run_measured", run_here)
    options = CompareOptions(model=criteo.model, input=(criteo.path("csv"),))
    checked = compare_run.check_sample(options, [], str(tmp_path))
    (way,) = find_ways(os.path.abspath(criteo.model), (), "worker")
    with Processes(criteo.model, checked.flags, checked.sample, str(tmp_path)) as bench:
        loaded = bench.load(way)
        assert (loaded.rows, loaded.refused, loaded.sample_rows) == (criteo.rows, 0, criteo.rows)
        assert (loaded.batch, loaded.in_flight) == (4096, 1)
        driven = bench.throughput(way, compare_run.Point(64), 0.1)
        assert driven.rows > 0 and 32 < driven.batch <= 64 and driven.cpu_secs > 0
        answered = bench.latency(way, Load(500.0, 20, True), compare_run.Point())
        assert len(answered.latencies_ms) == 20 and answered.complete and min(answered.latencies_ms) > 0
        stages = bench.stages(way, compare_run.Point())
        assert set(stages) == set(STAGES) and all(value >= 0 for value in stages.values()) and stages["call"] > 0
        job = bench.job(way, compare_run.Point(64), 2, 300.0)
    assert job.rows == 2 * criteo.rows and job.cost.peak_mb > 100 and job.server_cpu_secs is None


def test_jobs_that_tell_nothing_of_a_row_are_told() -> None:
    """The machine was busy while the job of one row ran."""
    (way,) = find_ways("m", (), "worker")
    found = Found(way, starts=[Job(1, Cost(9.0, 2.0, 500))], jobs=[Job(1000, Cost(8.0, 2.5, 500))])
    (note,) = compare_run._notes([found], [])
    assert note.startswith("in the worker: jobs of many rows took no longer than those of one row")


@pytest.mark.job
def test_a_managed_job_is_run_at_the_service(
    criteo: ZooSample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the local service, which scores really."""
    monkeypatch.setattr(bench_module, "run_measured", run_here)
    with vertex_service({"criteo": criteo.model}, polls=1) as service:
        options = CompareOptions(model=criteo.model, input=(criteo.path("csv"),), measure_managed=True)
        flags = [f"--vertex_endpoint={service.url}"]
        checked = compare_run.check_sample(options, flags, str(tmp_path))
        (way,) = find_ways(criteo.model, (service.model_uri("criteo"),), "vertex_job", True)
        with Processes(
            criteo.model, checked.flags, checked.sample, str(tmp_path), temp_location=f"{tmp_path}/temp"
        ) as bench:
            job = bench.job(way, compare_run.Point(), 1, None)
        assert list(service.jobs.states().values()) == ["JOB_STATE_SUCCEEDED"]
    assert job.rows == criteo.rows and job.server_cpu_secs is None and job.node_secs is not None and job.node_secs > 0
    notes = compare_run._notes([Found(way, jobs=[job])], flags)
    assert any("is a local service" in note and "it is not Vertex AI" in note for note in notes)
