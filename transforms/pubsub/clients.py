"""Clients of Google Cloud Pub/Sub, for unary requests of many messages each.

The publisher is the generated client. That of google.cloud.pubsub_v1 makes a future for every message, which costs more
than all the rest of the message's way.
"""

import os
from typing import TypeVar

import grpc
from google.cloud.pubsub_v1 import SubscriberClient
from google.pubsub_v1 import PublisherClient

EMULATOR_VARIABLE = "PUBSUB_EMULATOR_HOST"

# The generated clients set the size limits for the service, and leave gRPC's defaults for the emulator: a pull of 4 MB
# would fail there. They also ping the service every 30 s, which the emulator, a Java server, would treat as an attack.
# https://github.com/grpc/grpc/blob/master/doc/keepalive.md
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # The client soon finds an emulator that was started again.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

_Client = TypeVar("_Client", bound=PublisherClient | SubscriberClient)


def publisher() -> PublisherClient:
    """Returns a client that publishes, to the emulator at PUBSUB_EMULATOR_HOST if that is set.

    Raises:
      google.auth.exceptions.DefaultCredentialsError: there are neither credentials nor an emulator.
    """
    return _client(PublisherClient)


def subscriber() -> SubscriberClient:
    """Returns a client that pulls and acknowledges; see `publisher`."""
    return _client(SubscriberClient)


def close(client: PublisherClient | SubscriberClient) -> None:
    """Closes a client's connection; calls under way fail."""
    client.transport.close()


def _client(kind: type[_Client]) -> _Client:
    host = os.environ.get(EMULATOR_VARIABLE)
    if not host:
        return kind()
    channel = grpc.insecure_channel(host, options=_CHANNEL_OPTIONS)
    return kind(transport=kind.get_transport_class("grpc")(host=host, channel=channel))
