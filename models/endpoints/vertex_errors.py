"""The errors of Vertex AI's online endpoints: an answer -> a CallError.

Its own errors are google.rpc.Status in JSON: https://cloud.google.com/apis/design/errors. An error of the model's
container is TF Serving's: the message of such a status, or the body itself.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from sluice.models.endpoints.errors import error_of, with_wait
from sluice.models.endpoints.http_calls import Answer
from sluice.models.endpoints.rest import cut_text, serving_text
from sluice.models.error_table import BY_NAME, has_any, http_status
from sluice.models.errors import BatchTooLarge, CallError, MessageTooLarge, Refused, Unavailable

# What the service writes around an error of a container. https://github.com/googleapis/python-aiplatform/issues/190
_HANDLED = re.compile(r"Failed to handle request\..* with error: `?(.*?)`?\.?", re.DOTALL)
# Texts of requests and answers over the limit of the endpoint, in lower case. Their code is INVALID_ARGUMENT or
# FAILED_PRECONDITION.
_REQUEST_TOO_LARGE = ("request payload size exceeds", "the request size (")
_ANSWER_TOO_LARGE = ("response size too large", "response payload size exceeds", "the response size (")


class Said(NamedTuple):
    """What an answer says that is an error.

    Attributes:
      code: gRPC's name.
      by_container: the model's container says it, and not Vertex AI.
    """

    code: str
    text: str
    by_container: bool


def call_error(answer: Answer, address: str) -> CallError:
    """Returns the error that an answer stands for, with the wait that it asks for."""
    return with_wait(_error(answer, status_of(answer), address), answer.headers)


def _error(answer: Answer, said: Said, address: str) -> CallError:
    if answer.status == 413 or has_any(said.text, _REQUEST_TOO_LARGE):
        return MessageTooLarge(f"{address}: HTTP {answer.status}: {said.text}")
    if has_any(said.text, _ANSWER_TOO_LARGE):
        return BatchTooLarge(f"{address}: the answer is too large: {said.text}")
    if said.code == "NOT_FOUND" and not said.by_container:  # undeployed, or deleted
        return Unavailable(f"{address} does not serve the endpoint now: {said.text}")
    if said.code == "PERMISSION_DENIED" and not said.by_container:
        return Refused(f"{address}: {said.text}; calls need the permission aiplatform.endpoints.predict")
    return error_of(said.code, said.text, address)


def status_of(answer: Answer) -> Said:
    """Returns what an answer says that is an error."""
    code = http_status(answer.status).code
    status = _status(answer.data)
    if status is None:
        text = serving_text(answer.data)
        return Said(code, f"HTTP {answer.status}: {cut_text(answer.data)}" if text is None else text, text is not None)
    told, text = status.get("status"), str(status.get("message", ""))
    if found := _HANDLED.fullmatch(text):
        text = found[1]
    inner = serving_text(text.encode("utf-8", "surrogatepass"))
    return Said(told if told in BY_NAME else code, text if inner is None else inner, inner is not None)


def _status(body: bytes) -> Mapping[str, Any] | None:
    """Returns the status in a body; some of the service's methods put it into a list."""
    try:
        found = json.loads(body.decode(errors="replace"))
    except ValueError:
        return None
    if isinstance(found, list) and found:
        found = found[0]
    status = found.get("error") if isinstance(found, dict) else None
    return status if isinstance(status, dict) else None
