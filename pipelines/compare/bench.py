"""Measures ways in processes: probes that stay, and whole jobs."""

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from sluice.pipelines.compare.costs import run_measured
from sluice.pipelines.compare.drive import Driven
from sluice.pipelines.compare.found import Job
from sluice.pipelines.compare.probe_process import Probe
from sluice.pipelines.compare.sample import Sample
from sluice.pipelines.compare.server import Server, serve
from sluice.pipelines.compare.stream import Answered, Load
from sluice.pipelines.compare.subject import Loaded, Point
from sluice.pipelines.compare.ways import GRPC, Way
from sluice.pipelines.progress.phases import SCORE


class Bench(Protocol):
    """Measures ways. Each method raises SluiceError if the way fails."""

    def load(self, way: Way) -> Loaded:
        """Opens the model in a process of its own, which stays."""

    def throughput(self, way: Way, point: Point, secs: float) -> Driven:
        """Keeps the model busy for some seconds."""

    def latency(self, way: Way, load: Load, point: Point) -> Answered:
        """Sends single messages."""

    def stages(self, way: Way, point: Point) -> dict[str, float]:
        """Returns microseconds of CPU of a row, by stage."""

    def job(self, way: Way, point: Point, times: int, limit_secs: float | None) -> Job:
        """Runs a whole job over the sample so many times; 0: over one row of it. It is killed after the limit."""

    def server_mb(self, way: Way) -> float | None:
        """Returns the memory of the way's server; None: it is not known."""


class Processes:
    """Measures ways in processes, which end with the `with` block.

    Args:
      flags: of `sluice batch`, that all ways have.
      directory: for outputs.
      limit: returns the seconds after which nothing is waited for any more.
      temp_location: for the files of managed jobs; "": beside their output.
    """

    def __init__(
        self,
        model: str,
        flags: Sequence[str],
        sample: Sample,
        directory: str,
        limit: Callable[[], float] = lambda: math.inf,
        temp_location: str = "",
    ) -> None:
        self._model, self._flags, self._sample, self._directory = model, list(flags), sample, directory
        self._limit, self._temp_location = limit, temp_location
        self._stack = contextlib.ExitStack()
        self._probes: dict[Way, Probe] = {}
        self._servers: dict[str, Server] = {}

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def load(self, way: Way) -> Loaded:
        flags = [*self._job_flags(way, Point()), f"--input={self._sample.times(1)}"]
        self._probes[way] = self._stack.enter_context(Probe(flags, self._limit))
        return self._probes[way].loaded()

    def throughput(self, way: Way, point: Point, secs: float) -> Driven:
        return self._probes[way].throughput(point, secs)

    def latency(self, way: Way, load: Load, point: Point) -> Answered:
        return self._probes[way].latency(load, point)

    def stages(self, way: Way, point: Point) -> dict[str, float]:
        return self._probes[way].stages(point)

    def job(self, way: Way, point: Point, times: int, limit_secs: float | None) -> Job:
        summary = os.path.join(self._directory, "summary.json")
        flags = [*self._job_flags(way, point), f"--input={self._sample.times(max(1, times))}"]
        flags += [f"--summary_file={summary}", *([] if times else ["--limit=1"])]
        server = self._server(way)
        before = server.cpu_secs if server else 0.0
        cost = run_measured([sys.executable, "-m", "sluice", "batch", *flags], limit_secs=limit_secs)
        cpu = server.cpu_secs - before if server else None
        told = json.loads(Path(summary).read_text())
        return Job(told["rows_in"], cost, cpu, told["phases"].get(SCORE) if way.is_managed_job else None)

    def server_mb(self, way: Way) -> float | None:
        server = self._server(way)
        return server.resident_mb if server else None

    def _job_flags(self, way: Way, point: Point) -> list[str]:
        server = self._server(way)
        model = way.model or (server and (server.grpc_uri if way.kind == GRPC else server.rest_uri))
        flags = [*self._flags, f"--model={model}", "--overwrite", "--progress=none"]
        if way.is_managed_job and self._temp_location:
            flags.append(f"--temp_location={self._temp_location}")
        return [*flags, f"--output={os.path.join(self._directory, way.name)}", *point_flags(point)]

    def _server(self, way: Way) -> Server | None:
        """Returns the reference server of a way, started for the first way that needs it; None: it needs none.

        Each kind has one of its own, so that their CPU and memory are told apart.
        """
        if not way.is_reference:
            return None
        if way.kind not in self._servers:
            self._servers[way.kind] = self._stack.enter_context(serve(self._model))
        return self._servers[way.kind]


def point_flags(point: Point) -> list[str]:
    """Returns the flags of `sluice batch` for a setting; those of defaults are left out."""
    flags = [f"--max_batch_size={point.batch}"] if point.batch else []
    return [*flags, f"--max_in_flight={point.in_flight}"] if point.in_flight else flags
