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

from sluice.models.errors import UsageError
from sluice.transforms.bigquery import table as bigquery_table

# HOST:PORT or http://HOST:PORT. Our own: google-cloud-bigquery-storage has none, and BIGQUERY_EMULATOR_HOST names the
# REST API, which is served at another port.
EMULATOR_VARIABLE = "BIGQUERY_STORAGE_EMULATOR_HOST"

_PLAIN = "http://"
_GOOGLE = ".googleapis.com"
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


def check_endpoints(endpoint: str | None, storage_endpoint: str | None) -> None:
    """Checks that both APIs are Google's, or neither: tables are made and looked at by one, and rows go by the other.

    Args:
      endpoint: see transforms.bigquery.table.open_client.
      storage_endpoint: see read_client.

    Raises:
      UsageError: one of them is a plain http:// server, and the other is Google's own.
    """
    rest = endpoint or os.environ.get(bigquery_table.EMULATOR_VARIABLE) or ""
    storage = storage_endpoint or _emulator() or ""
    if rest.startswith(_PLAIN) and _is_googles(storage):
        raise UsageError(
            f"tables are looked for at {rest} (--bigquery_endpoint or {bigquery_table.EMULATOR_VARIABLE}), and their "
            "rows would be read from and written to Google's BigQuery: give --bigquery_storage_endpoint too"
        )
    if storage.startswith(_PLAIN) and _is_googles(rest):
        raise UsageError(
            f"rows are read from and written to {storage} (--bigquery_storage_endpoint or {EMULATOR_VARIABLE}), and "
            "their tables would be looked for in Google's BigQuery: give --bigquery_endpoint too"
        )


def _is_googles(endpoint: str) -> bool:
    host = endpoint.partition("://")[2] or endpoint
    return not endpoint or host.partition("/")[0].partition(":")[0].endswith(_GOOGLE)


def _emulator() -> str | None:
    emulator = os.environ.get(EMULATOR_VARIABLE)
    return _PLAIN + emulator.removeprefix(_PLAIN) if emulator else None


def _client(kind: Any, endpoint: str | None) -> Any:
    endpoint = endpoint or _emulator()
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
