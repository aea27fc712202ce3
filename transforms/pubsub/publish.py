"""Publishes messages to a Pub/Sub topic in whole requests, sent by threads while rows go on; `flush` awaits them all.

The publisher of google.cloud.pubsub_v1 makes a future for every message, and so costs ten times as much a message.
https://cloud.google.com/pubsub/docs/reference/rpc/google.pubsub.v1#publishrequest
"""

import concurrent.futures
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple

import numpy as np
from google.pubsub_v1 import PublisherClient
from google.pubsub_v1.types import PublishRequest

from sluice.transforms.pubsub import clients as pubsub_clients
from sluice.transforms.pubsub.publish_sender import PublishOptions, Refused, Sender, Tag, publish_backoff

# https://cloud.google.com/pubsub/quotas#resource_limits
MAX_REQUEST_MESSAGES = 1000
MAX_REQUEST_BYTES = 10_000_000
# Sizes are estimates, so a request is sent before it comes near the limit.
_FULL_REQUEST_BYTES = 9_000_000

# A request is answered after some 10 ms. Each ordering key needs a request of its own, hence this many at a time.
_THREADS = 16
_MAX_PENDING_BYTES = 4 * _FULL_REQUEST_BYTES
_MAX_PENDING_REQUESTS = 4 * _THREADS


class Messages(NamedTuple):
    """Messages to be published.

    Attributes:
      sizes: int64 [messages]: about how many bytes each takes in a request, never too few.
      keys: ordering keys; None if no message has one.
    """

    data: Sequence[bytes]
    attributes: Sequence[Mapping[str, str]]
    sizes: np.ndarray
    keys: Sequence[str] | None = None

    def at(self, rows: Sequence[int]) -> "Messages":
        """Returns the messages of these rows."""
        keys = None if self.keys is None else [self.keys[row] for row in rows]
        data, attributes = [self.data[row] for row in rows], [self.attributes[row] for row in rows]
        return Messages(data, attributes, self.sizes[rows], keys)


class _Request(Generic[Tag]):
    """A request that is being filled. All its messages have the same ordering key, as the service demands."""

    def __init__(self, topic: str) -> None:
        self.body = PublishRequest.pb()(topic=topic)
        self.tags: list[Tag] = []
        self.size = 0

    def room(self, sizes: np.ndarray) -> int:
        """Returns how many messages of these sizes still fit; at least one if the request is empty."""
        fitting = int(np.searchsorted(np.cumsum(sizes), _FULL_REQUEST_BYTES - self.size, side="right"))
        return min(MAX_REQUEST_MESSAGES - len(self.tags), max(fitting, not self.tags))

    def add(self, messages: Messages, tags: Sequence[Tag], key: str) -> None:
        add = self.body.messages.add
        for data, attributes in zip(messages.data, messages.attributes, strict=True):
            add(data=data, ordering_key=key).attributes.update(attributes)  # twice as fast as passing them to `add`
        self.tags += tags
        self.size += int(messages.sizes.sum())


class Publisher(Generic[Tag]):
    """Publishes messages, at least once each. For one thread.

    A bundle adds its messages and flushes. `drop` discards what a failed bundle has left behind.

    Args:
      open_client: returns the client that publishes.
      clock: seconds, monotonic.
      pause: `(event, seconds) -> whether the event is set`; the event ends the pause.
      backoff: returns the seconds to wait between attempts at one request.
    """

    def __init__(
        self,
        topic: str,
        options: PublishOptions,
        open_client: Callable[[], PublisherClient] = pubsub_clients.publisher,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[threading.Event, float], bool] = threading.Event.wait,
        backoff: Callable[[], Iterator[float]] = publish_backoff,
    ) -> None:
        self._topic = topic
        self._client = open_client()
        self._sender = Sender(topic, self._client, options, clock, pause, backoff)
        self._threads = concurrent.futures.ThreadPoolExecutor(_THREADS, "sluice-publish")
        self._reset()

    def add(self, messages: Messages, tags: Sequence[Tag]) -> None:
        """Adds messages, sends requests that are full, and waits if too many are under way.

        Args:
          tags: what identifies each message if the service rejects it.

        Raises:
          SluiceError: earlier messages could not be published; see `flush`.
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
        """Sends all that was added, in requests that need not be full. Raises as `add` does."""
        for key in list(self._open):
            self._send(key)

    def refused(self) -> list[Refused[Tag]]:
        """Returns the messages that the service has rejected so far, each of them once. Raises as `add` does."""
        self._collect()
        taken = self._refused.copy()
        self._refused.clear()
        return taken

    def flush(self) -> list[Refused[Tag]]:
        """Waits until every message is published or rejected; returns the rejected ones that `refused` did not.

        Raises:
          SluiceError: messages could not be published: the service was away for too long, or accepts none at all. What
            is left is dropped.
        """
        self.send()
        concurrent.futures.wait(self._pending, return_when=concurrent.futures.FIRST_EXCEPTION)
        return self.refused()

    def drop(self) -> None:
        """Gives up messages that are not published yet. Those already sent may arrive."""
        self._dropped.set()
        self._reset()

    def close(self) -> None:
        """Drops what is left and closes the connection."""
        self.drop()
        self._threads.shutdown(wait=False)
        pubsub_clients.close(self._client)

    def _reset(self) -> None:
        self._open: dict[str, _Request[Tag]] = {}  # by ordering key
        self._open_bytes = self._pending_bytes = 0
        self._pending: dict[concurrent.futures.Future[list[Refused[Tag]]], int] = {}  # by request, its size
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
        """Collects the answers that have come."""
        for future in [future for future in self._pending if future.done()]:
            self._pending_bytes -= self._pending.pop(future)
            try:
                self._refused += future.result()
            except BaseException:
                self.drop()
                raise
