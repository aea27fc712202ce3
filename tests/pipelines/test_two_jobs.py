"""Two batch jobs that were started with one --output."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sluice.models.errors import UsageError
from sluice.pipelines.cli import main
from sluice.pipelines.dataflow.runner import beam_options, make_pipeline
from sluice.pipelines.graph import build_batch
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.plan.batch_job import plan_batch
from sluice.transforms.files.claim import claim
from sluice.transforms.files.write import Target
from tests.support.sizes import size


def flags(model: str, tmp_path: Path) -> list[str]:
    source = tmp_path / "in.csv"
    source.write_text("x\n" + "4\n" * 1000 + "bad\n")
    return ["batch", "--progress=none", "--model", model, "--input", str(source), "--output", f"{tmp_path}/out.csv"]


def visible(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob("out*")}


def test_the_job_that_ends_last_leaves_the_output_alone(cases: Callable[[str], str], tmp_path: Path) -> None:
    command = flags(cases("picky"), tmp_path)
    options = BatchOptions(input=command[5], model=command[3], output=command[7])
    late = plan_batch(options)
    assert main(command) == 0
    first = visible(tmp_path)
    with pytest.raises(Exception, match="was written by another job after this one had started"):
        pipeline = make_pipeline(beam_options([]))
        build_batch(pipeline, late)
        pipeline.run().wait_until_finish()
    assert visible(tmp_path) == first
    assert len(first) == 2, "predictions and failures"
    assert not list(tmp_path.glob(".sluice*"))


def test_a_claim_stops_the_launch_and_overwrite_takes_it_over(cases: Callable[[str], str], tmp_path: Path) -> None:
    command = flags(cases("picky"), tmp_path)
    claim(Target(f"{tmp_path}/out", ".csv", f"{tmp_path}/.sluice-dead"))
    with pytest.raises(UsageError, match=r"the job dead .*--overwrite"):
        plan_batch(BatchOptions(input=command[5], model=command[3], output=command[7]))
    assert main([*command, "--overwrite"]) == 0
    assert len(visible(tmp_path)) == 2
    assert not list(tmp_path.glob(".sluice*"))


@pytest.mark.soak
def test_pairs_of_jobs_end_with_one_complete_output(cases: Callable[[str], str], tmp_path: Path) -> None:
    for number in range(size(1, soak=5)):
        directory = tmp_path / str(number)
        directory.mkdir()
        command = [sys.executable, "-m", "sluice", *flags(cases("picky"), directory)]
        jobs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        errors = [job.communicate()[1] for job in jobs]
        codes = [job.returncode for job in jobs]
        assert sorted(codes)[0] == 0
        assert sorted(codes)[1] in (1, 2)
        assert "--overwrite" in errors[codes.index(max(codes))]
        assert len(visible(directory)) == 2
        assert visible(directory)["out-00000-of-00001.csv"].count(b"\n") == 1001
        assert not list(directory.glob(".sluice*"))
