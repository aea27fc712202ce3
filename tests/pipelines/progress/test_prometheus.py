"""The page of /metrics, read by the parsers of Prometheus' own client library."""

import importlib.metadata
import math
import platform
import re

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from sluice.pipelines.progress.metric_table import COUNTER, HISTOGRAM, METRICS, PROCESS_METRICS, Metric
from sluice.pipelines.progress.metric_values import Buckets, Job, Value, buckets, metric_values
from sluice.pipelines.progress.prometheus import MetricsPage
from sluice.pipelines.progress.stream_stats import StreamStats
from sluice.transforms.core import metrics
from sluice.transforms.pubsub.source_parts import Stats
from tests.support.fakes import FakeClock
from tests.support.pubsub.fakes_stream import FakeSource, received

WALL_SECS = 1_700_000_000
ALL = {metric.name for metric in METRICS} | set(PROCESS_METRICS)


@pytest.fixture
def job() -> Job:
    """A job with a value for everything. What the transforms have counted is this process's tally."""
    metrics.reset_tally()
    metrics.count(metrics.ROWS_READ, 120)
    metrics.count(metrics.BYTES_READ, 2400)
    metrics.count(metrics.ROWS_PREDICTED, 100)
    metrics.count_version(7, 60)
    metrics.count_version(8, 30)
    metrics.count_failure("predict", "BadInput", 15)
    metrics.count_failure("decode", "InvalidRow", 5)
    metrics.count(metrics.RPC_RETRIES, 3)
    for rows, msec in ((1, 0.3), (64, 4.0), (65, 4.1)):
        metrics.record(metrics.BATCH_SIZE, rows)
        metrics.record(metrics.PREDICT_LATENCY_MSEC, msec)
    source = FakeSource(
        Stats(pulled=130, acknowledged=120, returned=2, bundles=6, segments=2),
        buffered=7,
        in_work=3,
        extensions_failed=4,
        acknowledgements_failed=1,
        oldest=(WALL_SECS - 90) * 1_000_000,
    )
    stats = StreamStats(metrics.tally, metrics.means, FakeClock(), lambda: WALL_SECS)
    stats.note([received(number, publish_time=WALL_SECS * 1_000_000 - 900_000) for number in range(119)])
    stats.note([received(120, publish_time=(WALL_SECS - 7000) * 1_000_000)])
    return Job(
        lambda: stats.figures(source),  # type: ignore[arg-type]
        stats,
        source,  # type: ignore[arg-type]
        lambda: None,
        'gs://b/"m"\\1',
        9,
        lambda: WALL_SECS,
    )


def samples(text: str) -> dict[tuple[str, ...], float]:
    """The value of each sample, by its name and the values of its labels, in the order of their names."""
    return {(sample.name, *sample.labels.values()): sample.value for family in parse(text) for sample in family.samples}


def page_of(job: Job) -> str:
    body, content_type = MetricsPage(lambda: metric_values(job)).make("")
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    return body.decode()


def test_every_metric_of_the_table_is_there_with_its_type_and_labels(job: Job) -> None:
    families = {family.name: family for family in parse(page_of(job))}
    for metric in METRICS:
        family = families[metric.name.removesuffix("_total") if metric.kind == COUNTER else metric.name]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        assert family.samples, metric.name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)
    names = {sample.name for family in families.values() for sample in family.samples}
    histograms = [metric.name for metric in METRICS if metric.kind == HISTOGRAM]
    parts = {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}
    assert names == ALL - set(histograms) | parts


def test_the_values(job: Job) -> None:
    found = samples(page_of(job))
    beam, tensorflow, sluice = map(importlib.metadata.version, ("apache-beam", "tensorflow", "sluice"))
    assert {key: value for key, value in found.items() if key[0].startswith("sluice_") and "bucket" not in key[0]} == {
        ("sluice_rows_read_total",): 120,
        ("sluice_read_bytes_total",): 2400,
        ("sluice_rows_predicted_total", "7"): 60,
        ("sluice_rows_predicted_total", "8"): 30,
        ("sluice_rows_predicted_total", "9"): 10,  # counted with no version: that of launch, for no model is open
        ("sluice_rows_failed_total", "predict", "BadInput"): 15,
        ("sluice_rows_failed_total", "decode", "InvalidRow"): 5,
        ("sluice_rows_finished_total", "predicted"): 100,
        ("sluice_rows_finished_total", "failed"): 20,
        ("sluice_messages_pulled_total",): 130,
        ("sluice_messages_acknowledged_total",): 120,
        ("sluice_messages_returned_total",): 2,
        ("sluice_bundles_total",): 6,
        ("sluice_messages_buffered",): 7,
        ("sluice_messages_in_work",): 3,
        ("sluice_oldest_unacknowledged_message_age_seconds",): 90,
        ("sluice_message_latency_seconds_sum",): pytest.approx(119 * 0.9 + 7000),
        ("sluice_message_latency_seconds_count",): 120,
        ("sluice_predict_latency_seconds_sum",): pytest.approx(0.0084),
        ("sluice_predict_latency_seconds_count",): 3,
        ("sluice_queue_wait_seconds_sum",): 0,
        ("sluice_queue_wait_seconds_count",): 0,
        ("sluice_batch_size_rows_sum",): 130,
        ("sluice_batch_size_rows_count",): 3,
        ("sluice_model_load_seconds_sum",): 0,
        ("sluice_model_load_seconds_count",): 0,
        ("sluice_calls_in_flight",): 0,
        ("sluice_calls_in_flight_limit",): 0,
        ("sluice_pending_bytes",): 0,
        ("sluice_rpc_retries_total",): 3,
        ("sluice_throttled_seconds_total",): 0,
        ("sluice_model_swaps_total",): 0,
        ("sluice_model_versions_rejected_total",): 0,
        ("sluice_model_info", 'gs://b/"m"\\1', "9"): 1,
        ("sluice_lease_extensions_failed_total",): 4,
        ("sluice_acknowledgements_failed_total",): 1,
        ("sluice_restarts_total",): 0,
        ("sluice_segments_total",): 2,
        ("sluice_source_reachable",): 1,
        ("sluice_draining",): 0,
        ("sluice_state", "working"): 1,
        ("sluice_state", "degraded"): 0,
        ("sluice_state", "paused"): 0,
        ("sluice_state", "stuck"): 0,
        ("sluice_no_progress_seconds",): 0,
        ("sluice_start_time_seconds",): WALL_SECS,
        ("sluice_build_info", beam, platform.python_version(), tensorflow, sluice): 1,
    }


def test_both_outcomes_are_there_before_there_are_rows(job: Job) -> None:
    metrics.reset_tally()
    found = samples(page_of(job))
    assert {key[1]: value for key, value in found.items() if key[0] == "sluice_rows_finished_total"} == {
        "predicted": 0,
        "failed": 0,
    }


def test_bounds_of_buckets_are_inclusive(job: Job) -> None:
    found = samples(page_of(job))
    rows = {bound: found["sluice_batch_size_rows_bucket", bound] for bound in ("1", "32", "64", "128", "+Inf")}
    assert rows == {"1": 1, "32": 1, "64": 2, "128": 3, "+Inf": 3}
    calls = {bound: found["sluice_predict_latency_seconds_bucket", bound] for bound in ("0.00025", "0.0005", "0.004")}
    assert calls == {"0.00025": 0, "0.0005": 1, "0.004": 2}
    latencies = {bound: found["sluice_message_latency_seconds_bucket", bound] for bound in ("0.5", "1", "3600", "+Inf")}
    assert latencies == {"0.5": 0, "1": 119, "3600": 119, "+Inf": 120}


@pytest.mark.parametrize("value", [0.0, 1e-9, 0.24, 0.25, 0.26, 1.0, 3.9, 4.0, 4.001, 1e5, 1e12])
def test_each_value_is_in_the_first_bucket_whose_bound_it_does_not_exceed(value: float) -> None:
    found = buckets(metrics.Powers({metrics.power_of(value): 1}, value), range(-2, 18))
    assert found.counts[-1] == (math.inf, 1)
    assert [count for _, count in found.counts] == [int(value <= bound) for bound, _ in found.counts]


def test_a_scraper_that_asks_for_it_gets_openmetrics(job: Job) -> None:
    asked = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    body, content_type = MetricsPage(lambda: metric_values(job)).make(asked)
    assert content_type.startswith("application/openmetrics-text")
    assert {family.name for family in parse_openmetrics(body.decode())} >= {"sluice_rows_read", "sluice_state"}


def test_names_are_as_prometheus_wants_them() -> None:
    """https://prometheus.io/docs/practices/naming/"""
    assert len(ALL) == len(METRICS) + len(PROCESS_METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"sluice(_[a-z]+)+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == COUNTER)
        assert not metric.unit or metric.unit in metric.name, metric
        assert not re.search(r"milli|msec|_ms\b|_kb|minute", metric.name)
        assert metric.help and not metric.help.endswith("."), metric.name


def test_beam_s_names_are_those_that_the_transforms_use() -> None:
    known = {value for value in vars(metrics).values() if isinstance(value, str)}
    assert {metric.beam.split("/")[0] for metric in METRICS if metric.beam} <= known


def test_a_metric_without_a_value_is_an_error_and_no_page_without_it() -> None:
    values: dict[str, Value] = {"sluice_a": 1}
    page = MetricsPage(lambda: values, [Metric("sluice_a", "gauge", "A"), Metric("sluice_b", HISTOGRAM, "B")])
    with pytest.raises(KeyError):
        page.make("")
    values["sluice_b"] = Buckets([(math.inf, 0)], 0.0)
    assert b"sluice_b_count 0.0" in page.make("")[0]
