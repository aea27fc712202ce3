"""`sluice streaming` on Google's Pub/Sub emulator: every message gets its prediction or its failure, and only then an
acknowledgement."""

from __future__ import annotations

import glob
import itertools
import json
import shutil
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sluice.transforms.pubsub.clients import EMULATOR_VARIABLE
from sluice.transforms.pubsub.read_local import open_sources
from tests.support.pubsub.proxy import PubsubProxy
from tests.support.pubsub.streams import LocalJob, ask, make_ends, wait_until
from tests.support.reports import all_numbers, figures_of, rows_of
from tests.support.saved_models.zoo import ZooSample
from tests.support.servers import BigQuery, Pubsub
from tests.support.sizes import size


def ids_of(messages: list[Any]) -> list[str]:
    return [message.attributes["id"] for message in messages]


def numbered(count: int) -> list[dict[str, str]]:
    return [{"id": str(number)} for number in range(count)]


def json_rows(sample: ZooSample, count: int) -> list[bytes]:
    with open(sample.path("jsonl"), "rb") as file:
        lines = file.read().splitlines()
    return [lines[number % len(lines)] for number in range(count)]


def lines_of(pattern: str) -> list[dict[str, Any]]:
    """The rows of JSON Lines files."""
    return [json.loads(line) for path in glob.glob(pattern) for line in Path(path).read_bytes().splitlines()]


@pytest.mark.parametrize("name", ["criteo", "natality", "census"])
def test_predictions_are_those_of_the_model_called_directly(
    pubsub: Pubsub, zoo_samples: dict[str, ZooSample], name: str
) -> None:
    sample = zoo_samples[name]
    ends = make_ends(pubsub)
    published = ends.publish(json_rows(sample, sample.rows), numbered(sample.rows))
    with LocalJob([f"--model={sample.model}", *ends.flags]) as job:
        messages = ends.predictions(sample.rows)
        assert job.stop() == 0
    assert sorted(ids_of(messages), key=int) == [str(number) for number in range(sample.rows)]
    rows = {int(message.attributes["id"]): json.loads(message.data) for message in messages}
    lines = json_rows(sample, sample.rows)
    for output, values in sample.expected().items():
        got = [rows[number][output] for number in range(sample.rows)]
        if isinstance(values[0], float | list):
            np.testing.assert_allclose(np.ravel(got), np.ravel(values), rtol=1e-5, atol=1e-6)
    source_rows = [json.loads(line) for line in lines]
    assert all(rows[number].items() >= source_rows[number].items() for number in range(sample.rows))
    first = messages[0]
    assert first.attributes["sluice_model"] == sample.model
    assert first.attributes["sluice_version"] == "1"
    assert first.attributes["sluice_message_id"] in published
    assert job.summary["messages"] == job.summary["predictions"] == sample.rows
    assert job.summary["failures"] == 0


@pytest.fixture
def picky(cases: Callable[[str], str]) -> str:
    """A model that raises on any batch with a negative x."""
    return cases("picky")


def test_a_poison_message_is_one_failure_and_blocks_nothing(pubsub: Pubsub, picky: str, tmp_path: Path) -> None:
    ends = make_ends(pubsub)
    payloads = [b'{"x": %d}' % number for number in range(300)]
    payloads[7], payloads[100], payloads[200], payloads[250] = b"{not json", b'{"x": -1}', b"", b'{"x": "text"}'
    ends.publish(payloads, numbered(300))
    report = tmp_path / "report.html"
    with LocalJob([f"--model={picky}", *ends.flags, f"--report_file={report}"]) as job:
        good = ends.predictions(296)
        failed = ends.failed(4)
        assert job.stop() == 0
    bad = {7: "decode", 100: "predict", 200: "decode", 250: "decode"}
    assert sorted(ids_of(good), key=int) == [str(number) for number in range(300) if number not in bad]
    assert {int(failure["attributes"]["id"]): failure["stage"] for failure in failed} == bad
    for failure in failed:
        assert (failure["payload_text"] or "").encode() == payloads[int(failure["attributes"]["id"])]
        assert failure["origin"].startswith(f"{ends.subscription}#message_id=")
        assert failure["attempt"] == 1
    assert [reason["count"] for reason in job.summary["reasons"]] == [1, 1, 1], "the first three of four"
    assert {reason["stage"] for reason in job.summary["reasons"]} <= {"decode", "predict"}
    assert job.summary["failures_by_stage"] == {"decode": {"InvalidRow": 3}, "predict": {"BadInput": 1}}
    numbers = all_numbers(report)
    assert figures_of(numbers)["Messages"] == "300"
    (told,) = rows_of(numbers, "Inputs of the model in numbers")
    assert (told["column"], told["min"], told["max"]) == ("x", -1, 299)
    assert ends.pubsub.pull_all(ends.subscription, 1, secs=1.0) == []  # all are acknowledged


@pytest.mark.soak
def test_a_drain_finishes_what_is_in_work_and_leaves_the_rest(
    pubsub: Pubsub, picky: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = make_ends(pubsub)
    count = size(3000, soak=20_000)
    ends.publish([b'{"x": 1}'] * count, numbered(count))
    with closing(PubsubProxy(pubsub)) as proxy, monkeypatch.context() as environment:
        environment.setenv(EMULATOR_VARIABLE, proxy.host)
        acknowledged = itertools.count(1)

        def drain_at_fourth() -> bool:
            if next(acknowledged) == 4:
                for source in open_sources():
                    source.drain()
            return True

        proxy.on_acknowledge = drain_at_fourth
        with LocalJob([f"--model={picky}", *ends.flags, "--max_bundle_messages=50"]) as job:
            assert job.wait() == 0
    done = job.summary["messages"]
    assert 4 <= done < count
    first = Counter(ids_of(ends.predictions(done)))
    assert sum(first.values()) == done
    with LocalJob([f"--model={picky}", *ends.flags]) as job:
        job.wait_for(count - done)
        job.stop()
    everything = first + Counter(ids_of(ends.predictions(count - done)))
    assert set(everything.values()) == {1}
    assert len(everything) == count


def test_files_and_topic_at_a_time(pubsub: Pubsub, picky: str, tmp_path: Path) -> None:
    ends = make_ends(pubsub)
    ends.publish([b'{"x": %d, "note": "n"}' % number for number in range(100)] + [b"[]"], numbered(101))
    files = [f"--output={tmp_path}/pred.jsonl", f"--failures={tmp_path}/failed", "--max_bundle_delay_ms=0"]
    with LocalJob([f"--model={picky}", *ends.flags, *files]) as job:
        job.wait_for(101)
        assert job.stop() == 0
    written = lines_of(f"{tmp_path}/pred-*.jsonl")
    published = [json.loads(message.data) for message in ends.predictions(100)]
    assert sorted(written, key=str) == sorted(published, key=str)
    assert sorted(row["x"] for row in written) == list(range(100))
    (failure,) = lines_of(f"{tmp_path}/failed-*.jsonl")
    assert failure["stage"] == "decode"
    assert len(ends.failed(1)) == 1
    options = job.summary["options"]
    assert (options["model"], options["max_restarts"], job.summary["beam_options"]) == (picky, 10, {})


def test_rows_that_are_inserted_into_a_table_and_its_failures(
    pubsub: Pubsub, bigquery: BigQuery, picky: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = make_ends(pubsub)
    dataset = bigquery.make_dataset()
    ends.publish([b'{"x": %d}' % number for number in range(50)] + [b"{"], numbered(51))
    tables = [f"--output_table={dataset}.predictions", f"--failures_table={dataset}.failures", "--columns=x"]
    flags = [f"--model={picky}", f"--input_subscription={ends.subscription}", *tables]
    flags += ["--write_method=streaming_inserts", f"--bigquery_endpoint={bigquery.url}"]
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST")
    with LocalJob(flags) as job:
        job.wait_for(51)
        assert job.stop() == 0
    rows = bigquery.rows(f"{dataset}.predictions")
    assert sorted(row["x"] for row in rows) == list(range(50))
    assert all(row["_model"] == picky and row["_predicted_at"] is not None for row in rows)
    (failure,) = bigquery.rows(f"{dataset}.failures")
    assert failure["payloadString"] == "{"
    assert failure["stage"] == "decode"


def test_a_topic_is_read_by_a_subscription_of_the_jobs_own(pubsub: Pubsub, picky: str) -> None:
    ends = make_ends(pubsub)

    def subscriptions() -> set[str]:
        return {each.name for each in pubsub.subscriber.list_subscriptions(project=f"projects/{pubsub.project}")}

    before = subscriptions()
    with LocalJob([f"--model={picky}", f"--input_topic={ends.topic}", *ends.flags[1:]]) as job:
        wait_until(lambda: subscriptions() > before, "a subscription")
        ends.publish([b'{"x": 4}'], numbered(1))
        assert ids_of(ends.predictions(1)) == ["0"]
        assert job.stop() == 0
    assert subscriptions() == before


def test_a_served_model(pubsub: Pubsub, uris: Any) -> None:
    ends = make_ends(pubsub)
    ends.publish([b'{"x": %d}' % (number**2) for number in range(40)], numbered(40))
    with LocalJob([f"--model={uris('grpc', 'picky')}", *ends.flags]) as job:
        messages = ends.predictions(40)
        assert job.stop() == 0
    assert len(set(ids_of(messages))) == 40
    assert {message.attributes["sluice_version"] for message in messages} == {"1"}


def test_messages_that_were_delivered_too_often_are_failures_unread(pubsub: Pubsub, picky: str) -> None:
    policy = {"dead_letter_topic": pubsub.make_topic(), "max_delivery_attempts": 5}
    ends = make_ends(pubsub, dead_letter_policy=policy)
    ends.publish([b'{"x": 1}'], numbered(1))
    for _ in range(3):
        (received,) = pubsub.pull_all(ends.subscription, 1, ack=False)
        pubsub.subscriber.modify_ack_deadline(
            subscription=ends.subscription, ack_ids=[received.ack_id], ack_deadline_seconds=0
        )
    flags = [f"--model={picky}", *ends.flags, "--max_delivery_attempts=3"]
    with LocalJob(flags) as job:
        (failure,) = ends.failed(1)
        job.wait_for(1)
        assert job.stop() == 0
    assert (failure["stage"], failure["error_type"]) == ("read", "TooManyDeliveries")
    assert failure["attributes"] == {"id": "0"}


def scraped(port: int) -> dict[tuple[str, ...], float]:
    """The samples of /metrics, by name and labels, as Prometheus' own parser reads them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as response:
        families = text_string_to_metric_families(response.read().decode())
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }


def test_health_and_metrics_while_it_runs(pubsub: Pubsub, picky: str, tmp_path: Path) -> None:
    """What is scraped when all is done is what the summary tells at the end; failures name model and version."""
    ends = make_ends(pubsub)
    shutil.copytree(picky, tmp_path / "7")
    model = str(tmp_path)
    with LocalJob([f"--model={model}", *ends.flags]) as job:
        wait_until(lambda: ask(job.port, "/readyz")[0] == 200, "readiness")
        assert ask(job.port, "/healthz")[1]["state"] == "working"
        ends.publish([b'{"x": 1}'] * 10, numbered(10))
        job.wait_for(10)
        ends.publish([b'{"x": -1}'] * 12 + [b"{", b'{"y": 1}'], numbered(14))
        failures = ends.failed(14)
        job.wait_for(24)
        status, figures = ask(job.port, "/healthz")
        found = scraped(job.port)
        assert job.stop() == 0
    assert (status, figures["state"], figures["why"]) == (200, "degraded", "14 of the last 24 rows failed")
    assert figures["predictions"] == 10 and figures["latency_p50_ms"] > 0
    assert {(each["model"], each["version"]) for each in failures} == {(model, 7)}
    kinds = {
        (stage, kind): count
        for stage, kinds in job.summary["failures_by_stage"].items()
        for kind, count in kinds.items()
    }
    assert {key[1:]: value for key, value in found.items() if key[0] == "sluice_rows_failed_total"} == kinds
    assert sum(kinds.values()) == 14 == job.summary["failures"]
    assert {key[1:]: value for key, value in found.items() if key[0] == "sluice_rows_predicted_total"} == {("7",): 10}
    for name, key in (
        ("messages_acknowledged_total", "messages"),
        ("message_latency_seconds_count", "messages"),
        ("bundles_total", "bundles"),
        ("restarts_total", "restarts"),
        ("rpc_retries_total", "rpc_retries"),
        ("throttled_seconds_total", "throttled_seconds"),
        ("model_swaps_total", "model_swaps"),
        ("model_versions_rejected_total", "model_versions_rejected"),
    ):
        assert found[f"sluice_{name}",] == job.summary[key], name
    calls = found["sluice_batch_size_rows_count",]
    assert found["sluice_batch_size_rows_sum",] / calls == pytest.approx(job.summary["batch_size"], abs=0.001)
    assert found["sluice_predict_latency_seconds_count",] == calls
    assert (found["sluice_state", "degraded"], found["sluice_state", "working"]) == (1, 0)
    assert (found["sluice_messages_in_work",], found["sluice_oldest_unacknowledged_message_age_seconds",]) == (0, 0)
    assert found["sluice_model_info", model, "7"] == 1
