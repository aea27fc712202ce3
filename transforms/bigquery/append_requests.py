"""Rows on their way into a stream: which go into one request, and how far each request has got.

Limits: https://cloud.google.com/bigquery/quotas#write-api-limits
"""

import collections
from collections.abc import Collection, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

# Of several rows. BigQuery asks for more than 1 MB; a gRPC server with default settings accepts 4 MB.
REQUEST_BYTES = 3_000_000

Source = TypeVar("Source")


class Part(NamedTuple, Generic[Source]):
    """Rows of one batch.

    Attributes:
      rows: int64 [rows]: their places in the batch that was appended.
    """

    batch: pa.RecordBatch
    source: Source
    rows: np.ndarray

    def slice(self, start: int, stop: int) -> "Part[Source]":
        return Part(self.batch.slice(start, stop - start), self.source, self.rows[start:stop])

    def among(self, places: Collection[int], start: int) -> np.ndarray:
        """Returns bool [rows]: which rows are at these places, if the first of them is at `start`."""
        return np.isin(np.arange(start, start + len(self.rows)), list(places))


class Request(NamedTuple, Generic[Source]):
    """Rows that are sent together."""

    parts: list[Part[Source]]
    rows: int
    data: bytes

    @staticmethod
    def of(parts: list[Part[Source]]) -> "Request[Source]":
        batch = parts[0].batch if len(parts) == 1 else pa.concat_batches([part.batch for part in parts])
        return Request(parts, batch.num_rows, batch.serialize().to_pybytes())

    def find(self, places: Collection[int]) -> Iterator[tuple[int, Source, int]]:
        """Yields (place in the request, source, row of its batch) for the rows at these places."""
        for start, part in self._parts():
            for row in np.flatnonzero(part.among(places, start)):
                yield start + int(row), part.source, int(part.rows[row])

    def without(self, places: Collection[int]) -> "list[Request[Source]]":
        """Returns the request without the rows at these places; an empty list if none is left."""
        kept = []
        for start, part in self._parts():
            good = ~part.among(places, start)
            if good.any():
                kept.append(Part(part.batch.filter(pa.array(good)), part.source, part.rows[good]))
        return [Request.of(kept)] if kept else []

    def halves(self) -> "list[Request[Source]]":
        """Returns two requests with half of the rows each."""
        middle = self.rows // 2
        first, second = [], []
        for start, part in self._parts():
            cut = min(max(middle - start, 0), len(part.rows))
            first += [part.slice(0, cut)] if cut else []
            second += [part.slice(cut, len(part.rows))] if cut < len(part.rows) else []
        return [Request.of(first), Request.of(second)]

    def _parts(self) -> Iterator[tuple[int, Part[Source]]]:
        """Yields the parts, and the place in the request of each one's first row."""
        start = 0
        for part in self.parts:
            yield start, part
            start += len(part.rows)


class RequestQueue(Generic[Source]):
    """The requests that are not done yet, in the order of the stream; each is waiting or sent.

        waiting -> sent      `send`: the connection has it, and owes an answer
        sent    -> done      `accept`: its rows are in the stream, and it leaves the queue
        sent    -> waiting   `replace`, `take_back`: it is to be sent again, as it is or as others

    A connection answers in the order of sending. If a request goes back to waiting while its connection lives, the
    answer to its first sending is still to come: that answer is superseded, and comes before those to `sent`.
    """

    def __init__(self) -> None:
        self._sent: collections.deque[Request[Source]] = collections.deque()
        self._waiting: collections.deque[Request[Source]] = collections.deque()
        self._superseded = 0

    def __len__(self) -> int:
        return len(self._sent) + len(self._waiting)

    @property
    def first(self) -> Request[Source]:
        """The request whose rows are next in the stream."""
        return (self._sent or self._waiting)[0]

    @property
    def is_idle(self) -> bool:
        """Whether the connection owes no answer."""
        return not self._sent and not self._superseded

    def add(self, request: Request[Source]) -> None:
        """Puts a request at the end, waiting."""
        self._waiting.append(request)

    def send(self, most: int) -> Iterator[tuple[Request[Source], int]]:
        """Yields requests to send, each with the number of rows ahead of it, until `most` are sent."""
        while self._waiting and len(self._sent) < most:
            ahead = sum(request.rows for request in self._sent)
            self._sent.append(self._waiting.popleft())
            yield self._sent[-1], ahead

    def skip_superseded(self) -> bool:
        """Takes note of an answer; returns whether it is superseded, and so to be ignored."""
        if not self._superseded:
            return False
        self._superseded -= 1
        return True

    def accept(self) -> Request[Source]:
        """Removes the first request, whose rows are in the stream, and returns it.

        It may be waiting: the connection can end with the word that its rows are in already.
        """
        return (self._sent or self._waiting).popleft()

    def replace(self, requests: Sequence[Request[Source]], in_place: bool) -> None:
        """Has these sent instead of the first, which was refused.

        Args:
          in_place: they keep its place in the stream, so that all behind it go back to waiting: their offsets are
            refused too. Else they go to the end.
        """
        self._sent.popleft()
        if in_place:
            self._superseded += len(self._sent)
            self._unsend()
            self._waiting.extendleft(reversed(requests))
        else:
            self._waiting.extend(requests)

    def take_back(self) -> None:
        """Has all requests wait: the connection is gone, and owes no answer any more."""
        self._unsend()
        self._superseded = 0

    def clear(self) -> None:
        """Forgets all requests; the connection must be idle, or gone."""
        self._waiting.clear()

    def _unsend(self) -> None:
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()


def cut_part(part: Part[Source]) -> Iterator[Part[Source]]:
    """Yields pieces that go into one request each; none for no rows."""
    rows = len(part.rows)
    if rows > 1 and part.batch.nbytes > REQUEST_BYTES:
        yield from cut_part(part.slice(0, rows // 2))
        yield from cut_part(part.slice(rows // 2, rows))
    elif rows:
        yield part
