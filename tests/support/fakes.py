"""Small fakes for what is slow, remote or out of a test's control. Each does one thing, set by its arguments."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import pyarrow as pa

from sluice.models.errors import BadInput, BatchTooLarge, SluiceError
from sluice.models.interface import Outputs
from sluice.models.signature import Signature, TensorSpec
from sluice.models.tensors.binding import Bound, Feeds, bind

# Nothing that a test waits for takes this long. The limit turns a deadlock into a failure instead of a hang.
PATIENCE_SECS = 120.0

Result = TypeVar("Result")


def connected(call: Callable[[], Result]) -> Result:
    """Makes a call whose deadline is short, again where a busy machine did not even connect within it."""
    give_up = time.monotonic() + PATIENCE_SECS
    while True:
        try:
            return call()
        except SluiceError as error:
            if "no connection within" not in str(error) or time.monotonic() > give_up:
                raise


# The signature of a model that returns a number doubled, and the number as text.
X_TO_Y = Signature(
    "serving_default",
    "tensorflow/serving/predict",
    (TensorSpec("x", "int64", (None,), ("x:0",)),),
    (TensorSpec("text", "string", (None,), ("text:0",)), TensorSpec("y", "int64", (None,), ("y:0",))),
)


def x_feeds(*values: int) -> Feeds:
    """Returns the inputs of X_TO_Y."""
    return {"x": np.array(values, np.int64)}


def double(feeds: Feeds) -> Outputs:
    """Returns the outputs of a model of X_TO_Y."""
    x = feeds["x"]
    text = np.array([str(value).encode() for value in x.tolist()], object)
    return Outputs({"y": 2 * x, "text": text}, version=7)


class FakeModel:
    """A model that answers by a function and records its calls. See `models.interface.Model`.

    Args:
      answer: maps feeds to outputs; may raise.
      gated: calls wait until the test calls `let_go`.
    """

    def __init__(
        self, answer: Callable[[Feeds], Outputs] = double, signature: Signature = X_TO_Y, gated: bool = False
    ) -> None:
        self.remote = False
        self.uri = "fake"
        self.version: int | None = 7
        self.signature = signature
        self.calls: list[Feeds] = []
        self.closed = False
        self.most_at_a_time = 0
        self._answer = answer
        self._gated = gated
        self._under_way = 0
        self._lock = threading.Lock()
        self._entered = threading.Semaphore(0)
        self._gate = threading.Semaphore(0)

    @property
    def call_rows(self) -> list[int]:
        """The row count of each call, in the order in which they began."""
        return [len(next(iter(feeds.values()))) for feeds in self.calls]

    def bind(self, batch: pa.RecordBatch) -> Bound:
        return bind(batch, self.signature)

    def call(self, feeds: Feeds) -> Outputs:
        with self._lock:
            self.calls.append(feeds)
            self._under_way += 1
            self.most_at_a_time = max(self.most_at_a_time, self._under_way)
        self._entered.release()
        try:
            if self._gated and not self._gate.acquire(timeout=PATIENCE_SECS):
                raise AssertionError("the test never let the call go")
            return self._answer(feeds)
        finally:
            with self._lock:
                self._under_way -= 1

    def close(self) -> None:
        self.closed = True

    def await_call(self) -> None:
        """Waits until one more call has begun."""
        assert self._entered.acquire(timeout=PATIENCE_SECS), "no call began"

    def let_go(self, calls: int = 1) -> None:
        """Lets this many calls of a gated model return."""
        self._gate.release(calls)


def refusing(poison: frozenset[int], max_rows: int | None = None) -> Callable[[Feeds], Outputs]:
    """Returns an `answer` that accepts at most `max_rows` rows, and no poison row."""

    def answer(feeds: Feeds) -> Outputs:
        if max_rows is not None and len(feeds["x"]) > max_rows:
            raise BatchTooLarge(f"{len(feeds['x'])} rows are too many")
        bad = sorted(poison.intersection(feeds["x"].tolist()))
        if bad:
            raise BadInput(f"{bad} are poison")
        return double(feeds)

    return answer


def longest_backoffs() -> Iterator[float]:
    """Yields the upper bounds of the random waits before a call is repeated."""
    secs = 0.1
    while True:
        yield secs
        secs = min(2 * secs, 10.0)


class FakeClock:
    """A clock that a test advances; counts seconds."""

    def __init__(self) -> None:
        self._now = 0.0
        self._reads = 0
        self._changed = threading.Condition()

    def __call__(self) -> float:
        with self._changed:
            if threading.current_thread() is not threading.main_thread():
                self._reads += 1
                self._changed.notify_all()
            return self._now

    def advance(self, secs: float) -> None:
        with self._changed:
            self._now += secs

    def await_reads(self, count: int) -> None:
        """Waits until threads other than the test's have read the clock this many times in all."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._reads >= count, PATIENCE_SECS), "nobody looked at the clock"

    @property
    def reads(self) -> int:
        with self._changed:
            return self._reads
