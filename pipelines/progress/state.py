"""How a streaming job is: working, degraded, paused or stuck. Whoever is on call needs to tell these apart."""

import dataclasses
from typing import Protocol

from sluice.pipelines.progress.metric_table import DEGRADED, PAUSED, STUCK, WORKING

# A job is stuck if it has messages, and nothing has moved for so long, beside what calls of the model may take.
STUCK_SECS = 600.0
# A shorter absence of the model is none: calls are repeated at once.
_AWAY_SECS = 3.0
# Fewer rows say nothing about most of them.
_LEAST_ROWS = 10


@dataclasses.dataclass(frozen=True)
class State:
    """The state of a job.

    Attributes:
      name: "working", "degraded", "paused" or "stuck".
      why: in words; "" if it is working.
    """

    name: str
    why: str = ""

    @property
    def is_stuck(self) -> bool:
        """Whether a new process may help: a liveness probe asks for this."""
        return self.name == STUCK

    @property
    def gets_on(self) -> bool:
        """Whether messages are being finished, be it as failures."""
        return self.name in (WORKING, DEGRADED)


class Figures(Protocol):
    """What the state of a job is told by; see pipelines.progress.stream_stats.StreamFigures."""

    @property
    def buffered(self) -> int: ...
    @property
    def in_work(self) -> int: ...
    @property
    def secs_since_progress(self) -> float: ...
    @property
    def stuck_after_secs(self) -> float | None: ...
    @property
    def away(self) -> bool: ...
    @property
    def trouble(self) -> str: ...
    @property
    def model_away_secs(self) -> float: ...
    @property
    def recent_rows(self) -> int: ...
    @property
    def recent_failures(self) -> int: ...


def stuck_after(call_secs: float | None) -> float | None:
    """Returns after how many seconds in which nothing has moved a job is stuck; None: never.

    A slow call of the model is no standstill as long as the call may go on: a supervisor would end the job at it, again
    and again.

    Args:
      call_secs: for how long a call of the model may go on, with its repetitions; None: for any time.
    """
    return None if call_secs is None else STUCK_SECS + call_secs


def state_of(figures: Figures) -> State:
    """Returns the state of a job.

    An environment that is at fault comes first: while it is, nothing moves, and a new process would not help. Messages
    that fail are finished, so a job whose rows fail is not stuck.
    """
    if why := _environment(figures):
        return State(PAUSED, why)
    if figures.stuck_after_secs is not None and figures.secs_since_progress >= figures.stuck_after_secs:
        here, secs = figures.buffered + figures.in_work, figures.secs_since_progress
        return State(STUCK, f"{here:,} messages are here, and nothing has moved for {secs:,.0f} s")
    rows, failed = figures.recent_rows, figures.recent_failures
    if rows >= _LEAST_ROWS and 2 * failed > rows:
        return State(DEGRADED, f"{failed:,} of the last {rows:,} rows failed")
    return State(WORKING)


def _environment(figures: Figures) -> str:
    """Returns what is at fault outside of the job; "": nothing that is known."""
    if figures.trouble:
        return figures.trouble
    if figures.model_away_secs >= _AWAY_SECS:
        return f"the model has not answered for {figures.model_away_secs:,.0f} s, and is called again and again"
    if figures.away:
        return "the subscription cannot be pulled"
    return ""
