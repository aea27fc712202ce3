"""A subscription of Google Cloud Pub/Sub, read by unary pulls, several of them open at a time.

Streaming pull would be the service's own way. The client library's subscriber, which uses it, costs four times as much
a message, and from Google's emulator streaming pull brings a quarter as many messages a second.
"""

import logging
import threading
from collections.abc import Sequence

import grpc
from google.api_core import exceptions
from google.cloud.pubsub_v1 import SubscriberClient
from google.protobuf.message import Message
from google.pubsub_v1 import types

from sluice.transforms.pubsub.subscription import Received, SubscriptionLost

_LOG = logging.getLogger(__name__)

# The service answers an empty pull by itself after a while; Google's emulator after some 29 s.
_PULL_SECS = 90.0
_CALL_SECS = 20.0
_GONE = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)


class GoogleSubscription:
    """See `transforms.pubsub.subscription.Subscription`.

    Args:
      name: projects/P/subscriptions/S
      temporary: it was made for this job, and is deleted at the end.
    """

    def __init__(self, client: SubscriberClient, name: str, temporary: bool = False) -> None:
        self.name = name
        self._client = client
        self._temporary = temporary
        self._routing = [("x-goog-request-params", f"subscription={name}")]
        self._lock = threading.Lock()
        self._open: set[grpc.Future] = set()
        self._interrupted = False

    def pull(self, max_messages: int) -> list[Received]:
        request = types.PullRequest(subscription=self.name, max_messages=max_messages)
        with self._lock:
            if self._interrupted:
                return []
            call = self._client.transport.pull.future(request, timeout=_PULL_SECS, metadata=self._routing)
            self._open.add(call)
        try:
            return received(call.result())
        except grpc.FutureCancelledError:
            return []
        except grpc.RpcError as error:
            return self._failed(error)
        finally:
            with self._lock:
                self._open.discard(call)

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        self._client.acknowledge(subscription=self.name, ack_ids=list(ack_ids), timeout=_CALL_SECS)

    def extend(self, ack_ids: Sequence[str], secs: int) -> None:
        self._client.modify_ack_deadline(
            subscription=self.name, ack_ids=list(ack_ids), ack_deadline_seconds=secs, timeout=_CALL_SECS
        )

    def interrupt(self) -> None:
        with self._lock:
            self._interrupted = True
            calls = list(self._open)
        for call in calls:
            call.cancel()

    def close(self, left: int = 0) -> None:
        if self._temporary and left:
            _LOG.warning(
                "%s, made for this job, is kept for a day, with %d or more messages that are not scored; go on with "
                "--input_subscription %s, or delete it",
                self.name,
                left,
                self.name,
            )
        elif self._temporary:
            try:
                self._client.delete_subscription(subscription=self.name, timeout=_CALL_SECS)
            except exceptions.GoogleAPICallError as error:
                _LOG.warning("%s, made for this job, could not be deleted: %s", self.name, error)
        self._client.close()

    def _failed(self, error: grpc.RpcError) -> list[Received]:
        code = error.code()
        if self._interrupted or code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED):
            return []
        if code in _GONE:
            raise SubscriptionLost(f"{self.name} cannot be read: {code.name}: {error.details()}") from error
        raise error


def received(response: types.PullResponse) -> list[Received]:
    """Returns the messages of an answer to a pull."""
    return [_received(each) for each in types.PullResponse.pb(response).received_messages]


def _received(delivered: Message) -> Received:
    message = delivered.message
    time = message.publish_time
    return Received(
        delivered.ack_id,
        message.data,
        message.message_id,
        time.seconds * 1_000_000 + time.nanos // 1000,
        dict(message.attributes) if message.attributes else {},
        message.ordering_key,
        delivered.delivery_attempt,
    )
