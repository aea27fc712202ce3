"""The page of /metrics: Prometheus' text, made by prometheus_client when it is asked for.

Nothing is counted twice: the page is made from the numbers that the job keeps anyway, under the names of the table in
pipelines.progress.metric_table. Import this where a health port is opened only: the library starts nothing, but a job
without the port need not load it.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from sluice.pipelines.progress.metric_table import COUNTER, HISTOGRAM, METRICS, Metric
from sluice.pipelines.progress.metric_values import Buckets, Value

_TOTAL = "_total"

Values: TypeAlias = Mapping[str, Value]


class MetricsPage:
    """Makes the page from the values of its moment.

    Args:
      values: returns a value for each metric of the table, by its name: a number; if it has labels, a number for each
        tuple of their values; `Buckets` of a histogram.
    """

    def __init__(self, values: Callable[[], Values], metrics: Sequence[Metric] = METRICS) -> None:
        # A registry of its own: the library's own one is shared by the whole process.
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(values, metrics))
        ProcessCollector(registry=self._registry)

    def make(self, accept: str) -> tuple[bytes, str]:
        """Returns the page and its content type.

        Args:
          accept: the header of the request, by which scrapers ask for OpenMetrics; "": Prometheus' text.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


@dataclasses.dataclass(frozen=True, eq=False)
class _Collector(Collector):
    values: Callable[[], Values]
    metrics: Sequence[Metric]

    def collect(self) -> Iterator[Family]:
        values = self.values()
        for metric in self.metrics:
            yield _family(metric, values[metric.name])


def _bound(value: float) -> str:
    return "+Inf" if value == math.inf else f"{value:g}"


def _family(metric: Metric, value: Value) -> Family:
    if metric.kind == HISTOGRAM:
        assert isinstance(value, Buckets)
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        histogram.add_metric([], [(_bound(bound), count) for bound, count in value.counts], value.sum)
        return histogram
    assert not isinstance(value, Buckets)
    made: CounterMetricFamily | GaugeMetricFamily
    if metric.kind == COUNTER:
        made = CounterMetricFamily(metric.name.removesuffix(_TOTAL), metric.help, labels=metric.labels)
    else:
        made = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, number in (value if isinstance(value, Mapping) else {(): value}).items():
        made.add_metric(labels, number)
    return made
