"""What ways cost: a million rows, a month, and the load from which an endpoint is cheaper than copies in workers."""

import dataclasses
import math

from sluice.pipelines.compare.found import Found
from sluice.pipelines.compare.prices import HOURS_A_MONTH, Prices
from sluice.pipelines.compare.spread import Spread

_MILLION, _HOUR_SECS = 1_000_000, 3600
# Beyond so many rows a second no load is looked at.
_MOST_RATE = 1e9


@dataclasses.dataclass(frozen=True)
class Use:
    """What a way takes for a row, and what it holds.

    Attributes:
      cpu_us: of the worker.
      worker_mb: of a worker's process.
      cores: of this machine, as a worker and as a server.
      server_us: CPU of the server; None: not known, or there is none.
      server_mb: of the server's process.
      node_us: of the machine of a managed job; None: not known, or there is none.
    """

    cpu_us: float
    worker_mb: float
    cores: int
    server_us: float | None = None
    server_mb: float = 0.0
    node_us: float | None = None

    @property
    def cpu_secs_per_million(self) -> float:
        return self.cpu_us + (self.server_us or 0.0)

    @property
    def gb_secs_per_million(self) -> float:
        """Memory, for as long as a worker with all its cores busy holds it."""
        worker = self.worker_mb / 1024 * self.cpu_us / self.cores
        return worker + self.server_mb / 1024 * (self.server_us or 0.0) / self.cores


def use_of(found: Found, cores: int) -> Use | None:
    """Returns what a way takes; None: no job of it was measured."""
    if found.cpu_us is None or found.peak_mb is None:
        return None
    server = _median(found.server_cpu_us)
    return Use(found.cpu_us.median, found.peak_mb, cores, server, found.server_mb or 0.0, _median(found.node_us))


def _median(values: Spread | None) -> float | None:
    return values.median if values else None


def per_million(use: Use, prices: Prices) -> float:
    """Returns the cost of a million rows at rest, at the CPU and memory that they take."""
    worker = _share(use.cpu_us, use.cores, use.worker_mb, prices.batch_vcpu_hour, prices.batch_gb_hour)
    server, node = use.server_us or 0.0, (use.node_us or 0.0) / _HOUR_SECS * prices.vertex_node_hour
    return worker + node + _share(server, use.cores, use.server_mb, prices.server_vcpu_hour, prices.server_gb_hour)


def _share(cpu_us: float, cores: int, memory_mb: float, vcpu_hour: float, gb_hour: float) -> float:
    """Returns the price of a million times `cpu_us`, with the memory that is held meanwhile."""
    machine = cores * vcpu_hour + memory_mb / 1024 * gb_hour
    return cpu_us / cores / _HOUR_SECS * machine


def machine_hour(cores: int, memory_mb: float, vcpu_hour: float, gb_hour: float) -> float:
    """Returns the price of an hour of a machine."""
    return cores * vcpu_hour + memory_mb / 1024 * gb_hour


@dataclasses.dataclass(frozen=True)
class Fleet:
    """Machines that take a share of the load each; there is one at least.

    Attributes:
      rate: rows a second of one machine.
      hour: the price of an hour of one.
    """

    rate: float
    hour: float

    def cost(self, rate: float) -> float:
        """Returns the price of an hour at a load of so many rows a second."""
        return max(1.0, rate / self.rate) * self.hour


def fleets(use: Use, prices: Prices) -> list[Fleet]:
    """Returns the machines of a stream: its workers, and those of the server, if there is one."""
    hour = machine_hour(use.cores, use.worker_mb, prices.stream_vcpu_hour, prices.stream_gb_hour)
    found = [Fleet(use.cores * _MILLION / use.cpu_us, hour)]
    if use.server_us:
        served = machine_hour(use.cores, use.server_mb, prices.server_vcpu_hour, prices.server_gb_hour)
        found.append(Fleet(use.cores * _MILLION / use.server_us, served))
    return found


def hourly(machines: list[Fleet], rate: float) -> float:
    """Returns the price of an hour of a stream of so many rows a second."""
    return sum(each.cost(rate) for each in machines)


def monthly(machines: list[Fleet], rows: float) -> float:
    """Returns the price of a month of a stream that has so many rows in it, evenly spread."""
    return HOURS_A_MONTH * hourly(machines, rows / HOURS_A_MONTH / _HOUR_SECS)


def cheaper_from(endpoint: list[Fleet], copies: list[Fleet]) -> float | None:
    """Returns the least load, in rows a second, from which an endpoint costs no more than copies; None: there is none.

    Both costs are straight between the loads at which a fleet begins to grow, so only these are looked at.
    """
    edges = sorted({0.0, *(each.rate for each in (*endpoint, *copies)), _MOST_RATE})
    before, gap_before = 0.0, hourly(endpoint, 0.0) - hourly(copies, 0.0)
    if gap_before <= 0:
        return 0.0
    for edge in edges[1:]:
        gap = hourly(endpoint, edge) - hourly(copies, edge)
        if gap <= 0:
            return before + (edge - before) * gap_before / (gap_before - gap)
        before, gap_before = edge, gap
    return None


@dataclasses.dataclass(frozen=True)
class Workers:
    """How many workers a load needs.

    Attributes:
      formula: how the number came about, with its values.
      measured: one worker as large as this machine is enough, so nothing is extrapolated but the time.
    """

    count: int
    formula: str
    measured: bool


def workers_for_deadline(rows: int, deadline_secs: float, rate: float, start_secs: float) -> Workers | None:
    """Returns the workers for so many rows by a deadline; None: they cannot even start in time.

    Args:
      rate: rows a second of a worker, start-up apart.
    """
    secs = deadline_secs - start_secs
    if secs <= 0:
        return None
    count = max(1, math.ceil(rows / (rate * secs)))
    formula = f"ceil({rows:,} rows / ({rate:,.0f} rows/s x ({deadline_secs:,.0f} s - {start_secs:,.1f} s to start)))"
    return Workers(count, f"{formula} = {count:,}", count == 1)


def workers_for_rate(rate: float, one: float) -> Workers:
    """Returns the workers for so many rows a second.

    Args:
      one: rows a second that a worker holds.
    """
    count = max(1, math.ceil(rate / one))
    return Workers(count, f"ceil({_rate(rate)} rows/s / {_rate(one)} rows/s) = {count:,}", count == 1)


def _rate(value: float) -> str:
    """A rate below 10 has its fraction: 0.5 messages a second are not none."""
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"


def hour_of_held(use: Use, prices: Prices, count: int) -> float:
    """Returns the price of an hour of a stream that so many machines like this one hold.

    A machine's cores were shared by the worker and the server, if there is one, as their CPU for a row says. So many
    machines are therefore split into workers and servers in this ratio; there is one of each at least.
    """
    worker, server = use.cpu_us, use.server_us or 0.0
    shares = (worker / (worker + server), server / (worker + server))
    return sum(max(1.0, count * share) * each.hour for share, each in zip(shares, fleets(use, prices), strict=False))
