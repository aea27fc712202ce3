"""A probe that hangs is given up, and what it wrote is told only where rows are not private."""

import subprocess
import sys
from collections.abc import Sequence

import pytest

from sluice.models.batching.mini_batch import RowFailure
from sluice.models.errors import SluiceError, UsageError
from sluice.models.wording import message
from sluice.pipelines.compare import probe_process
from sluice.pipelines.compare.drive import RowsFailed
from sluice.pipelines.compare.probe import words_of
from sluice.pipelines.compare.probe_process import Probe
from sluice.pipelines.compare.subject import Point

FLAGS = ("--model=m", "--input=i", "--output=o")
OPEN = (
    """print('{"loaded": {"secs": 1, "copy_mb": 1, "rows": 1, "refused": 0, "sample_rows": 1, "batch": 1, """
    """"in_flight": 1}}', flush=True)\n"""
)


def program(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Runs this program instead of the probe."""

    class Popen(subprocess.Popen[str]):
        def __init__(self, command: Sequence[str], **more: object) -> None:
            assert command[1:3] == ["-m", "sluice.pipelines.compare.probe"]
            super().__init__([sys.executable, "-S", "-c", text], **more)  # type: ignore[call-overload]

    monkeypatch.setattr(probe_process.subprocess, "Popen", Popen)


def test_what_hangs_is_given_up_and_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    program(monkeypatch, OPEN + "import sys; sys.stdin.readline(); sys.stdin.readline()")
    limits = iter([600.0, 0.0])
    with Probe(FLAGS, lambda: next(limits, 600.0)) as probe:
        assert probe.loaded().batch == 1
        with pytest.raises(
            SluiceError, match=r"keeping the model busy for 2.0 s has not ended within 0 s; the model or"
        ):
            probe.throughput(Point(), 2.0)
        with pytest.raises(SluiceError, match="has ended"):
            probe.stages(Point())


@pytest.mark.parametrize(("payload", "shown"), [("full", True), ("hash", False), ("none", False)])
def test_the_last_words_of_a_probe_are_told_unless_rows_are_private(
    monkeypatch: pytest.MonkeyPatch, payload: str, shown: bool
) -> None:
    program(monkeypatch, "import sys; sys.exit('no value s3cret')")
    with Probe([*FLAGS, f"--failure_payload={payload}"]) as probe, pytest.raises(SluiceError) as caught:
        probe.loaded()
    assert ("s3cret" in str(caught.value)) is shown and "has ended" in str(caught.value)


ERRORS = {
    "a row that fails": RowsFailed.by(RowFailure("BadInput", message("'{}' is no {kind}", "s3cret", kind="number"))),
    "a row that a model refuses": RowsFailed.by(RowFailure("InvalidArgument", "bad s3cret")),
    "a sample that fails": UsageError(message("no row of the sample has a prediction: {}", "bad s3cret")),
    "any other": SluiceError("the server says s3cret"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_quote_no_row_where_rows_are_private(name: str) -> None:
    assert "s3cret" in words_of(ERRORS[name], False)
    assert words_of(ERRORS[name], True) and "s3cret" not in words_of(ERRORS[name], True)
