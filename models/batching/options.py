"""Options of the scheduler: how rows gather into calls, and what happens when the model does not answer."""

import dataclasses

from sluice.models.errors import UsageError

FAIL, DEAD_LETTER = "fail", "dead_letter"
ON_UNAVAILABLE = (FAIL, DEAD_LETTER)

# Defaults, by whether the model is behind an endpoint. In process one call at a time already uses every core, and large
# batches cost least a row. A server has several clients: smaller requests are fairer, and the number of calls in flight
# is found by trial, up to this one.
_BATCH_SIZE = {False: 4096, True: 512}
_IN_FLIGHT = {False: 1, True: 32}


@dataclasses.dataclass(frozen=True)
class SchedulerOptions:
    """How rows gather into calls. Hashable: part of the key of the process's model cache.

    Attributes:
      max_batch_size: the most rows of one call; 0: 4096 in process, 512 for an endpoint.
      max_batch_bytes: the most bytes of one call's tensors; a larger single row goes alone.
      max_batch_delay_ms: how long rows wait for more rows when the model is free; 0: not at all.
      allowed_batch_sizes: a call is padded up to one of these; empty: any size.
      max_in_flight: the most calls in flight; 0: 1 in process, up to 32 for an endpoint.
      adapt_in_flight: for an endpoint, find the best number of calls in flight, up to `max_in_flight`.
      max_pending_bytes: the most bytes of tensors that wait or are being scored; then `submit` blocks.
      max_isolation_calls: the most additional calls to find the bad rows of one batch.
      max_retries: how often a call is repeated that the server broke on, or that times out while others are answered.
      max_retry_secs: how long to wait for a model that cannot be reached or is overloaded.
      on_unavailable: what happens to rows after that. "fail": the request raises, and the job fails; "dead_letter": the
        rows become failures.
      call_timeout_secs: when to abandon a call that the model itself does not end; 0: never.
      private: the log tells of errors only what quotes no row.
    """

    max_batch_size: int = 0
    max_batch_bytes: int = 64 << 20
    max_batch_delay_ms: float = 0.0
    allowed_batch_sizes: tuple[int, ...] = ()
    max_in_flight: int = 0
    adapt_in_flight: bool = True
    max_pending_bytes: int = 256 << 20
    max_isolation_calls: int = 256
    max_retries: int = 3
    max_retry_secs: float = 300.0
    on_unavailable: str = FAIL
    call_timeout_secs: float = 0.0
    private: bool = False

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "max_in_flight", "max_retries", "max_retry_secs", "call_timeout_secs"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name} is {getattr(self, name)}; give 0 or more")
        if min(self.allowed_batch_sizes, default=1) < 1:
            raise UsageError(f"--allowed_batch_sizes has {min(self.allowed_batch_sizes)}; give sizes of 1 or more")
        if self.on_unavailable not in ON_UNAVAILABLE:
            raise UsageError(f"--on_unavailable is {self.on_unavailable}; give {' or '.join(ON_UNAVAILABLE)}")

    def resolved(self, remote: bool) -> "SchedulerOptions":
        """Returns the options with defaults in place of zeros."""
        return dataclasses.replace(
            self,
            max_batch_size=self.max_batch_size or _BATCH_SIZE[remote],
            max_in_flight=self.max_in_flight or _IN_FLIGHT[remote],
            adapt_in_flight=self.adapt_in_flight and remote,
        )
