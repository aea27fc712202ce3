"""What the errors of Vertex AI's endpoints mean."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from sluice.models.endpoints.errors import retry_after_secs
from sluice.models.endpoints.http_calls import Answer
from sluice.models.endpoints.vertex_errors import Said, call_error, status_of
from sluice.models.errors import (
    BadInput,
    BatchTooLarge,
    CallError,
    MessageTooLarge,
    ModelFault,
    Overloaded,
    Refused,
    ServerFault,
    SignatureChanged,
    TimedOut,
    Unavailable,
)


def said(status: int, code: str, message: str) -> Any:
    """The body of an error as the service gives it."""
    return {"error": {"code": status, "message": message, "status": code}}


def container(text: str) -> str:
    """The body of an error as TF Serving gives it."""
    return json.dumps({"error": text})


def answer(status: int, body: Any, **headers: str) -> Answer:
    data = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, data)


HANDLED = "Failed to handle request. endpoint_id: 1, deployed_model_id: 2 with error: `{}`"


@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        (400, said(400, "INVALID_ARGUMENT", "instances are odd"), BadInput, "^instances are odd$"),
        (400, [said(400, "INVALID_ARGUMENT", "in a list")], BadInput, "^in a list$"),
        (400, said(400, "INVALID_ARGUMENT", container("x must not be negative")), BadInput, "^x must not be negative$"),
        (400, container("x must not be negative"), BadInput, "^x must not be negative$"),
        (400, said(400, "INVALID_ARGUMENT", HANDLED.format("bad row")), BadInput, "^bad row$"),
        (400, said(400, "INVALID_ARGUMENT", HANDLED.format(container("bad row"))), BadInput, "^bad row$"),
        (
            400,
            said(400, "INVALID_ARGUMENT", container('Serving signature key "a" not found.')),
            SignatureChanged,
            "start the job anew",
        ),
        (
            400,
            said(400, "INVALID_ARGUMENT", "Request payload size exceeds the limit: 1572864 bytes."),
            MessageTooLarge,
            "h:443: HTTP 400: Request payload",
        ),
        (
            400,
            said(400, "FAILED_PRECONDITION", "The request size (2097219 bytes) exceeds 1.500MB limit."),
            MessageTooLarge,
            "2097219",
        ),
        (
            400,
            said(400, "INVALID_ARGUMENT", HANDLED.format("Response size too large. At least 9 bytes; max is 8.")),
            BatchTooLarge,
            "the answer is too large: Response size too large. At least 9 bytes; max is 8",
        ),
        (413, "<html>Too  Large", MessageTooLarge, "HTTP 413: HTTP 413: <html>Too Large$"),
        (401, said(401, "UNAUTHENTICATED", "no token"), Refused, "h:443: UNAUTHENTICATED: no token"),
        (
            403,
            said(403, "PERMISSION_DENIED", "not you"),
            Refused,
            "not you; calls need .* aiplatform.endpoints.predict",
        ),
        (403, said(403, "PERMISSION_DENIED", container("an op's")), Refused, "PERMISSION_DENIED: an op's$"),
        (
            404,
            said(404, "NOT_FOUND", "The Endpoint x is gone"),
            Unavailable,
            "does not serve the endpoint now: The End",
        ),
        (
            404,
            said(404, "NOT_FOUND", container("Table holds no key 7")),
            ModelFault,
            "^NOT_FOUND: Table holds no key 7$",
        ),
        (429, said(429, "RESOURCE_EXHAUSTED", "quota"), Overloaded, "h:443: RESOURCE_EXHAUSTED: quota"),
        (429, b"", Overloaded, "HTTP 429: $"),
        (499, said(499, "CANCELLED", "gone"), Unavailable, "CANCELLED: gone"),
        (500, said(500, "INTERNAL", "a bug"), ServerFault, "h:443: INTERNAL: a bug"),
        (500, said(500, "NO_SUCH_CODE", "a bug"), ServerFault, "INTERNAL: a bug"),
        (501, said(501, "UNIMPLEMENTED", "no such method"), Refused, "UNIMPLEMENTED: no such method"),
        (502, "<html>bad gateway", Unavailable, "UNAVAILABLE: HTTP 502: <html>bad gateway"),
        (503, said(503, "UNAVAILABLE", "again"), Unavailable, "UNAVAILABLE: again"),
        (504, said(504, "DEADLINE_EXCEEDED", "slow"), TimedOut, "DEADLINE_EXCEEDED: slow"),
        (302, b"", Refused, "UNIMPLEMENTED: HTTP 302"),
    ],
)
def test_what_an_answer_means(status: int, body: Any, kind: type[CallError], text: str) -> None:
    error = call_error(answer(status, body), "h:443")
    assert type(error) is kind
    assert re.search(text, str(error)), str(error)


@pytest.mark.parametrize("body", ["[]", "null", "[3]", '{"error": 3}', '{"error": ["a"]}', "\xff", "{"])
def test_a_body_that_is_no_status(body: str) -> None:
    found = status_of(answer(500, body))
    assert (found.code, found.by_container) == ("INTERNAL", False)
    assert found.text.startswith("HTTP 500: ")


def test_a_status_without_a_message() -> None:
    assert status_of(answer(503, {"error": {}})) == Said("UNAVAILABLE", "", False)


@pytest.mark.parametrize(
    ("text", "secs"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("0", 0.0),
        ("-1", 0.0),
        ("nan", 0.0),
        ("inf", 0.0),
        ("1e9", 86_400.0),
        ("soon", 0.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0),
    ],
)
def test_retry_after(text: str, secs: float) -> None:
    assert retry_after_secs({"retry-after": text}) == secs
    assert retry_after_secs({}) == 0.0


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_says_when_to_come_again_is_overloaded(status: int) -> None:
    error = call_error(answer(status, b"", retry_after="7"), "h:443")
    assert type(error) is Overloaded
    assert error.retry_after_secs == 7.0


def test_other_errors_have_no_wait() -> None:
    assert not hasattr(call_error(answer(400, "{}", retry_after="7"), "h:443"), "retry_after_secs")
    late = call_error(answer(504, b"", retry_after="7"), "h:443")
    assert isinstance(late, TimedOut) and late.retry_after_secs == 7.0
