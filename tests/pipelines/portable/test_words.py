"""Errors of gRPC in words."""

import grpc
import pytest

from sluice.models.errors import SluiceError
from sluice.pipelines.portable.words import grpc_words, in_words
from tests.support.engines.failed_call import FailedCall


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FailedCall(grpc.StatusCode.UNAVAILABLE, "refused"), "it does not answer, or has ended (UNAVAILABLE: refused)"),
        (FailedCall(grpc.StatusCode.UNAVAILABLE, None), "it does not answer, or has ended (UNAVAILABLE)"),
        (FailedCall(grpc.StatusCode.INTERNAL, "a\n\tat b.C(D.java:1)\n"), "it failed (INTERNAL: a)"),
        (FailedCall(grpc.StatusCode.INTERNAL, "\n\tat b.C(D.java:1)\ncause"), "it failed (INTERNAL: cause)"),
    ],
)
def test_a_code_becomes_words(error: FailedCall, words: str) -> None:
    assert grpc_words(error) == words
    told = in_words(error)
    assert isinstance(told, SluiceError) and str(told) == f"the job server failed: {words}"
    assert told.__cause__ is error


def test_other_errors_stay_as_they_are() -> None:
    error = RuntimeError("no")
    assert in_words(error) is error
    assert str(in_words(grpc.FutureTimeoutError())) == "the job server does not answer"


@pytest.mark.parametrize(
    "text",
    [
        'Traceback (most recent call last):\n  File "x.py", line 1, in f\n    raise rpc_error\ngrpc.RpcError\n',
        "java.lang.X: y\nCaused by: io.grpc.StatusRuntimeException: CANCELLED: client\n\tat a.B(C.java:1)",
    ],
)
def test_a_worker_that_died_is_told(text: str) -> None:
    assert str(in_words(RuntimeError(text))).startswith("a worker has died, or cannot be reached any more")
