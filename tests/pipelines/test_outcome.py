"""The words of a job's error, as runners pass it on."""

import re
from collections.abc import Callable
from typing import NoReturn

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from google.api_core.exceptions import ServiceUnavailable

from sluice.models.errors import (
    BadInput,
    InputChanged,
    Overloaded,
    Refused,
    ServerFault,
    SluiceError,
    TimedOut,
    TooManyFailures,
    Unavailable,
    UsageError,
)
from sluice.models.wording import WITHHELD
from sluice.pipelines.outcome import (
    EXIT_FAILED,
    EXIT_FAILURES,
    EXIT_INTERRUPTED,
    EXIT_OK,
    error_text,
    is_about_server,
    reason,
    tell_end,
    tell_end_of_stream,
)

# As a runner whose workers are processes passes on what was raised there.
BEHIND = """\
Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1498, in apache_beam.runners.common.DoFnRunner.process
  File "/app/transforms/publish_sender.py", line 144, in _final
    raise SluiceError(text) from error
{} [while running 'WriteTopic/Send-ptransform-17']

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "apache_beam/runners/worker/sdk_worker.py", line 313, in _execute
    response = task()
{} [while running 'WriteTopic/Send-ptransform-17']
"""


# As Flink's runner passes on an error of its own, and Prism one of a worker that has no step.
JAVA = """\
java.util.concurrent.CompletionException: Job failed
\tat java.base/java.util.concurrent.CompletableFuture.get(CompletableFuture.java:331)
\t... 3 more
Caused by: java.io.IOException: Insufficient number of network buffers
\tat org.apache.flink.Network$1.lambda(Network.java:7)
\t... 12 more
"""
PRISM = "bundle inst004 failed: Traceback:\nValueError: no\n)"


def passed_on(line: str) -> RuntimeError:
    return RuntimeError(BEHIND.format(line, line))


@pytest.mark.parametrize(
    "error,text",
    [
        (ValueError("no"), "no"),
        (ValueError("no [while running 'Predict/Score']"), "no"),
        (ValueError("  no\n"), "no"),
        (ValueError("one\ntwo\n\n  \n [while running 'Predict/Score']"), "two"),
        (ValueError("the row [1, 2] is short [while running 'A [while running B]']"), "the row [1, 2] is short"),
        (passed_on("sluice.models.errors.TimedOut: after 60 s"), "sluice.models.errors.TimedOut: after 60 s"),
        (RuntimeError("Traceback:\nfirst\nlast"), "last"),
        (KeyError("x"), "'x'"),
        (ValueError(), "ValueError"),
        (ValueError("\n \n"), "ValueError"),
        (ValueError(" [while running 'Predict/Score']"), "ValueError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (RuntimeError(JAVA), "java.io.IOException: Insufficient number of network buffers"),
        (RuntimeError(PRISM), "ValueError: no"),
        (RuntimeError("Pipeline job-1 failed in state FAILED: no luck"), "no luck"),
    ],
)
def test_reason(error: BaseException, text: str) -> None:
    assert reason(error) == text


def test_an_errors_text_begins_with_its_kind() -> None:
    assert error_text(TooManyFailures("3 of 4 rows")) == "TooManyFailures 3 of 4 rows"
    assert error_text(KeyboardInterrupt()) == "KeyboardInterrupt "


@pytest.mark.parametrize("kind", [Unavailable, Overloaded, TimedOut, Refused])
def test_errors_that_are_about_the_server(kind: type[Exception]) -> None:
    assert is_about_server(kind("x"))
    assert is_about_server(kind(""))
    assert is_about_server(passed_on(f"sluice.models.errors.{kind.__name__}: x"))
    assert is_about_server(RuntimeError(f"sluice.models.errors.{kind.__name__} [while running 'Predict/Score']"))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        BadInput("x"),
        ServerFault("x"),
        UsageError("x"),
        passed_on("sluice.models.errors.BadOutput: x"),
        ServiceUnavailable("the topic's service"),
        passed_on("google.api_core.exceptions.ServiceUnavailable: 503 Service Unavailable"),
        ConnectionRefusedError(111, "Connection Refused"),
        SluiceError("projects/p/topics/t takes no messages: 503 Unavailable"),
        SluiceError("Refused"),
    ],
)
def test_errors_that_are_not(error: BaseException) -> None:
    assert not is_about_server(error)


def unreachable(element: str) -> NoReturn:
    raise Unavailable(f"{element} does not answer")


def unpublished(element: str) -> NoReturn:
    raise SluiceError(f"{element} takes no messages") from ServiceUnavailable("try later")


class NoText(Exception):
    """Beam cannot make another one that says the step too."""

    def __init__(self) -> None:
        super().__init__(503, "try later")


def unnamed(element: str) -> NoReturn:
    raise NoText


@pytest.mark.parametrize(
    "fn,kind,about_server,text",
    [
        (unreachable, Unavailable, True, "S does not answer"),
        (unpublished, SluiceError, False, "S takes no messages"),
        (unnamed, RuntimeError, False, r".*NoText: \(503, 'try later'\)"),
    ],
)
def test_what_beams_runner_makes_of_an_error(
    fn: Callable[[str], NoReturn], kind: type[Exception], about_server: bool, text: str
) -> None:
    pipeline = beam.Pipeline(runner=FnApiRunner())
    pipeline | beam.Create(["S"]) | "Step" >> beam.Map(fn)
    with pytest.raises(kind, match="while running 'Step'") as error:
        pipeline.run().wait_until_finish()
    assert is_about_server(error.value) == about_server
    assert re.fullmatch(text, reason(error.value))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("x\nsluice.models.errors.ServerFault: bad value Jane [while running 'Predict']"), False),
        (RuntimeError("x\nsluice.models.errors.TooManyFailures: model m has never answered: bad value Jane"), False),
        (TooManyFailures("3 of 8 rows failed (37.5%)"), True),
        (InputChanged("in.csv changed while the job read it: it is not there any more"), True),
        (RuntimeError("x\nsluice.models.errors.ModelNotFound: --model m: there is no saved_model.pb"), True),
        (ValueError("Could not convert 'Jane'"), False),
    ],
)
def test_words_that_may_quote_a_row_are_withheld(error: Exception, told: bool) -> None:
    text = reason(error, private=True)
    assert text == (reason(error) if told else f"{type(error).__name__}: {WITHHELD}")


ENDS = [
    (None, EXIT_OK, "", ""),
    (
        KeyboardInterrupt(),
        EXIT_INTERRUPTED,
        "sluice: interrupted; no output\n",
        "sluice: interrupted; messages that were not acknowledged come again\n",
    ),
    (
        TooManyFailures("5 of 7 rows failed"),
        EXIT_FAILURES,
        "sluice: 5 of 7 rows failed\n",
        "sluice: the job ends, and acknowledged nothing of this: 5 of 7 rows failed\n",
    ),
    (
        RuntimeError("no slots"),
        EXIT_FAILED,
        "sluice: the job failed; no output: no slots (--verbose shows where)\n",
        "sluice: the job failed; messages that were not acknowledged come again: no slots (--verbose shows where)\n",
    ),
]


@pytest.mark.parametrize(("error", "code", "batch", "stream"), ENDS)
def test_the_end_of_a_job_is_told_and_has_its_exit_code(
    error: BaseException | None, code: int, batch: str, stream: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tell_end(error, "no output", private=False) == code
    assert capsys.readouterr().err == batch
    assert tell_end_of_stream(error, private=False) == code
    assert capsys.readouterr().err == stream


@pytest.mark.parametrize("private", [False, True])
def test_the_end_of_any_job_has_its_traceback_in_the_log(private: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The line says that --verbose shows it. It has the texts of errors, which may quote rows."""
    error = RuntimeError("no slots")
    with caplog.at_level("DEBUG", "sluice"):
        tell_end_of_stream(error, private)
    shown = [record for record in caplog.records if record.exc_info]
    assert [record.exc_info[1] for record in shown if record.exc_info] == ([] if private else [error])
