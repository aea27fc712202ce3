"""What a server's refusals mean, by the texts that TF Serving, TensorFlow and gRPC really give."""

from __future__ import annotations

import grpc
import pytest

from models.errors import (
    BadInput,
    BatchTooLarge,
    CallError,
    Overloaded,
    Refused,
    ServerFault,
    TimedOut,
    Unavailable,
)
from models.serving_errors import error_of, is_not_served

ADDRESS = "models:8500"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("INVALID_ARGUMENT", BadInput),
        ("OUT_OF_RANGE", BadInput),
        ("FAILED_PRECONDITION", BadInput),
        ("NOT_FOUND", BadInput),
        ("ALREADY_EXISTS", BadInput),
        ("RESOURCE_EXHAUSTED", Overloaded),
        ("UNAVAILABLE", Unavailable),
        ("CANCELLED", Unavailable),
        ("ABORTED", Unavailable),
        ("DEADLINE_EXCEEDED", TimedOut),
        ("PERMISSION_DENIED", Refused),
        ("UNAUTHENTICATED", Refused),
        ("UNIMPLEMENTED", Refused),
        ("INTERNAL", ServerFault),
        ("UNKNOWN", ServerFault),
        ("DATA_LOSS", ServerFault),
    ],
)
def test_codes(code: str, kind: type[CallError]) -> None:
    error = error_of(code, "why", ADDRESS)
    assert type(error) is kind
    assert str(error) == ("why" if kind is BadInput else f"{ADDRESS}: {code}: why")


def test_every_code_of_grpc_means_something() -> None:
    codes = [code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
    kinds = {type(error_of(code, "", ADDRESS)) for code in codes}
    assert kinds == {BadInput, Overloaded, Unavailable, TimedOut, Refused, ServerFault}


def test_a_code_that_is_not_known_and_no_text() -> None:
    assert str(error_of("HTTP 418", "", ADDRESS)) == f"{ADDRESS}: HTTP 418: "
    assert str(error_of("INVALID_ARGUMENT", "", ADDRESS)) == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("INVALID_ARGUMENT", "Task size 65 is larger than maximum input batch size 64"),
        ("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max (4194371 vs. 4194304)"),
        ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (4561623 vs. 4194304)"),
        ("RESOURCE_EXHAUSTED", "gRPC message exceeds maximum size 4194304: 8667657"),
        ("RESOURCE_EXHAUSTED", "OOM when allocating tensor with shape[8192,4096] and type float on /device:GPU:0"),
        ("RESOURCE_EXHAUSTED", "Out of memory while trying to allocate 17179869184 bytes."),
        ("RESOURCE_EXHAUSTED", "413 Request Entity Too Large"),
    ],
)
def test_too_large(code: str, text: str) -> None:
    error = error_of(code, text, ADDRESS)
    assert type(error) is BatchTooLarge
    assert str(error) == text


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        ("INVALID_ARGUMENT", "the index 12 is too large for the vocabulary", BadInput),
        ("RESOURCE_EXHAUSTED", "quota of 100 calls per minute", Overloaded),
        ("INTERNAL", "Received message larger than max (2 vs. 1)", ServerFault),
    ],
)
def test_what_only_sounds_too_large(code: str, text: str, kind: type[CallError]) -> None:
    assert type(error_of(code, text, ADDRESS)) is kind


NOT_SERVED = [
    ("NOT_FOUND", "Servable not found for request: Latest(criteo)"),
    ("NOT_FOUND", "Servable not found for request: Specific(criteo, 7)"),
    ("INVALID_ARGUMENT", "Unrecognized servable version label: canary"),
    ("NOT_FOUND", "Could not find any versions of model criteo"),
    ("NOT_FOUND", "Could not find version 7 of model criteo"),
]


@pytest.mark.parametrize(("code", "text"), NOT_SERVED)
def test_a_model_that_is_not_served_now(code: str, text: str) -> None:
    error = error_of(code, text, ADDRESS)
    assert type(error) is Unavailable
    assert str(error) == f"{ADDRESS} does not serve the model now: {text}"
    assert is_not_served(text)


def test_a_key_that_a_lookup_does_not_find_is_about_the_rows() -> None:
    assert not is_not_served("Key 'x' not found in table")
    assert type(error_of("NOT_FOUND", "Key 'x' not found in table", ADDRESS)) is BadInput


def test_a_full_queue_asks_for_fewer_calls() -> None:
    text = "The batch scheduling queue to which this task was submitted is full; task size is 512"
    assert type(error_of("UNAVAILABLE", text, ADDRESS)) is Overloaded


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("FAILED_PRECONDITION", 'Serving signature key "serving_default" not found.'),
        ("INVALID_ARGUMENT", "input size does not match signature: 1!=2 len({x}) != len({x,y}). Sent extra: {}."),
        ("INVALID_ARGUMENT", "Request inputs do not match required inputs for model `m`. Send extra: {y}."),
        ("INVALID_ARGUMENT", "output tensor alias not found in signature: z Outputs expected to be in the set {y}."),
        ("INVALID_ARGUMENT", "output_filter contains non-existed output names. output_filter: z"),
    ],
)
def test_a_model_whose_signature_is_another_one_now(code: str, text: str) -> None:
    error = error_of(code, text, ADDRESS)
    assert type(error) is Refused
    assert str(error) == f"{ADDRESS} serves a model of another signature now: {text}; start the job anew"
