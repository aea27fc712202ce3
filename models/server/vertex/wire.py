"""Requests and answers of the service: HTTP, the JSON of Google's protos, and the bodies of errors."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from google.protobuf import json_format

from sluice.models.server.status import CODES, StatusError, invalid

# A message class of google.cloud.aiplatform_v1.types.
Kind = TypeVar("Kind")

JSON = "application/json"
# How a generated client asks for enums as numbers: `%24alt=json%3Benum-encoding%3Dint`.
ALT, ENUMS_AS_NUMBERS = "$alt", "json;enum-encoding=int"


@dataclasses.dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
      path: decoded, without the query.
      query: decoded.
      headers: by lower-case name.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def enums_as_numbers(self) -> bool:
        return self.query.get(ALT) == ENUMS_AS_NUMBERS


@dataclasses.dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


def loads(text: bytes | str, what: str = "Invalid JSON payload received.", strict: bool = True) -> Any:
    """Returns what JSON says.

    Args:
      what: the begin of the error.
      strict: refuses NaN and Infinity, which JSON does not have.

    Raises:
      StatusError: it is not JSON.
    """

    def refuse(word: str) -> NoReturn:
        raise ValueError(f"{word} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse if strict else None)
    except (ValueError, RecursionError) as error:
        raise invalid(f"{what} {error}") from error


def parse(kind: type[Kind], body: bytes) -> Kind:
    """Returns a message from the JSON of a request; unknown fields are refused.

    Raises:
      StatusError: it is not JSON, or not that of the message.
    """
    found = loads(body or b"{}")
    message: Any = kind()
    try:
        json_format.ParseDict(found, kind.pb(message))  # type: ignore[attr-defined]  # proto-plus adds it
    except (json_format.Error, ValueError, TypeError) as error:
        raise invalid(f"Invalid JSON payload received. {error}") from error
    return message


def render(message: Any, request: Request) -> Reply:
    """Returns the answer that holds a message; fields without a value are left out, as the service does."""
    plain = json_format.MessageToDict(type(message).pb(message), use_integers_for_enums=request.enums_as_numbers)
    return Reply(200, json.dumps(plain, ensure_ascii=False).encode())


def render_error(error: StatusError, as_array: bool, headers: Mapping[str, str]) -> Reply:
    """Returns the answer to a request that fails: https://cloud.google.com/apis/design/errors

    Args:
      as_array: in a list, as calls of publisher models answer.
    """
    status = error.http_status
    body: Any = {"error": {"code": status, "message": error.message, "status": error.code}}
    return Reply(status, json.dumps([body] if as_array else body).encode("utf-8", "surrogateescape"), headers)


def check_query(query: Mapping[str, str], fields: frozenset[str]) -> None:
    """Checks that the query has no other parameters than these, and that `$alt` is one that is known.

    Raises:
      StatusError: it has.
    """
    for name in query:
        if name not in fields and name != ALT:
            raise invalid(f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query parameter.')
    if query.get(ALT, "json") not in ("json", ENUMS_AS_NUMBERS):
        raise invalid(f'Invalid value for "{ALT}": {query[ALT]}')


def number_of(code: str) -> int:
    """Returns the number of a status code: google/rpc/code.proto."""
    return CODES.index(code)


def parse_empty(body: bytes) -> None:
    """Checks that a request has no fields.

    Raises:
      StatusError: it has.
    """
    if loads(body or b"{}") != {}:
        raise invalid("Invalid JSON payload received. The request takes no fields.")
