"""Counts predictions that are read back: how many, how often, how fast, and how long they took."""

import array
import collections
import dataclasses
import sys
import threading
from collections.abc import Mapping, Sequence

import numpy as np

from sluice.pipelines.progress.table import align
from sluice.transforms.core.messages import parse_time
from sluice.transforms.pubsub.subscription import Received

_QUANTILES = {"p50": 50, "p95": 95, "p99": 99}
# The attributes that identify the row of a prediction, the best first; without either, its message id does.
_IDS = ("id", "sluice_message_id")


@dataclasses.dataclass(frozen=True)
class Report:
    """What was read. Rates and times are those at which the service accepted the predictions.

    Attributes:
      messages: predictions, each once, however often the service delivered it.
      distinct_ids: rows with a prediction.
      duplicates: messages less distinct ids: further predictions of a row.
      redelivered: deliveries of messages that had been delivered before.
      seconds: from the first prediction to the last.
      messages_per_second: None for fewer than two messages.
      latency_ms: p50, p95, p99, max and min; None for each if no message has a start time.
      without_time: messages without a start time.
      versions: messages by the model's version, "" for none.
    """

    messages: int
    distinct_ids: int
    duplicates: int
    redelivered: int
    seconds: float
    messages_per_second: float | None
    latency_ms: dict[str, float | None]
    without_time: int
    versions: dict[str, int]


class Tally:
    """Counts predictions. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._ids: set[str] = set()
        self._redelivered = self._without_time = 0
        self._latencies_us = array.array("q")
        self._versions: collections.Counter[str] = collections.Counter()
        self._first_us, self._last_us = sys.maxsize, 0

    @property
    def distinct_ids(self) -> int:
        return len(self._ids)

    def add(self, messages: Sequence[Received]) -> None:
        """Counts messages."""
        with self._lock:
            for message in messages:
                self._add(message)

    def _add(self, message: Received) -> None:
        if message.id in self._seen:
            self._redelivered += 1
            return
        self._seen.add(message.id)
        attributes = message.attributes
        self._ids.add(next((attributes[name] for name in _IDS if name in attributes), message.id))
        self._versions[attributes.get("sluice_version", "")] += 1
        self._first_us = min(self._first_us, message.publish_time)
        self._last_us = max(self._last_us, message.publish_time)
        began_us = begin_us(attributes)
        if began_us is None:
            self._without_time += 1
        else:
            self._latencies_us.append(message.publish_time - began_us)

    def report(self) -> Report:
        """Returns the figures so far."""
        with self._lock:
            count = len(self._seen)
            secs = max(0, self._last_us - self._first_us) / 1e6
            return Report(
                messages=count,
                distinct_ids=len(self._ids),
                duplicates=count - len(self._ids),
                redelivered=self._redelivered,
                seconds=secs,
                messages_per_second=round((count - 1) / secs, 3) if secs else None,
                latency_ms=quantiles_ms(np.array(self._latencies_us, np.int64)),
                without_time=self._without_time,
                versions=dict(sorted(self._versions.items())),
            )


def begin_us(attributes: Mapping[str, str]) -> int | None:
    """Returns when the row was sent, or else published, in microseconds since the epoch; None: not known."""
    sent = attributes.get("sent", "")
    if sent.isdecimal():
        return int(sent)
    try:
        return parse_time(attributes.get("sluice_publish_time", ""))
    except ValueError:
        return None


def quantiles_ms(values_us: np.ndarray) -> dict[str, float | None]:
    """Returns p50, p95, p99, max and min of int64 [values] in ms; each is one of the values."""
    if not len(values_us):
        return dict.fromkeys((*_QUANTILES, "max", "min"))
    found = np.percentile(values_us, [*_QUANTILES.values(), 100, 0], method="inverted_cdf")
    return dict(zip((*_QUANTILES, "max", "min"), (float(value) / 1000 for value in found), strict=True))


def render(report: Report) -> str:
    """Returns the report as a table."""
    rate = "-" if report.messages_per_second is None else f"{report.messages_per_second:,.1f}"
    rows = {
        "messages": f"{report.messages:,}",
        "distinct ids": f"{report.distinct_ids:,}",
        "duplicates": f"{report.duplicates:,}",
        "redelivered": f"{report.redelivered:,}",
        "messages/s": f"{rate}  over {report.seconds:,.1f} s",
    }
    for name, value in report.latency_ms.items():
        rows[f"latency {name}"] = "-" if value is None else f"{value:,.1f} ms"
    if report.without_time:
        rows["without a time"] = f"{report.without_time:,}"
    for version, count in report.versions.items():
        rows[f"version {version or '(none)'}"] = f"{count:,}"
    return "\n".join(align(list(rows.items())))
