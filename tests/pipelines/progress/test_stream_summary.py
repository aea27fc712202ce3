"""The summary of a streaming job: from its last figures, as a table, as JSON."""

import dataclasses
import json

import pytest

from sluice.pipelines.progress.stream_stats import StreamStats
from sluice.pipelines.progress.stream_summary import StreamSummary, render, stream_summary, to_json
from tests.support.fakes import FakeClock
from tests.support.pubsub.fakes_stream import FIGURES, NOTHING, received

TALLY = {
    "rows_read": 1_234_567,
    "rows_predicted": 1_234_500,
    "rows_failed": 67,
    "rows_failed/predict/InvalidArgumentError": 4,
    "rows_failed/decode/InvalidRow": 60,
    "rows_failed/write/Refused/by quota": 3,
}
PHASES = {"imports": 2.0, "plan": 0.25, "model_load": 1.234, "run": 3725.04, "commit": None}
FULL = StreamSummary(
    messages=1_234_567,
    predictions=1_234_500,
    failures=67,
    failures_by={
        "decode": {"InvalidRow": 60},
        "predict": {"InvalidArgumentError": 4},
        "write": {"Refused/by quota": 3},
    },
    seconds=3725.04,
    latency_p50_ms=52.4,
    latency_p99_ms=1900.26,
    batch_size=512.4,
    bundles=999,
    restarts=2,
    rpc_retries=12,
    throttled_seconds=3,
    model="work/model",
    model_swaps=1,
    model_versions_rejected=4,
    phases=PHASES,
)


def stats(*latencies_secs: float) -> StreamStats:
    made = StreamStats(dict, dict, FakeClock(), lambda: 0.0)
    made.note([received(0, publish_time=round(-secs * 1_000_000)) for secs in latencies_secs])
    return made


EMPTY = stream_summary(stats(), NOTHING, {}, "work/model", {})


def test_the_last_figures_become_a_summary_with_the_latencies_of_the_whole_run() -> None:
    made = stream_summary(stats(*[0.05] * 95, *[2.0] * 5), FIGURES, TALLY, "work/model", PHASES)
    assert (made.latency_p50_ms, made.latency_p99_ms) == pytest.approx((50, 2000), rel=0.02)
    assert dataclasses.replace(made, latency_p50_ms=52.4, latency_p99_ms=1900.26) == FULL
    assert made.messages_per_second == 1_234_567 / 3725.04


def test_without_messages_there_are_no_latencies_and_no_rate() -> None:
    assert (EMPTY.latency_p50_ms, EMPTY.latency_p99_ms, EMPTY.messages_per_second) == (None, None, 0.0)


def test_golden_json() -> None:
    assert json.loads(to_json(FULL)) == {
        "messages": 1_234_567,
        "predictions": 1_234_500,
        "failures": 67,
        "seconds": 3725.04,
        "latency_p50_ms": 52.4,
        "latency_p99_ms": 1900.26,
        "batch_size": 512.4,
        "bundles": 999,
        "restarts": 2,
        "rpc_retries": 12,
        "throttled_seconds": 3,
        "model": "work/model",
        "model_swaps": 1,
        "model_versions_rejected": 4,
        "failures_by_stage": {
            "decode": {"InvalidRow": 60},
            "predict": {"InvalidArgumentError": 4},
            "write": {"Refused/by quota": 3},
        },
        "phases": PHASES,
        "options": {},
        "beam_options": {},
        "versions": {},
        "reasons": [],
        "messages_per_second": 331.4,
    }


def test_json_is_rounded() -> None:
    made = json.loads(to_json(dataclasses.replace(FULL, seconds=1.23456, latency_p50_ms=0.09876, batch_size=1 / 3)))
    assert (made["seconds"], made["latency_p50_ms"], made["batch_size"]) == (1.235, 0.099, 0.333)


def test_the_keys_are_there_when_nothing_is_known() -> None:
    assert list(json.loads(to_json(EMPTY))) == list(json.loads(to_json(FULL)))


def test_golden_table() -> None:
    assert (
        render(FULL)
        == """\
Messages                        1,234,567  acknowledged
Predictions                     1,234,500
Failures                               67
  decode InvalidRow                    60
  predict InvalidArgumentError          4
  write Refused/by quota                3
Seconds                           3,725.0
Messages/s                            331
Latency p50                            52  ms, from publishing to written
Latency p99                         1,900  ms
Batch size                            512  rows per call, on average
Restarts                                2  messages in work were returned and retried
Retries                                12  calls repeated; 3 s waited for the server
Model swaps                             1  switches to a newer or an older version
Rejected                                4  versions of the model that did not pass checks
Model                           work/model"""
    )


def test_the_table_leaves_out_what_there_was_not() -> None:
    assert (
        render(EMPTY)
        == """\
Messages       0  acknowledged
Predictions    0
Failures       0
Seconds      0.0
Messages/s     0
Model        work/model"""
    )


@pytest.mark.parametrize(
    "name,label",
    [
        ("restarts", "Restarts"),
        ("rpc_retries", "Retries"),
        ("model_swaps", "Model swaps"),
        ("model_versions_rejected", "Rejected"),
        ("batch_size", "Batch size"),
    ],
)
def test_a_line_that_only_some_jobs_have(name: str, label: str) -> None:
    lines = render(dataclasses.replace(EMPTY, **{name: 5})).splitlines()  # type: ignore[arg-type]
    assert len(lines) == 7
    assert lines[-2].startswith(label) and lines[-2].split(label)[1].split()[0] == "5"


def test_retries_without_a_wait() -> None:
    assert "Retries        5  calls repeated\n" in render(dataclasses.replace(EMPTY, rpc_retries=5))
