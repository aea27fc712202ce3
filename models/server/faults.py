"""Injected faults of predict calls, and their statistics."""

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
    """The faults that the server injects into predict calls.

    Attributes:
      latency_ms: added to each call.
      error_rate: the share of the calls that fail with `error_code`, chosen at random.
      error_code: gRPC's name of a status code.
      first_errors: how many calls fail with `error_code` before the first may pass.
      hang_rate: the share of the calls that get no answer before the client gives up or the server ends.
      max_rows: refuses larger batches, as a TF Serving that batches does; 0: no limit.
      max_concurrency: refuses further calls with RESOURCE_EXHAUSTED while so many are under way; 0: no limit.
      wrong_rows: leaves the last row out of answers.
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
                raise UsageError(f"--{name} is {getattr(self, name)}; it is a share of the calls, from 0 to 1")
        if self.error_code not in CODES[1:]:
            raise UsageError(f"--error_code is '{self.error_code}'; it is one of {', '.join(CODES[1:])}")


@dataclasses.dataclass(frozen=True)
class Stats:
    """Counts of predict calls so far, over gRPC and REST together.

    Attributes:
      received: all calls.
      calls, rows: answered calls, and their rows, by (model, version).
      batch_sizes: answered calls by their number of rows.
      errors: calls refused or failed, by status code.
      active, peak: calls under way: now, and at most so far; without those that --max_concurrency refused.
    """

    received: int = 0
    calls: Counter[tuple[str, int]] = dataclasses.field(default_factory=Counter)
    rows: Counter[tuple[str, int]] = dataclasses.field(default_factory=Counter)
    batch_sizes: Counter[int] = dataclasses.field(default_factory=Counter)
    errors: Counter[str] = dataclasses.field(default_factory=Counter)
    active: int = 0
    peak: int = 0


class Gate:
    """Counts every predict call and injects the faults. Thread-safe.

    Args:
      seed: of the random choices; None: another at each start.
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
        """The counts at this moment: a copy."""
        with self._lock:
            return copy.deepcopy(self._stats)

    @contextlib.contextmanager
    def call(self, gone: threading.Event) -> Iterator[Faults]:
        """Admits one call; yields the faults that hold for it.

        Args:
          gone: the caller sets it when nobody waits for the answer any longer.

        Raises:
          StatusError: the faults let this call fail.
        """
        try:
            with self._enter(gone) as (faults, hangs, fails):
                if hangs:
                    gone.wait()
                    raise StatusError("UNAVAILABLE", "the reference server ended while this call hung")
                if faults.latency_ms and gone.wait(faults.latency_ms / 1000):
                    raise StatusError("UNAVAILABLE", "the reference server ended while this call waited")
                if fails:
                    raise StatusError(faults.error_code, "an error that the reference server was told to return")
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
        """Waits until so many calls are under way at once; returns whether they were in time."""
        with self._lock:
            return self._lock.wait_for(lambda: self._stats.active >= count, timeout_secs)

    def close(self) -> None:
        """Ends the calls that wait or hang, and refuses new ones."""
        with self._lock:
            self._closed = True
            for gone in self._waiting:
                gone.set()
