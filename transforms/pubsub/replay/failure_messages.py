"""Failures read from a Pub/Sub subscription."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence

from google.api_core.exceptions import Cancelled, DeadlineExceeded, GoogleAPIError
from google.auth.exceptions import GoogleAuthError
from google.cloud.pubsub_v1 import SubscriberClient

from sluice.models.errors import SluiceError, UsageError
from sluice.transforms.pubsub import clients as pubsub_clients
from sluice.transforms.pubsub.google_subscription import received
from sluice.transforms.pubsub.replay.stored_failure import StoredFailure, parse_failure
from sluice.transforms.pubsub.resources import find_subscription
from sluice.transforms.pubsub.subscription import MAX_REQUEST_IDS, Received, in_requests

_LOG = logging.getLogger(__name__)

_CALL_SECS = 20.0


class FailureMessages:
    """A subscription of the topic that `--failures_topic` published to.

    See `transforms.pubsub.replay.stored_failure.FailureSource`.

    Args:
      until_us: microseconds since the epoch. Messages that were published later are left for another time, so that
        failures of what is fed back do not go round and round.
      idle_secs: reading ends when nothing has come for this long.
      clock: seconds, monotonic.

    Attributes:
      newer: how many messages were left for that reason.
      strangers: how many messages were not failures, and were left.
    """

    def __init__(
        self,
        client: SubscriberClient,
        subscription: str,
        until_us: int,
        idle_secs: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._name = subscription
        self._until_us = until_us
        self._idle_secs = idle_secs
        self._clock = clock
        self._held: dict[str, str] = {}  # by message id, the latest ack id
        self._settled: set[str] = set()
        self._found = False  # a failure
        self.newer = self.strangers = 0

    def chunks(self) -> Iterator[list[StoredFailure]]:
        """Yields the failures of each pull.

        Raises:
          UsageError: the first message is not a failure, so the subscription is of something else.
          SluiceError: Pub/Sub does not answer.
        """
        last = self._clock()
        while (left_secs := self._idle_secs - (self._clock() - last)) > 0:
            failures = list(self._new_failures(left_secs))
            if failures:
                yield failures
                last = self._clock()

    def settle(self, failures: Sequence[StoredFailure]) -> None:
        self._settled.update(failure.message_id for failure in failures)
        self._acknowledge([self._held.pop(failure.message_id) for failure in failures])

    def close(self) -> None:
        """Gives back what is held, so that it comes again at once, and closes the connection."""
        ids, self._held = list(self._held.values()), {}
        try:
            for part in in_requests(ids):
                request = {"subscription": self._name, "ack_ids": part, "ack_deadline_seconds": 0}
                with self._failing("cannot be given back"):
                    self._client.modify_ack_deadline(request=request, timeout=_CALL_SECS)
        except SluiceError as error:
            _LOG.debug("What is left comes again only when its deadline is over: %s", error)
        pubsub_clients.close(self._client)

    def _new_failures(self, secs: float) -> Iterator[StoredFailure]:
        new, again = [], []
        for message in self._pull(secs):
            if message.id in self._settled:  # its acknowledgement came too late, or was lost
                again.append(message.ack_id)
            else:
                new += [] if message.id in self._held else [message]
                self._held[message.id] = message.ack_id
        self._acknowledge(again)
        for message in new:
            if message.publish_time > self._until_us:
                self.newer += 1
            elif (failure := self._parse(message)) is not None:
                yield failure

    def _parse(self, message: Received) -> StoredFailure | None:
        """Returns the failure in a message; None if it holds something else."""
        try:
            failure = parse_failure(message.payload, message.id)
        except SluiceError as error:
            if not self._found:
                raise UsageError(f"--failures {self._name} holds something else than failures: {error}") from error
            self.strangers += 1
            return None
        self._found = True
        return failure

    def _pull(self, secs: float) -> list[Received]:
        # A call that is cut off can also end as a reset of its stream.
        with self._failing("cannot be read"), contextlib.suppress(Cancelled, DeadlineExceeded):
            answer = self._client.pull(
                subscription=self._name, max_messages=MAX_REQUEST_IDS, timeout=min(secs, _CALL_SECS)
            )
            return received(answer)
        return []

    def _acknowledge(self, ack_ids: list[str]) -> None:
        for part in in_requests(ack_ids):
            with self._failing("cannot be acknowledged"):
                self._client.acknowledge(request={"subscription": self._name, "ack_ids": part}, timeout=_CALL_SECS)

    @contextlib.contextmanager
    def _failing(self, problem: str) -> Iterator[None]:
        """Names the subscription and the problem in errors of the service.

        Raises:
          SluiceError: the block raised an error of the service.
        """
        try:
            yield
        except GoogleAPIError as error:
            raise SluiceError(f"{self._name} {problem}: {type(error).__name__}: {error}") from error


def open_messages(subscription: str, topic: str, idle_secs: float) -> FailureMessages:
    """Returns the failures of a subscription that were published before now.

    Args:
      topic: where they will be sent.

    Raises:
      UsageError: the subscription does not exist, cannot be looked up, or subscribes to that topic.
    """
    try:
        client = pubsub_clients.subscriber()
    except GoogleAuthError as error:
        raise UsageError(f"--failures {subscription} cannot be looked up: {error}") from error
    found = find_subscription(client, subscription, "--failures")
    if found is not None and found.topic == topic:
        raise UsageError(f"--failures {subscription} subscribes to --to {topic}: what is sent would come back")
    return FailureMessages(client, subscription, time.time_ns() // 1000, idle_secs)
