"""Clients of BigQuery: of its REST API, and of the reading and the writing half of its Storage API, which is gRPC.

Those of the Storage API are the generated ones, which repeat a call only as their caller says.
https://cloud.google.com/bigquery/docs/reference/storage/rpc
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import grpc
from google.api_core.exceptions import Forbidden, GoogleAPICallError, ResourceExhausted, RetryError
from google.api_core.retry import Retry, if_exception_type
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1.services.big_query_read import BigQueryReadClient
from google.cloud.bigquery_storage_v1.services.big_query_write import BigQueryWriteClient

from sluice.models.errors import SluiceError, UsageError
from sluice.transforms.bigquery.asked import BY_ARGUMENTS, Asked
from sluice.transforms.core.transient import TRANSIENT_ERRORS

# google-cloud-bigquery's own: http://HOST:PORT of the REST API.
EMULATOR_VARIABLE = "BIGQUERY_EMULATOR_HOST"
# HOST:PORT or http://HOST:PORT of the Storage API, which emulators serve at another port. This variable is Sluice's:
# google-cloud-bigquery-storage has none.
STORAGE_EMULATOR_VARIABLE = "BIGQUERY_STORAGE_EMULATOR_HOST"

# What the REST API says of an error that may pass: https://cloud.google.com/bigquery/docs/error-messages
TRANSIENT_REASONS = frozenset(("backendError", "internalError", "rateLimitExceeded"))

_PLAIN = "http://"
_GOOGLE = ".googleapis.com"
_UNLIMITED = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
# A client that only reads notices that the server is gone only by pings. Google is pinged as often as by its own
# writers; another server might take that for an attack.
# https://github.com/grpc/grpc/blob/master/doc/keepalive.md
_SERVICE_PINGS = (("grpc.keepalive_time_ms", 60_000), ("grpc.keepalive_timeout_ms", 60_000))
_PLAIN_OPTIONS = (
    *_UNLIMITED,
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A server that restarts is found soon.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
_FIRST_PAUSE_SECS, _LAST_PAUSE_SECS = 0.2, 10.0
STORAGE_CALL_SECS = 120.0
_REMEDIES = {
    Forbidden: "; roles/bigquery.dataEditor allows it",
    ResourceExhausted: "; --write_method file_loads makes no streams, or ask Google for more of the quota",
}

Result = TypeVar("Result")
StorageClient = TypeVar("StorageClient", BigQueryReadClient, BigQueryWriteClient)


def open_client(project: str, endpoint: str | None = None) -> bigquery.Client:
    """Returns a client of the REST API, or of the emulator at BIGQUERY_EMULATOR_HOST if that is set.

    Args:
      endpoint: the URL of another server. An http:// server needs no credentials and is sent none.

    Raises:
      UsageError: there are no credentials.
    """
    endpoint = endpoint or os.environ.get(EMULATOR_VARIABLE)
    is_plain = endpoint is not None and endpoint.startswith(_PLAIN)
    with _needs_credentials():
        return bigquery.Client(
            project,
            credentials=AnonymousCredentials() if is_plain else None,
            client_options={"api_endpoint": endpoint} if endpoint else None,
        )


def call_options(retry_secs: float, request_secs: float = 60.0) -> dict[str, Any]:
    """Returns arguments for a call of a REST client: how long it is repeated, and how long one request may take."""
    return {"retry": bigquery.DEFAULT_RETRY.with_timeout(retry_secs), "timeout": request_secs}


def read_client(endpoint: str | None = None) -> BigQueryReadClient:
    """Returns a client that reads, from the emulator at BIGQUERY_STORAGE_EMULATOR_HOST if that is set.

    Args:
      endpoint: another server: HOST:PORT, to which Google's credentials are sent over TLS, or http://HOST:PORT, which
        needs no credentials and is sent none.

    Raises:
      UsageError: there are no credentials.
    """
    return _storage_client(BigQueryReadClient, endpoint)


def write_client(endpoint: str | None = None) -> BigQueryWriteClient:
    """Returns a client that writes, likewise."""
    return _storage_client(BigQueryWriteClient, endpoint)


def close(client: BigQueryReadClient | BigQueryWriteClient) -> None:
    """Closes a client's connection; calls under way fail."""
    client.transport.close()


def storage_retry(retry_secs: float, passing: Callable[[Exception], bool] | None = None) -> Retry:
    """Returns how a call of the Storage API is repeated.

    Args:
      passing: whether an error may pass; None: transient.TRANSIENT_ERRORS may.
    """
    passing = passing or if_exception_type(*TRANSIENT_ERRORS)
    return Retry(passing, initial=_FIRST_PAUSE_SECS, maximum=_LAST_PAUSE_SECS, timeout=retry_secs)


def call_storage(what: str, method: Callable[..., Result], retry_secs: float, **request: object) -> Result:
    """Returns what a method of a Storage API client answers; the call is repeated for `retry_secs`.

    `retry` is not left to the method, which would count `timeout` from the first of all tries.

    Args:
      what: what the error says has happened.

    Raises:
      SluiceError: the call failed.
    """
    with storage_errors(what):
        return storage_retry(retry_secs)(method)(**request, retry=None, timeout=STORAGE_CALL_SECS)


@contextlib.contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Raises errors of the Storage API as SluiceError: what happened, BigQuery's reason, and the remedy."""
    try:
        yield
    except (GoogleAPICallError, RetryError) as error:
        cause = error.cause if isinstance(error, RetryError) and error.cause else error
        remedy = next((text for kind, text in _REMEDIES.items() if isinstance(cause, kind)), "")
        raise SluiceError(f"{what}: {type(cause).__name__}: {getattr(cause, 'message', cause)}{remedy}") from error


def check_endpoints(endpoint: str | None, storage_endpoint: str | None, asked: Asked = BY_ARGUMENTS) -> None:
    """Checks that both APIs are Google's or neither is: one makes and checks tables, the other carries their rows.

    Args:
      endpoint: see open_client.
      storage_endpoint: see read_client.
      asked: BY_ARGUMENTS in a pipeline of one's own, BY_FLAGS in a command.

    Raises:
      UsageError: one of them is a plain http:// server, and the other is Google's own.
    """
    rest = endpoint or os.environ.get(EMULATOR_VARIABLE) or ""
    storage = storage_endpoint or _storage_emulator() or ""
    if rest.startswith(_PLAIN) and _is_googles(storage):
        raise UsageError(
            f"tables are looked for at {rest} ({asked.endpoint} or {EMULATOR_VARIABLE}), and their rows would be "
            f"read from and written to Google's BigQuery: give {asked.storage_endpoint} too"
        )
    if storage.startswith(_PLAIN) and _is_googles(rest):
        raise UsageError(
            f"rows are read from and written to {storage} ({asked.storage_endpoint} or "
            f"{STORAGE_EMULATOR_VARIABLE}), and their tables would be looked for in Google's BigQuery: give "
            f"{asked.endpoint} too"
        )


def _is_googles(endpoint: str) -> bool:
    host = endpoint.partition("://")[2] or endpoint
    return not endpoint or host.partition("/")[0].partition(":")[0].endswith(_GOOGLE)


def storage_endpoint(endpoint: str | None = None) -> str | None:
    """Returns the server that a client of the Storage API goes to; None: Google's."""
    return endpoint or _storage_emulator()


def _storage_emulator() -> str | None:
    emulator = os.environ.get(STORAGE_EMULATOR_VARIABLE)
    return _PLAIN + emulator.removeprefix(_PLAIN) if emulator else None


def _storage_client(kind: type[StorageClient], endpoint: str | None) -> StorageClient:
    endpoint = storage_endpoint(endpoint)
    transport = kind.get_transport_class("grpc")
    if endpoint and endpoint.startswith(_PLAIN):
        host = endpoint.removeprefix(_PLAIN).rstrip("/")
        return kind(transport=transport(host=host, channel=grpc.insecure_channel(host, options=_PLAIN_OPTIONS)))
    with _needs_credentials():
        return kind(
            transport=functools.partial(transport, channel=functools.partial(_tls_channel, transport.create_channel)),
            client_options={"api_endpoint": endpoint.removeprefix("https://").rstrip("/")} if endpoint else None,
        )


def _tls_channel(
    create: Callable[..., grpc.Channel], host: str, options: Sequence[tuple[str, object]] = (), **others: object
) -> grpc.Channel:
    return create(host, options=[*options, *_SERVICE_PINGS], **others)


@contextlib.contextmanager
def _needs_credentials() -> Iterator[None]:
    try:
        yield
    except DefaultCredentialsError as error:
        raise UsageError(
            f"BigQuery needs credentials: {error}; `gcloud auth application-default login` gets you some"
        ) from error
