"""Messages to a Pub/Sub topic: whole requests, sent on threads while rows go on, all of them awaited by `flush`.

https://cloud.google.com/pubsub/docs/reference/rpc/google.pubsub.v1#publishrequest
"""

import concurrent.futures
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple

import numpy as np
from google.pubsub_v1.types import PublishRequest

from sluice.transforms.pubsub import clients as pubsub_clients
from sluice.transforms.pubsub.publish_sender import PublishOptions, Refused, Sender, Tag

# https://cloud.google.com/pubsub/quotas#resource_limits
MAX_REQUEST_MESSAGES = 1000
MAX_REQUEST_BYTES = 10_000_000
# Sizes are counted, and a request is sent before it comes near the limit.
_FULL_REQUEST_BYTES = 9_000_000

# A request is some 10 ms away from its answer. An ordering key needs a request of its own, hence so many at a time.
_THREADS = 16
_MAX_PENDING_BYTES = 4 * _FULL_REQUEST_BYTES
_MAX_PENDING_REQUESTS = 4 * _THREADS


class Messages(NamedTuple):
    """Messages to be published.

    Attributes:
      sizes: int64 [messages]: about how many bytes each takes in a request, never fewer than it does.
      keys: ordering keys; None where no message has one.
    """

    data: Sequence[bytes]
    attributes: Sequence[Mapping[str, str]]
    sizes: np.ndarray
    keys: Sequence[str] | None = None

    def at(self, rows: Sequence[int]) -> "Messages":
        """Returns some of the messages."""
        keys = None if self.keys is None else [self.keys[row] for row in rows]
        data, attributes = [self.data[row] for row in rows], [self.attributes[row] for row in rows]
        return Messages(data, attributes, self.sizes[rows], keys)


class _Request(Generic[Tag]):
    """A request that is being filled. All its messages have one ordering key, as the service demands."""

    def __init__(self, topic: str) -> None:
        self.body = PublishRequest.pb()(topic=topic)
        self.tags: list[Tag] = []
        self.size = 0

    def room(self, sizes: np.ndarray) -> int:
        """Returns how many messages of these sizes still fit; of an empty request, one at least."""
        fitting = int(np.searchsorted(np.cumsum(sizes), _FULL_REQUEST_BYTES - self.size, side="right"))
        return min(MAX_REQUEST_MESSAGES - len(self.tags), max(fitting, not self.tags))

    def add(self, messages: Messages, tags: Sequence[Tag], key: str) -> None:
        add = self.body.messages.add
        for data, attributes in zip(messages.data, messages.attributes, strict=True):
            add(data=data, ordering_key=key).attributes.update(attributes)  # twice as fast as to give them to `add`
        self.tags += tags
        self.size += int(messages.sizes.sum())


class Publisher(Generic[Tag]):
    """Publishes messages, at least once each. For one thread.

    A bundle adds its messages and flushes; what a bundle that failed has left behind is dropped.

    Args:
      open_client: returns what publishes: google.pubsub_v1.PublisherClient.
      clock: seconds, monotonic.
      pause: `(event, seconds) -> whether the event is set`, which ends the pause.
      uniform: random, in [0, 1).
    """

    def __init__(
        self,
        topic: str,
        options: PublishOptions,
        open_client: Callable[[], Any] = pubsub_clients.publisher,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[threading.Event, float], bool] = threading.Event.wait,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._topic = topic
        self._client = open_client()
        self._sender = Sender(topic, self._client, options, clock, pause, uniform)
        self._threads = concurrent.futures.ThreadPoolExecutor(_THREADS, "sluice-publish")
        self._reset()

    def add(self, messages: Messages, tags: Sequence[Tag]) -> None:
        """Takes messages, sends what fills a request, and waits where too much is under way.

        Args:
          tags: what each message is named by, if it is refused.

        Raises:
          SluiceError: messages of before could not be published; see `flush`.
        """
        if messages.keys is None:
            self._add(messages, tags, "")
            return
        rows_by_key: dict[str, list[int]] = {}
        for row, key in enumerate(messages.keys):
            rows_by_key.setdefault(key, []).append(row)
        for key, rows in rows_by_key.items():
            self._add(messages.at(rows), [tags[row] for row in rows], key)

    def send(self) -> None:
        """Sends what has been added, be it a full request or not. Raises as `add` does."""
        for key in list(self._open):
            self._send(key)

    def refused(self) -> list[Refused[Tag]]:
        """Returns the messages that the service is known by now not to take; each is given once. Raises as `add`."""
        self._collect()
        taken = self._refused.copy()
        self._refused.clear()
        return taken

    def flush(self) -> list[Refused[Tag]]:
        """Waits until every message is published or refused; returns those refused that `refused` has not given.

        Raises:
          SluiceError: messages could not be published: the service was away for too long, or takes none at all. What
            is left is dropped.
        """
        self.send()
        concurrent.futures.wait(self._pending, return_when=concurrent.futures.FIRST_EXCEPTION)
        return self.refused()

    def drop(self) -> None:
        """Gives up what is not published yet. What is on its way may arrive."""
        self._dropped.set()
        self._reset()

    def close(self) -> None:
        """Drops what is left, and closes the connection."""
        self.drop()
        self._threads.shutdown(wait=False)
        pubsub_clients.close(self._client)

    def _reset(self) -> None:
        self._open: dict[str, _Request[Tag]] = {}  # by ordering key
        self._open_bytes = self._pending_bytes = 0
        self._pending: dict[concurrent.futures.Future[list[Refused[Tag]]], int] = {}  # to their sizes
        self._refused: list[Refused[Tag]] = []
        self._dropped = threading.Event()

    def _add(self, messages: Messages, tags: Sequence[Tag], key: str) -> None:
        data, attributes, sizes, _ = messages
        start = 0
        while start < len(tags):
            if key not in self._open:
                self._open[key] = _Request(self._topic)
            request = self._open[key]
            stop = start + request.room(sizes[start : start + MAX_REQUEST_MESSAGES])
            part = Messages(data[start:stop], attributes[start:stop], sizes[start:stop])
            self._open_bytes -= request.size
            request.add(part, tags[start:stop], key)
            self._open_bytes += request.size
            if stop < len(tags) or len(request.tags) == MAX_REQUEST_MESSAGES:
                self._send(key)
            start = stop
        if self._open_bytes > _FULL_REQUEST_BYTES:  # of many keys
            self.send()

    def _send(self, key: str) -> None:
        request = self._open.pop(key)
        self._open_bytes -= request.size
        self._collect()
        while self._pending_bytes > _MAX_PENDING_BYTES or len(self._pending) > _MAX_PENDING_REQUESTS:
            concurrent.futures.wait(self._pending, return_when=concurrent.futures.FIRST_COMPLETED)
            self._collect()
        future = self._threads.submit(self._sender.send, request.body, request.tags, self._dropped)
        self._pending[future] = request.size
        self._pending_bytes += request.size

    def _collect(self) -> None:
        """Takes the answers that are there."""
        for future in [future for future in self._pending if future.done()]:
            self._pending_bytes -= self._pending.pop(future)
            try:
                self._refused += future.result()
            except BaseException:
                self.drop()
                raise
