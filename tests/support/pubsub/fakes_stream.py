"""Small fakes of what a streaming job reads and reports."""

import dataclasses
import threading
from collections.abc import Callable, Sequence

from sluice.pipelines.progress.stream_stats import StreamFigures
from sluice.transforms.pubsub.source_parts import Stats
from sluice.transforms.pubsub.subscription import Received
from tests.support.fakes import PATIENCE_SECS

FIGURES = StreamFigures(
    seconds=3725.04,
    messages=1_234_567,
    predictions=1_234_500,
    failures=67,
    messages_per_second=1999.5678,
    latency_p50_ms=48.12345,
    latency_p99_ms=1250.6,
    buffered=300,
    in_work=4000,
    batch_size=512.4,
    bundles=999,
    bundle_secs=31.4159,
    segments=2,
    restarts=2,
    rpc_retries=12,
    throttled_seconds=3,
    model_swaps=1,
    model_versions_rejected=4,
    reachable=True,
    draining=False,
    secs_since_progress=0.05,
)
# The figures of a job that has just begun.
NOTHING = StreamFigures(0.0, 0, 0, 0, 0.0, None, None, 0, 0, None, 0, 0.0, 0, 0, 0, 0, 0, 0, True, False, 0.0)


def received(number: int, size: int = 1, publish_time: int = 0) -> Received:
    """Returns a message whose ids contain its number."""
    return Received(f"ack-{number}", b"x" * size, str(number), publish_time, {})


@dataclasses.dataclass
class FakeSource:
    """The part of a source that StreamStats reads. See `transforms.pubsub.message_source.MessageSource`."""

    stats: Stats = dataclasses.field(default_factory=Stats)
    buffered: int = 0
    in_work: int = 0
    reachable: bool = True
    draining: bool = False
    stuck_secs: float = 0.0
    away: bool = False
    trouble: str = ""
    extensions_failed: int = 0
    acknowledgements_failed: int = 0
    oldest: int | None = None

    def oldest_publish_time(self) -> int | None:
        return self.oldest


class Leases:
    """A subscription that records requests about leases.

    Attributes:
      requests: (what, ack ids), in their order; what is "acknowledge", "give back", or "extend by N".
      failing: how many of the next requests fail.
      on_request: called before each request is recorded.
    """

    name = "projects/p/subscriptions/leases"

    def __init__(self, failing: int = 0, on_request: Callable[[str, Sequence[str]], None] = lambda what, ids: None):
        self.requests: list[tuple[str, list[str]]] = []
        self.failing = failing
        self.on_request = on_request
        self._changed = threading.Condition()

    def pull(self, max_messages: int) -> list[Received]:
        return []

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        self._request("acknowledge", ack_ids)

    def extend(self, ack_ids: Sequence[str], secs: int) -> None:
        self._request(f"extend by {secs}" if secs else "give back", ack_ids)

    def interrupt(self) -> None:
        """Does nothing: nothing is pulled."""

    def close(self) -> None:
        """Does nothing."""

    def sent(self, what: str) -> list[str]:
        """Returns the ids of all requests of a kind, in their order."""
        with self._changed:
            return [ack_id for kind, ids in self.requests for ack_id in ids if kind == what]

    def await_request(self, what: str) -> None:
        """Waits until there has been a request of this kind."""
        with self._changed:
            found = self._changed.wait_for(lambda: any(kind == what for kind, _ in self.requests), PATIENCE_SECS)
            assert found, f"no request to {what}"

    def _request(self, what: str, ack_ids: Sequence[str]) -> None:
        self.on_request(what, ack_ids)
        with self._changed:
            if self.failing:
                self.failing -= 1
                raise ConnectionError("the service is away")
            self.requests.append((what, list(ack_ids)))
            self._changed.notify_all()
