"""Clients of BigQuery's Storage API, which speaks gRPC: of its half that reads and of that which writes.

They are the generated ones, whose calls are repeated only as their caller says.
https://cloud.google.com/bigquery/docs/reference/storage/rpc
"""

import functools
import os
from typing import Any

import grpc
from google.auth.exceptions import DefaultCredentialsError
from google.cloud.bigquery_storage_v1.services.big_query_read import BigQueryReadClient
from google.cloud.bigquery_storage_v1.services.big_query_write import BigQueryWriteClient

from models.errors import UsageError

# HOST:PORT or http://HOST:PORT. Our own: google-cloud-bigquery-storage has none, and BIGQUERY_EMULATOR_HOST names the
# REST API, which is served at another port.
EMULATOR_VARIABLE = "BIGQUERY_STORAGE_EMULATOR_HOST"

_PLAIN = "http://"
_UNLIMITED = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
# Who only reads does not notice that the other side is gone, unless it pings. The service is pinged as often as by
# Google's own writers; others might take that for an attack.
# https://github.com/grpc/grpc/blob/master/doc/keepalive.md
_SERVICE_PINGS = (("grpc.keepalive_time_ms", 60_000), ("grpc.keepalive_timeout_ms", 60_000))
_PLAIN_OPTIONS = (
    *_UNLIMITED,
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A server that is started again is found soon.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


def read_client(endpoint: str | None = None) -> BigQueryReadClient:
    """Returns a client that reads, of the emulator at BIGQUERY_STORAGE_EMULATOR_HOST if that is set.

    Args:
      endpoint: of another server: HOST:PORT, to which Google's credentials are sent over TLS, or http://HOST:PORT, to
        which none are sent, and which needs none.

    Raises:
      UsageError: there are no credentials.
    """
    return _client(BigQueryReadClient, endpoint)


def write_client(endpoint: str | None = None) -> BigQueryWriteClient:
    """Returns a client that writes, likewise."""
    return _client(BigQueryWriteClient, endpoint)


def close(client: Any) -> None:
    """Closes a client's connection; calls under way fail."""
    client.transport.close()


def _client(kind: Any, endpoint: str | None) -> Any:
    emulator = os.environ.get(EMULATOR_VARIABLE)
    if not endpoint and emulator:
        endpoint = _PLAIN + emulator.removeprefix(_PLAIN)
    transport = kind.get_transport_class("grpc")
    if endpoint and endpoint.startswith(_PLAIN):
        host = endpoint.removeprefix(_PLAIN).rstrip("/")
        return kind(transport=transport(host=host, channel=grpc.insecure_channel(host, options=_PLAIN_OPTIONS)))
    try:
        return kind(
            transport=functools.partial(transport, channel=functools.partial(_tls_channel, transport)),
            client_options={"api_endpoint": endpoint.removeprefix("https://").rstrip("/")} if endpoint else None,
        )
    except DefaultCredentialsError as error:
        raise UsageError(
            f"BigQuery needs credentials: {error}; `gcloud auth application-default login` gives you some"
        ) from error


def _tls_channel(transport: Any, host: str, options: Any = (), **others: Any) -> grpc.Channel:
    return transport.create_channel(host, options=[*options, *_SERVICE_PINGS], **others)
