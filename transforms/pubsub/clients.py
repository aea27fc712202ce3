"""Clients of Google Cloud Pub/Sub, for unary requests of many messages each.

What publishes is the generated client: that of google.cloud.pubsub_v1 makes a future of every message, which costs more
than the rest of its way.
"""

import os
from typing import Any

import grpc
from google.cloud.pubsub_v1 import SubscriberClient
from google.pubsub_v1 import PublisherClient

EMULATOR_VARIABLE = "PUBSUB_EMULATOR_HOST"

# What the generated clients set for the service, and leave at gRPC's defaults for the emulator: there, a pull of 4 MB
# would fail. The service is pinged every 30 s as well, which the emulator, a Java server, would take for an attack.
# https://github.com/grpc/grpc/blob/master/doc/keepalive.md
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # An emulator that is started again is found soon.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


def publisher() -> PublisherClient:
    """Returns a client that publishes, of the emulator at PUBSUB_EMULATOR_HOST if that is set.

    Raises:
      google.auth.exceptions.DefaultCredentialsError: there are no credentials, and no emulator.
    """
    return _client(PublisherClient)


def subscriber() -> SubscriberClient:
    """Returns a client that pulls and acknowledges, likewise."""
    return _client(SubscriberClient)


def close(client: Any) -> None:
    """Closes a client's connection; calls under way fail."""
    client.transport.close()


def _client(kind: Any) -> Any:
    host = os.environ.get(EMULATOR_VARIABLE)
    if not host:
        return kind()
    channel = grpc.insecure_channel(host, options=_CHANNEL_OPTIONS)
    return kind(transport=kind.get_transport_class("grpc")(host=host, channel=channel))
