"""Whether a job may commit, and how far its commit has come. No Beam here: the command asks at its exit."""

import enum
import threading
import time
import uuid
from collections.abc import Callable

_lock = threading.Lock()
_gates: dict[str, "CommitGate"] = {}  # kept: the threads of an interrupted job may still come to its commit


class CommitState(enum.Enum):
    """Whether the predictions of a job are in place."""

    NOT_BEGUN = "not begun"
    UNDER_WAY = "under way"
    DONE = "done"


class CommitGate:
    """One job's right to commit. Pickled by its name: within a process all copies are this object.

    In another process (a worker of Dataflow) the copy is open, and this process learns nothing of it.

    Attributes:
      secs: how long the commit took; None: this process does not know, or it has not ended.
    """

    def __init__(self, name: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.secs: float | None = None
        self._clock = clock
        self._name = name or uuid.uuid4().hex
        self._lock = threading.Lock()
        self._closed = False
        self._begun = self._done = 0
        _gates[self._name] = self

    def __reduce__(self) -> tuple[object, ...]:
        return _find, (self._name,)

    def close(self) -> None:
        """Keeps the job from beginning to commit. A commit that has begun goes on."""
        with self._lock:
            self._closed = True

    def begin(self) -> bool:
        """Returns whether the job may commit; if so, its commit is under way until `finish`."""
        with self._lock:
            self._begun += not self._closed
            self._since = self._clock()
            return not self._closed

    def finish(self) -> None:
        """Notes that the predictions are in place."""
        with self._lock:
            self._done += 1
            self.secs = self._clock() - self._since

    @property
    def state(self) -> CommitState:
        """How far the commit has come. One that failed remains under way: it may have put some rows in place."""
        with self._lock:
            if self._begun > self._done:
                return CommitState.UNDER_WAY
            return CommitState.DONE if self._done else CommitState.NOT_BEGUN


def _find(name: str) -> CommitGate:
    with _lock:
        return _gates.get(name) or CommitGate(name)
