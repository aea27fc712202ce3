"""The rows that wait for a call, in one queue for each kind of rows that can go together."""

import collections
import math
from collections.abc import Hashable

from sluice.models.batching.ceiling import Ceiling
from sluice.models.batching.options import SchedulerOptions
from sluice.models.batching.tickets import Segment, Ticket


class Waiting:
    """Rows that wait. Holds no lock: the scheduler's guards it."""

    def __init__(self, options: SchedulerOptions) -> None:
        self._delay_secs = options.max_batch_delay_ms / 1000
        self._queues: dict[Hashable, collections.deque[Segment]] = {}

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, ticket: Ticket) -> None:
        """Appends all rows of a request to their queue."""
        self._queues.setdefault(ticket.key, collections.deque()).append(Segment(ticket, 0, ticket.rows))

    def drop(self, ticket: Ticket) -> int:
        """Removes the waiting rows of a request; returns their number."""
        queue = self._queues.get(ticket.key, collections.deque())
        dropped = [segment for segment in queue if segment.ticket is ticket]
        for segment in dropped:
            queue.remove(segment)
        if not queue:
            self._queues.pop(ticket.key, None)
        return sum(segment.rows for segment in dropped)

    def tickets(self) -> list[Ticket]:
        """Returns the requests that have waiting rows."""
        return list(dict.fromkeys(segment.ticket for queue in self._queues.values() for segment in queue))

    def take(self, ceiling: Ceiling, now: float) -> list[Segment]:
        """Removes and returns rows up to the ceiling from the queue that has waited longest; [] if nothing is due."""
        due = [key for key, queue in self._queues.items() if self._due_in(queue, ceiling, now) <= 0]
        if not due:
            return []
        key = min(due, key=lambda each: self._queues[each][0].ticket.submitted)
        queue = self._queues[key]
        segments: list[Segment] = []
        rows, size = 0, 0.0
        while queue and rows < ceiling.rows:
            head = queue[0]
            room = _room(head, ceiling.rows - rows, ceiling.bytes - size) or (0 if segments else 1)
            if room < head.rows and rows * 2 >= ceiling.rows:
                break  # splitting a request copies both parts: not worth it for a batch that is half full
            if room <= 0:
                break
            segments.append(Segment(head.ticket, head.start, head.start + min(room, head.rows)))
            rows, size = rows + segments[-1].rows, size + segments[-1].bytes
            head.start += segments[-1].rows
            if not head.rows:
                queue.popleft()
        if not queue:
            del self._queues[key]
        return segments

    def due_in(self, ceiling: Ceiling, now: float) -> float | None:
        """Returns the seconds until some rows may go, 0 or less if they may now; None if none wait."""
        return min((self._due_in(queue, ceiling, now) for queue in self._queues.values()), default=None)

    def _due_in(self, queue: collections.deque[Segment], ceiling: Ceiling, now: float) -> float:
        """Returns the seconds until these rows may go: 0 or less without a delay, or once they fill a call."""
        if not self._delay_secs:
            return -math.inf
        if sum(segment.rows for segment in queue) >= ceiling.rows:
            return 0.0
        if sum(segment.bytes for segment in queue) >= ceiling.bytes:
            return 0.0
        return queue[0].ticket.submitted + self._delay_secs - now


def _room(head: Segment, rows: int, size: float) -> int:
    """Returns how many rows of the segment fit into this many rows and bytes."""
    row_bytes = max(1.0, head.ticket.bytes / head.ticket.rows)
    return max(0, min(rows, int(size / row_bytes)))
