"""Two batch jobs that were started with one --output."""

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from sluice.models.errors import UsageError
from sluice.pipelines.cli import main
from sluice.pipelines.dataflow.runner import beam_options, make_pipeline
from sluice.pipelines.graph import build_batch
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.plan.batch_job import plan_batch
from sluice.transforms.core.beam_files import match_files, open_binary
from sluice.transforms.files.claim import claim
from sluice.transforms.files.write import Target
from tests.support.gcs_proxy import strict_emulator
from tests.support.processes import Forked
from tests.support.servers import Gcs, beam_uses
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


def run_on(gcs: Gcs, arguments: list[str]) -> int:
    """Runs a command in a fork; its gs:// is the emulator's."""
    with beam_uses(gcs):
        return main(arguments)


def run_pair(job: Callable[[str], Forked], errors: Path) -> None:
    """Runs two jobs at the same time: one succeeds, and the other says why it stopped.

    Args:
      job: starts one; its standard error goes to the file.
      errors: a directory for these files.
    """
    files = [errors / f"{number}.txt" for number in range(2)]
    jobs = [job(str(file)) for file in files]
    codes = [each.wait() for each in jobs]
    said = [file.read_text() for file in files]
    assert sorted(codes) in ([0, 1], [0, 2]), said
    assert "--overwrite" in said[codes.index(max(codes))]


@pytest.mark.soak
def test_pairs_of_jobs_end_with_one_complete_output(cases: Callable[[str], str], tmp_path: Path) -> None:
    for number in range(size(1, soak=5)):
        directory, errors = tmp_path / str(number), tmp_path / f"errors{number}"
        directory.mkdir()
        errors.mkdir()
        command = flags(cases("picky"), directory)
        run_pair(lambda file: Forked(main, command, errors=file), errors)  # noqa: B023
        assert len(visible(directory)) == 2
        assert visible(directory)["out-00000-of-00001.csv"].count(b"\n") == 1001
        assert not list(directory.glob(".sluice*"))


@pytest.mark.soak
def test_pairs_of_jobs_on_gcs_end_with_one_complete_output(
    gcs: Gcs, cases: Callable[[str], str], tmp_path: Path
) -> None:
    command = flags(cases("picky"), tmp_path)
    with strict_emulator(gcs) as strict:
        for number in range(size(1, soak=5)):
            errors = tmp_path / str(number)
            errors.mkdir()
            directory = strict.path(uuid.uuid4().hex)
            command[-1] = f"{directory}/out.csv"
            run_pair(lambda file: Forked(run_on, strict, command, errors=file), errors)
            found = {file.path.removeprefix(f"{directory}/"): file for file in match_files(f"{directory}/**")}
            assert found.keys() == {"out-00000-of-00001.csv", "out.failures-00000-of-00001.jsonl"}
            with open_binary(found["out-00000-of-00001.csv"].path) as file:
                assert file.read().count(b"\n") == 1001
