"""What tests of managed jobs share: small models, clients of the local service, requests."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sluice.models.uri import parse_model_uri
from sluice.pipelines.managed.client import JobClient
from sluice.pipelines.managed.job import Job, JobRequest, Machines, State
from tests.support.saved_models.by_hand import FLOAT, STRING, HandMade
from tests.support.vertex.service import VertexService

MACHINES = Machines("n1-standard-4")


class Pauses:
    """A clock that goes on only where somebody sleeps.

    Attributes:
      slept: the seconds of each sleep.
      before: is called at each sleep.
    """

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        self.slept: list[float] = []
        self.before = before

    def sleep(self, secs: float) -> None:
        self.before()
        self.slept.append(secs)

    def clock(self) -> float:
        return sum(self.slept)


def plus_two(shape: list[int]) -> HandMade:
    """y = x / 2 + 2, for one shape."""
    made = HandMade().node("x", "Placeholder", dtype=FLOAT, shape=shape).constant("half", 0.5).constant("two", 2.0)
    made.node("product", "Mul", "x", "half", T=FLOAT).node("y", "AddV2", "product", "two", T=FLOAT)
    return made.signature({"x": (FLOAT, "x:0", shape)}, {"y": (FLOAT, "y:0", shape)})


def lengths() -> HandMade:
    """The length of a string in bytes."""
    made = HandMade().node("x", "Placeholder", dtype=STRING, shape=[-1])
    made.node("n", "StringLength", "x", unit=b"BYTE")
    return made.signature({"x": (STRING, "x:0", [-1])}, {"n": (3, "n:0", [-1])})


def client_of(service: VertexService, pauses: Pauses | None = None, **more: Any) -> JobClient:
    """Returns a client of the service; it sleeps by `pauses` alone."""
    pauses = pauses or Pauses()
    managed = parse_model_uri(service.model_uri("m")).managed
    assert managed is not None
    return JobClient(managed.project, managed.location, service.url, sleep=pauses.sleep, clock=pauses.clock, **more)


def request_of(service: VertexService, directory: Path, label: str = "s1", **changes: Any) -> JobRequest:
    """Returns the request for a job over 10 rows."""
    rows = directory / "rows.jsonl"
    rows.write_text("".join(json.dumps({"x": x}) + "\n" for x in range(10)))
    request = JobRequest(
        model=service.model_uri("m").removeprefix("vertex://"),
        label=label,
        attempt=1,
        display_name="sluice test",
        inputs=(str(rows),),
        output=str(directory / "out"),
        machines=MACHINES,
    )
    return dataclasses.replace(request, **changes)


def preparer(request: JobRequest, attempts: list[int]) -> Callable[[int], JobRequest]:
    """Returns the `prepare` of `follow.obtain`; it notes the attempts that it is called for."""

    def prepare(attempt: int) -> JobRequest:
        attempts.append(attempt)
        return dataclasses.replace(request, attempt=attempt)

    return prepare


def states(service: VertexService) -> list[State]:
    """Returns the states of all jobs of the service, in the order of their creation."""
    return [State[name.removeprefix("JOB_STATE_")] for name in service.jobs.states().values()]


def ended(client: JobClient, job: Job) -> Job:
    """Returns a job when it has ended."""
    while not job.is_ended:
        job = client.get(job.name)
    return job
