"""Managed ways that were not measured, from prices and limits alone."""

import dataclasses
from collections.abc import Collection

from sluice.pipelines.compare.costing import Use
from sluice.pipelines.compare.prices import HOURS_A_MONTH, Prices
from sluice.pipelines.compare.ways import VERTEX, VERTEX_JOB

NOT_MEASURED = "not measured"
# https://cloud.google.com/vertex-ai/docs/predictions/choose-endpoint-type
_REQUEST_BYTES = 1_500_000


@dataclasses.dataclass(frozen=True)
class Managed:
    """What a managed way would cost.

    Attributes:
      kind: of pipelines.compare.ways.
      million: a million rows, all nodes busy; None: nothing was measured to reckon it from.
      month: the least of a month: of an endpoint, one node; of a job, nothing.
      notes: the formula and the limits.
    """

    kind: str
    title: str
    million: float | None
    month: float
    notes: tuple[str, ...]


def managed_ways(served: Use | None, prices: Prices, measured: Collection[str] = ()) -> list[Managed]:
    """Returns the ways of Vertex AI, but for the kinds that were measured.

    Args:
      served: of the reference server over REST, whose CPU a container there is taken to need; None: not measured.
    """
    node = prices.vertex_node_hour / prices.vertex_node_vcpus
    million = None if served is None or not served.server_us else served.server_us / 3600 * node
    reckoned = "a row is taken to need the CPU that it needs of the reference server over REST"
    ways = [
        Managed(
            VERTEX_JOB,
            "Vertex AI batch job",
            million,
            0.0,
            (reckoned, f"no row is scored for some {prices.vertex_job_start_minutes:g} minutes, while machines start"),
        ),
        Managed(
            VERTEX,
            "Vertex AI online",
            million,
            HOURS_A_MONTH * prices.vertex_node_hour,
            (reckoned, "one node at least runs around the clock", f"a request has at most {_REQUEST_BYTES:,} bytes"),
        ),
    ]
    return [way for way in ways if way.kind not in measured]
