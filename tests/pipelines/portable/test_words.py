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
