"""What goes wrong on purpose, as a test asks."""

import dataclasses
import random
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

from sluice.models.server.status import StatusError

# The calls that faults hold for unless a test names others.
ONLINE = frozenset({"predict", "rawPredict", "peering"})
_BEARER = "Bearer "


@dataclasses.dataclass
class VertexFaults:
    """Faults of the service. A test may change them while it runs; those of jobs hold from the next job on.

    Attributes:
      methods: the calls that the next five hold for: names of server.ROUTES.
      latency_ms: added to each call.
      full_rate, unavailable_rate: the share of the calls refused as 429 and 503, chosen at random by a fixed seed.
      next_errors: gRPC's names of codes; each lets one call fail, in order.
      retry_after: what 429 and 503 say in the header Retry-After; empty: nothing.
      lost_answers: names of calls that are served, but whose answer is lost with the connection, each once.
      token_calls: how many calls, of all but peering, a bearer token is good for; then it has expired. 0: not checked.
      max_request_bytes, max_answer_bytes: 0: the limit of the kind of endpoint.
      without_headers: leaves the headers of rawPredict out.
      errors_as_array: answers errors in a list.
      raw_errors: rawPredict answers the container's own error body, not the service's.
      polls: a job ends at so many calls of get; 0: when it is done.
      hold_jobs: no job ends meanwhile.
      end_states: each lets one job end so, in order: names of JobState, such as JOB_STATE_FAILED. PAUSED lasts until
        `Jobs.resume`.
      done_share: the share of the instances that are scored before such an end.
      unknown_incomplete: a job that ends so has -1 for its incomplete instances.
      is_bad: whether the model refuses an instance; it takes its batch with it.
      lost_shard: a result shard that the next job does not write.
      shards: how many result files a job writes.
      suffix: the end of their names, such as .csv.
      strict_json: lines and answers with NaN or Infinity fail, because JSON has neither.
    """

    methods: Collection[str] = ONLINE
    latency_ms: float = 0.0
    full_rate: float = 0.0
    unavailable_rate: float = 0.0
    next_errors: list[str] = dataclasses.field(default_factory=list)
    retry_after: str = ""
    lost_answers: list[str] = dataclasses.field(default_factory=list)
    token_calls: int = 0
    max_request_bytes: int = 0
    max_answer_bytes: int = 0
    without_headers: bool = False
    errors_as_array: bool = False
    raw_errors: bool = False
    polls: int = 2
    hold_jobs: bool = False
    end_states: list[str] = dataclasses.field(default_factory=list)
    done_share: float = 0.5
    unknown_incomplete: bool = False
    is_bad: Callable[[Any], bool] | None = None
    lost_shard: int | None = None
    shards: int = 3
    suffix: str = ""
    strict_json: bool = True


class FaultGate:
    """Lets calls fail as the faults say. Thread-safe.

    Attributes:
      faults: of this moment.
    """

    def __init__(self, faults: VertexFaults, seed: int = 0) -> None:
        self.faults = faults
        self._lock = threading.Lock()
        self._random = random.Random(seed)
        self._tokens: Counter[str] = Counter()
        self._closed = threading.Event()

    def enter(self, method: str, headers: Mapping[str, str]) -> None:
        """Admits one call.

        Raises:
          StatusError: the faults let it fail.
        """
        faults = self.faults
        if faults.token_calls and method != "peering":
            self._check_token(headers.get("authorization", ""))
        if method not in faults.methods:
            return
        if faults.latency_ms:
            self._closed.wait(faults.latency_ms / 1000)
        if code := self._next_error():
            raise StatusError(code, "an error that the local service was told to return")

    def loses_answer(self, method: str) -> bool:
        """Whether the answer of this call is to be lost; asks for the next one too."""
        with self._lock:
            lost = method in self.faults.lost_answers
            if lost:
                self.faults.lost_answers.remove(method)
            return lost

    def close(self) -> None:
        """Ends the waiting of calls."""
        self._closed.set()

    def _check_token(self, header: str) -> None:
        token = header.removeprefix(_BEARER) if header.startswith(_BEARER) else ""
        with self._lock:
            self._tokens[token] += 1
            if not token or self._tokens[token] > self.faults.token_calls:
                raise StatusError("UNAUTHENTICATED", "Request had no access token, or one that has expired.")

    def _next_error(self) -> str:
        faults = self.faults
        with self._lock:
            if faults.next_errors:
                return faults.next_errors.pop(0)
            drawn = self._random.random()
        if drawn < faults.full_rate:
            return "RESOURCE_EXHAUSTED"
        return "UNAVAILABLE" if drawn < faults.full_rate + faults.unavailable_rate else ""


def retry_after(error: StatusError, faults: VertexFaults) -> dict[str, str]:
    """Returns the headers of an error."""
    asks = error.code in ("RESOURCE_EXHAUSTED", "UNAVAILABLE") and faults.retry_after
    return {"Retry-After": faults.retry_after} if asks else {}
