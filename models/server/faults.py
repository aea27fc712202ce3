"""What can be made to go wrong with predict calls, and what is counted of them."""

import contextlib
import copy
import dataclasses
import random
import threading
from collections import Counter
from collections.abc import Iterator

from sluice.models.errors import UsageError
from sluice.models.server.status import CODES, StatusError


@dataclasses.dataclass(frozen=True)
class Faults:
    """What happens to predict calls on purpose.

    Attributes:
      latency_ms: each call takes at least so much longer.
      error_rate: the part of the calls that fail with `error_code`, at random.
      error_code: gRPC's name of a status code.
      first_errors: so many calls fail with `error_code`, and then no more do for this reason.
      hang_rate: the part of the calls that get no answer before the client gives up or the server ends.
      max_rows: larger batches are refused, as by a TF Serving that batches; 0: no limit.
      max_concurrency: calls beyond so many at once are refused with RESOURCE_EXHAUSTED; 0: no limit.
      wrong_rows: answers lack the last row.
    """

    latency_ms: float = 0.0
    error_rate: float = 0.0
    error_code: str = "UNAVAILABLE"
    first_errors: int = 0
    hang_rate: float = 0.0
    max_rows: int = 0
    max_concurrency: int = 0
    wrong_rows: bool = False

    def __post_init__(self) -> None:
        for name in ("latency_ms", "first_errors", "max_rows", "max_concurrency"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name} is {getattr(self, name)}; it cannot be negative")
        for name in ("error_rate", "hang_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"--{name} is {getattr(self, name)}; it is a part of the calls, from 0 to 1")
        if self.error_code not in CODES[1:]:
            raise UsageError(f"--error_code is '{self.error_code}'; it is one of {', '.join(CODES[1:])}")


@dataclasses.dataclass(frozen=True)
class Stats:
    """Predict calls so far, over gRPC and REST together.

    Attributes:
      received: all of them, whatever became of them.
      calls, rows: those answered, by (model, version).
      batch_sizes: how many answered calls had so many rows.
      errors: those refused or failed, by status code.
      active, peak: at once: now, and at most so far; without those that --max_concurrency refused.
    """

    received: int = 0
    calls: Counter[tuple[str, int]] = dataclasses.field(default_factory=Counter)
    rows: Counter[tuple[str, int]] = dataclasses.field(default_factory=Counter)
    batch_sizes: Counter[int] = dataclasses.field(default_factory=Counter)
    errors: Counter[str] = dataclasses.field(default_factory=Counter)
    active: int = 0
    peak: int = 0


class Gate:
    """What every predict call passes: it is counted there, and spoiled as the faults say. Thread-safe.

    Args:
      seed: of what is random; None: another at each start.
    """

    def __init__(self, faults: Faults, seed: int | None = None) -> None:
        self._lock = threading.Condition()
        self._random = random.Random(seed)
        self._faults, self._errors_left = faults, faults.first_errors
        self._stats = Stats()
        self._waiting: set[threading.Event] = set()
        self._closed = False

    @property
    def faults(self) -> Faults:
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        with self._lock:
            self._faults, self._errors_left = faults, faults.first_errors

    @property
    def stats(self) -> Stats:
        """The figures of this moment; they do not change any more."""
        with self._lock:
            return copy.deepcopy(self._stats)

    @contextlib.contextmanager
    def call(self, gone: threading.Event) -> Iterator[Faults]:
        """Lets one call through, as the faults allow; gives the faults that hold for it.

        Args:
          gone: set by the caller when nobody waits for the answer any more.

        Raises:
          StatusError: the call is to fail.
        """
        try:
            with self._enter(gone) as (faults, hangs, fails):
                if hangs:
                    gone.wait()
                    raise StatusError("UNAVAILABLE", "the reference server ended while this call hung")
                if faults.latency_ms and gone.wait(faults.latency_ms / 1000):
                    raise StatusError("UNAVAILABLE", "the reference server ended while this call waited")
                if fails:
                    raise StatusError(faults.error_code, "an error that the reference server was told to give")
                yield faults
        except StatusError as error:
            with self._lock:
                self._stats.errors[error.code] += 1
            raise

    @contextlib.contextmanager
    def _enter(self, gone: threading.Event) -> Iterator[tuple[Faults, bool, bool]]:
        with self._lock:
            stats, faults = self._stats, self._faults
            stats = self._stats = dataclasses.replace(stats, received=stats.received + 1)
            if self._closed:
                raise StatusError("UNAVAILABLE", "the reference server is ending")
            if faults.max_concurrency and stats.active >= faults.max_concurrency:
                raise StatusError("RESOURCE_EXHAUSTED", f"{stats.active} calls are under way already")
            active = stats.active + 1
            self._stats = dataclasses.replace(stats, active=active, peak=max(stats.peak, active))
            self._waiting.add(gone)
            self._lock.notify_all()
            hangs = self._random.random() < faults.hang_rate
            fails = self._random.random() < faults.error_rate or self._errors_left > 0
            self._errors_left = max(0, self._errors_left - 1)
        try:
            yield faults, hangs, fails
        finally:
            with self._lock:
                self._waiting.discard(gone)
                self._stats = dataclasses.replace(self._stats, active=self._stats.active - 1)

    def answered(self, model: str, version: int, rows: int) -> None:
        """Counts a call that a model has answered."""
        with self._lock:
            self._stats.calls[model, version] += 1
            self._stats.rows[model, version] += rows
            self._stats.batch_sizes[rows] += 1

    def wait_active(self, count: int, timeout_secs: float) -> bool:
        """Waits until so many calls are under way at once; returns whether they were, within the time."""
        with self._lock:
            return self._lock.wait_for(lambda: self._stats.active >= count, timeout_secs)

    def close(self) -> None:
        """Wakes the calls that wait or hang, and refuses new ones."""
        with self._lock:
            self._closed = True
            for gone in self._waiting:
                gone.set()
