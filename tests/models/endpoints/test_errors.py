"""What a server's refusals mean, by the texts that TF Serving, TensorFlow and gRPC really give."""

from __future__ import annotations

import grpc
import pytest

from sluice.models.endpoints.errors import error_of, is_not_served
from sluice.models.errors import (
    BadInput,
    BatchTooLarge,
    CallError,
    MessageTooLarge,
    ModelFault,
    OutOfMemory,
    Overloaded,
    Refused,
    ServerFault,
    SignatureChanged,
    TimedOut,
    Unavailable,
)

ADDRESS = "models:8500"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("INVALID_ARGUMENT", BadInput),
        ("OUT_OF_RANGE", BadInput),
        ("FAILED_PRECONDITION", ServerFault),
        ("NOT_FOUND", ModelFault),
        ("ALREADY_EXISTS", ModelFault),
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
    about_rows = {BadInput: "why", ModelFault: f"{code}: why"}
    assert str(error) == about_rows.get(kind, f"{ADDRESS}: {code}: why")


def test_every_code_of_grpc_means_something() -> None:
    codes = [code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
    kinds = {type(error_of(code, "", ADDRESS)) for code in codes}
    assert kinds == {BadInput, ModelFault, Overloaded, Unavailable, TimedOut, Refused, ServerFault}


def test_a_code_that_is_not_known_and_no_text() -> None:
    assert str(error_of("HTTP 418", "", ADDRESS)) == f"{ADDRESS}: HTTP 418: "
    assert str(error_of("INVALID_ARGUMENT", "", ADDRESS)) == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "text",
    [
        "SERVER: Received message larger than max (4194371 vs. 4194304)",
        "SERVER: Decompressed message larger than max (4194371 vs. 4194304)",
        "grpc: received message larger than max (4561623 vs. 4194304)",
        "grpc: received message after decompression larger than max (4561623 vs. 4194304)",
        "grpc: received message after decompression larger than max 4194304",
        "grpc: message after decompression larger than max (4561623 vs. 4194304)",
        "gRPC message exceeds maximum size 4194304: 8667657",
        "Compressed gRPC message exceeds maximum size 4194304: 4194305 bytes read",
        "Decompressed gRPC message exceeds maximum size 4194304",
        "413 Request Entity Too Large",
    ],
)
def test_too_many_bytes(text: str) -> None:
    error = error_of("RESOURCE_EXHAUSTED", text, ADDRESS)
    assert type(error) is MessageTooLarge
    assert str(error) == f"{ADDRESS}: RESOURCE_EXHAUSTED: {text}"


def test_too_many_bytes_for_envoy() -> None:
    assert type(error_of("UNKNOWN", "Payload Too Large", ADDRESS)) is MessageTooLarge


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        ("INVALID_ARGUMENT", "Task size 65 is larger than maximum input batch size 64", BatchTooLarge),
        ("INVALID_ARGUMENT", "Task size 65 is larger than maximum batch size 64", BatchTooLarge),
        (
            "RESOURCE_EXHAUSTED",
            "OOM when allocating tensor with shape[8192,4096] and type float on /device:GPU:0",
            OutOfMemory,
        ),
        ("RESOURCE_EXHAUSTED", "Out of memory while trying to allocate 17179869184 bytes.", OutOfMemory),
        ("RESOURCE_EXHAUSTED", "Failed to allocate 4096 bytes for new constant", OutOfMemory),
        ("RESOURCE_EXHAUSTED", "Allocator (GPU_0_bfc) ran out of memory trying to allocate 2.00GiB", OutOfMemory),
    ],
)
def test_too_many_rows(code: str, text: str, kind: type[CallError]) -> None:
    error = error_of(code, text, ADDRESS)
    assert type(error) is kind
    assert str(error) == text


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        ("INVALID_ARGUMENT", "the index 12 is too large for the vocabulary", BadInput),
        ("INVALID_ARGUMENT", "out of memory cells: 3 >= 2", BadInput),
        ("RESOURCE_EXHAUSTED", "quota of 100 calls per minute", Overloaded),
        ("RESOURCE_EXHAUSTED", "request rate is too large", Overloaded),
        ("RESOURCE_EXHAUSTED", "Task size 9 is larger than maximum batch size 8", Overloaded),
        ("INTERNAL", "Received message larger than max (2 vs. 1)", ServerFault),
        ("UNKNOWN", "ValueError: 3 is larger than max (2)", ServerFault),
        ("UNKNOWN", "value too large", ServerFault),
    ],
)
def test_what_only_sounds_too_large(code: str, text: str, kind: type[CallError]) -> None:
    assert type(error_of(code, text, ADDRESS)) is kind


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("INTERNAL", 400, Refused),
        ("UNAUTHENTICATED", 401, Refused),
        ("PERMISSION_DENIED", 403, Refused),
        ("UNIMPLEMENTED", 404, Refused),
        ("UNKNOWN", 301, Refused),
        ("UNKNOWN", 405, Refused),
        ("UNKNOWN", 408, TimedOut),
        ("UNKNOWN", 413, MessageTooLarge),
        ("INTERNAL", 413, MessageTooLarge),
        ("UNAVAILABLE", 429, Overloaded),
        ("UNKNOWN", 500, ServerFault),
        ("UNAVAILABLE", 502, Unavailable),
        ("UNKNOWN", 503, Unavailable),
        ("UNAVAILABLE", 504, TimedOut),
        ("UNKNOWN", 520, ServerFault),
    ],
)
def test_an_answer_of_http_alone(code: str, status: int, kind: type[CallError]) -> None:
    for text in (
        f"Received http2 header with status: {status}",
        f"unexpected HTTP status code received from server: {status} (x); malformed header: missing HTTP content-type",
    ):
        error = error_of(code, text, ADDRESS)
        assert type(error) is kind
        assert str(error) == f"{ADDRESS}: {code}: {text}"


BROKEN = [
    "Received RST_STREAM with error code 2",
    "Stream removed (RST_STREAM (Received RST_STREAM with error code 2))",  # as of grpcio 1.85
    "stream terminated by RST_STREAM with error code: INTERNAL_ERROR",
    "RST_STREAM closed stream. HTTP/2 error code: INTERNAL_ERROR",
    "Stream removed",
    "Socket closed",
    "Transport closed",
    "GOAWAY received",
    "Got goaway [0] err=UNKNOWN:GOAWAY received",
    "recvmsg:Connection reset by peer",
    "sendmsg: Broken pipe",
    "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
    "no healthy upstream",
]


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize("code", ["INTERNAL", "UNKNOWN", "DATA_LOSS", "UNAVAILABLE", "CANCELLED"])
def test_a_connection_that_broke_under_the_call(code: str, text: str) -> None:
    error = error_of(code, text, ADDRESS)
    assert type(error) is Unavailable
    assert str(error) == f"{ADDRESS}: {code}: {text}"


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        ("DEADLINE_EXCEEDED", "Received RST_STREAM with error code 8", TimedOut),
        ("RESOURCE_EXHAUSTED", "Received RST_STREAM with error code 11", Overloaded),
        ("PERMISSION_DENIED", "Received RST_STREAM with error code 12", Refused),
        ("INVALID_ARGUMENT", "Could not parse 'Socket closed' as a number", BadInput),
        ("FAILED_PRECONDITION", "Connection reset", ServerFault),
        ("UNKNOWN", "ConnectionResetError: Connection reset by peer\n\t [[{{node PyFunc}}]]", ServerFault),
        ("INTERNAL", "Graph execution error:\n\nDetected at node Fetch\nNode: 'Fetch'\nSocket closed", ServerFault),
        ("INTERNAL", "Blas GEMM launch failed", ServerFault),
    ],
)
def test_what_only_sounds_like_a_broken_connection(code: str, text: str, kind: type[CallError]) -> None:
    assert type(error_of(code, text, ADDRESS)) is kind


@pytest.mark.parametrize("code", ["FAILED_PRECONDITION", "INVALID_ARGUMENT"])  # the latter is the former over REST
@pytest.mark.parametrize(
    "text",
    [
        "Table not initialized.\n\t [[{{node hash_table_Lookup}}]]",
        "Attempting to use uninitialized value w",
        "Could not find variable dense/bias. This could mean that the variable has been deleted.",
    ],
)
def test_a_model_that_is_not_ready(code: str, text: str) -> None:
    assert type(error_of(code, text, ADDRESS)) is Unavailable


NOT_SERVED = [
    ("NOT_FOUND", "Servable not found for request: Latest(criteo)"),
    ("NOT_FOUND", "Servable not found for request: Specific(criteo, 7)"),
    ("INVALID_ARGUMENT", "Unrecognized servable version label: canary"),
    ("NOT_FOUND", "Could not find any versions of model criteo"),
    ("NOT_FOUND", "Could not find version 7 of model criteo"),
    ("UNAVAILABLE", "Model labels does not init yet."),
]


@pytest.mark.parametrize(("code", "text"), NOT_SERVED)
def test_a_model_that_is_not_served_now(code: str, text: str) -> None:
    error = error_of(code, text, ADDRESS)
    assert type(error) is Unavailable
    assert str(error) == f"{ADDRESS} does not serve the model now: {text}"
    assert is_not_served(text)


def test_a_key_that_a_lookup_does_not_find_may_be_about_the_rows() -> None:
    assert not is_not_served("Key 'x' not found in table")
    assert type(error_of("NOT_FOUND", "Key 'x' not found in table", ADDRESS)) is ModelFault


def test_a_full_queue_asks_for_fewer_calls() -> None:
    text = "The batch scheduling queue to which this task was submitted is full; task size is 512"
    assert type(error_of("UNAVAILABLE", text, ADDRESS)) is Overloaded


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("FAILED_PRECONDITION", 'Serving signature key "serving_default" not found.'),
        ("INVALID_ARGUMENT", 'Serving signature name: "serving_default" not found in signature def'),
        ("INVALID_ARGUMENT", "JSON object: does not have named input: x"),
        ("INVALID_ARGUMENT", "Missing named input: x in 'inputs' object."),
        ("INVALID_ARGUMENT", "input size does not match signature: 1!=2 len({x}) != len({x,y}). Sent extra: {}."),
        ("INVALID_ARGUMENT", "Request inputs do not match required inputs for model `m`. Send extra: {y}."),
        ("INVALID_ARGUMENT", "output tensor alias not found in signature: z Outputs expected to be in the set {y}."),
        ("INVALID_ARGUMENT", "output_filter contains non-existed output names. output_filter: z"),
    ],
)
def test_a_model_whose_signature_is_another_one_now(code: str, text: str) -> None:
    error = error_of(code, text, ADDRESS)
    assert type(error) is SignatureChanged
    assert str(error) == f"{ADDRESS} now serves a model with another signature: {text}; start the job anew"
