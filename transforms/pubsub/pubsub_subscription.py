"""A Pub/Sub subscription as `message_source` reads it: unary pulls, which several threads may have open.

Streaming pull would be the service's own way; with the emulator it gives a tenth of the messages a second.
"""

import logging
import threading
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
from google.api_core import exceptions
from google.pubsub_v1 import types

from sluice.models.errors import UsageError
from sluice.transforms.pubsub.subscription import Received, SubscriptionLost

_LOG = logging.getLogger(__name__)

# The service answers an empty pull after a while by itself, Google's emulator after some 29 s.
_PULL_SECS = 90.0
_CALL_SECS = 20.0
# Of a subscription that is made for one job: the service removes it after so many days, should the job not come to it.
_EXPIRES_DAYS = 1
_GONE = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)


class PubsubSubscription:
    """See `transforms.pubsub.subscription.Subscription`.

    Args:
      client: a `google.cloud.pubsub_v1.SubscriberClient`.
      name: projects/P/subscriptions/S
      temporary: it was made for this job, and is removed in the end.
    """

    def __init__(self, client: Any, name: str, temporary: bool = False) -> None:
        self.name = name
        self._client = client
        self._temporary = temporary
        self._routing = [("x-goog-request-params", f"subscription={name}")]
        self._lock = threading.Lock()
        self._open: set[Any] = set()
        self._interrupted = False

    def pull(self, max_messages: int) -> list[Received]:
        request = types.PullRequest(subscription=self.name, max_messages=max_messages)
        with self._lock:
            if self._interrupted:
                return []
            call = self._client.transport.pull.future(request, timeout=_PULL_SECS, metadata=self._routing)
            self._open.add(call)
        try:
            response = types.PullResponse.pb(call.result())
        except grpc.FutureCancelledError:
            return []
        except grpc.RpcError as error:
            return self._failed(error)
        finally:
            with self._lock:
                self._open.discard(call)
        return list(_received(response))

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
                "%s, made for this job, is kept for a day, with %d messages or more that are not scored; go on with "
                "--input_subscription %s, or delete it",
                self.name,
                left,
                self.name,
            )
        elif self._temporary:
            try:
                self._client.delete_subscription(subscription=self.name, timeout=_CALL_SECS)
            except exceptions.GoogleAPICallError as error:
                _LOG.warning("%s, made for this job, is left behind: %s", self.name, error)
        self._client.close()

    def _failed(self, error: grpc.RpcError) -> list[Received]:
        code = error.code()
        if self._interrupted or code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED):
            return []
        if code in _GONE:
            raise SubscriptionLost(f"{self.name} cannot be read: {code.name}: {error.details()}") from error
        raise error


def _received(response: Any) -> Iterator[Received]:
    for received in response.received_messages:
        message = received.message
        time = message.publish_time
        yield Received(
            received.ack_id,
            message.data,
            message.message_id,
            time.seconds * 1_000_000 + time.nanos // 1000,
            dict(message.attributes) if message.attributes else {},
            message.ordering_key,
            received.delivery_attempt,
        )


def check_subscription(client: Any, name: str, written: Sequence[str]) -> int:
    """Returns after how many deliveries the subscription gives up a message; 0 if it never does, or it is not known.

    Args:
      written: topics that the job writes to.

    Raises:
      UsageError: there is no such subscription, or it is of a topic that the job writes to.
    """
    try:
        found = client.get_subscription(subscription=name, timeout=_CALL_SECS)
    except exceptions.NotFound as error:
        raise UsageError(
            f"--input_subscription {name} does not exist; create it, or give --input_topic, which makes its own"
        ) from error
    except (exceptions.PermissionDenied, exceptions.Unauthenticated) as error:
        _LOG.warning("%s could not be looked at, which needs pubsub.subscriptions.get: %s", name, error.message)
        return 0
    except exceptions.InvalidArgument as error:
        raise UsageError(f"--input_subscription {name}: {error.message}") from error
    except exceptions.GoogleAPICallError as error:
        raise UsageError(f"Pub/Sub does not answer for {name}: {error.message}") from error
    if found.topic in written:
        raise UsageError(
            f"--input_subscription {name} is of {found.topic}, which the job writes to: it would feed itself"
        )
    return int(found.dead_letter_policy.max_delivery_attempts)


def make_subscription(client: Any, topic: str) -> str:
    """Makes a subscription of a topic for one job; returns its name.

    Raises:
      UsageError: there is no such topic, or it may not be subscribed to.
    """
    project = topic.split("/")[1]
    name = f"projects/{project}/subscriptions/sluice-{uuid.uuid4().hex[:12]}"
    expires = {"ttl": {"seconds": _EXPIRES_DAYS * 86_400}}
    request = types.Subscription(name=name, topic=topic, expiration_policy=expires)
    try:
        client.create_subscription(request=request, timeout=_CALL_SECS)
    except exceptions.NotFound as error:
        raise UsageError(f"--input_topic {topic} does not exist") from error
    except exceptions.GoogleAPICallError as error:
        raise UsageError(f"--input_topic {topic} cannot be subscribed to: {error.message}") from error
    return name
