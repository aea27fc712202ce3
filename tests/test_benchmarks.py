"""The benchmarks' contenders do the same work, what is seen of them is reckoned right, and the docs quote it."""

import csv
import glob
import importlib
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from apache_beam.io.gcp.pubsub import PubsubMessage

from benchmarks import bigquery_read, bigquery_write
from benchmarks.bigquery import report
from benchmarks.bigquery_jobs import Cost, Measured, measure_rows, send_beam_to_emulator
from benchmarks.contenders import CONTENDERS, count_rows
from benchmarks.streaming_beam import CachedHandler, to_fields, to_message
from benchmarks.streaming_jobs import Prediction
from benchmarks.streaming_memory import measure
from benchmarks.streaming_runs import latency_of, rate_of, turns_of
from sluice.models.protos import message_class
from sluice.models.tensors.tfrecord import read_records
from tests.support.bigquery.cases import load, make_births
from tests.support.paths import ROOT
from tests.support.saved_models.zoo import ZooSample
from tests.support.servers import BigQuery


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("[!_]*.py")), ids=lambda path: path.stem)
def test_a_benchmark_can_be_started(path: Path) -> None:
    importlib.import_module(f"benchmarks.{path.stem}")


def scores(prefix: str) -> list[float]:
    found = []
    for path in sorted(glob.glob(f"{prefix}*")):
        if path.endswith(".csv"):
            with open(path, newline="", encoding="utf-8") as file:
                found += [float(row["score"]) for row in csv.DictReader(file)]
        else:
            with open(path, "rb") as records:
                found += [_score(record) for _, record in read_records(records)]
    return found


def _score(record: bytes) -> float:
    example = message_class("tensorflow.Example").FromString(record)
    return float(example.features.feature["score"].float_list.value[0])


# tfx_bsl gives PredictionLogs, and takes seconds for a few rows: it is left to the benchmark itself.
PAIRS = [(format_, name) for format_, each in CONTENDERS.items() for name in each if not name.startswith("tfx_bsl")]


@pytest.mark.parametrize("format_,name", PAIRS, ids=lambda text: text.replace(" ", "_"))
def test_contenders_write_the_same_scores(format_: str, name: str, criteo: ZooSample, tmp_path: Path) -> None:
    prefix = str(tmp_path / "out")
    CONTENDERS[format_][name](criteo.path(format_), criteo.model, prefix)
    assert count_rows(prefix) == criteo.rows
    np.testing.assert_allclose(sorted(scores(prefix)), sorted(criteo.expected()["score"]), rtol=1e-5)


def messages_of(sample: ZooSample) -> list[bytes]:
    return Path(sample.path("jsonl")).read_bytes().splitlines()


def test_beams_streaming_job_gives_the_scores_and_keeps_the_attributes(criteo: ZooSample) -> None:
    messages = [PubsubMessage(data, {"id": str(number)}) for number, data in enumerate(messages_of(criteo))]
    attributes, fields = zip(*map(to_fields, messages), strict=True)
    handler = CachedHandler(criteo.model)
    scored = handler.run_inference(fields, handler.load_model())
    made = [to_message(pair) for pair in zip(attributes, scored, strict=True)]
    assert [message.attributes["id"] for message in made] == [str(number) for number in range(criteo.rows)]
    rows = [json.loads(message.data) for message in made]
    np.testing.assert_allclose([row.pop("score") for row in rows], criteo.expected()["score"], rtol=1e-5)
    assert rows == [json.loads(message.data) for message in messages]


def test_the_job_without_pubsub_scores_every_message(criteo: ZooSample) -> None:
    found = measure(criteo.model, messages_of(criteo), repeats=20)
    assert found["messages_s"] > 0 and found["cpu_us"] > 0


def test_the_job_without_pubsub_takes_no_row_that_fails(criteo: ZooSample) -> None:
    with pytest.raises(RuntimeError, match="a row failed"):
        measure(criteo.model, [*messages_of(criteo), b"{"], repeats=1)


def prediction(sent_ms: float, took_ms: float, version: int = 1) -> Prediction:
    sent = round(1000 * sent_ms)
    return Prediction(sent, sent + round(1000 * took_ms), sent + round(1000 * took_ms), version, f"{sent_ms}")


def test_a_rate_is_that_of_the_predictions_behind_the_first_ones() -> None:
    slow, fast = [prediction(100 * n, 0) for n in range(20)], [prediction(1900 + n, 0) for n in range(1, 81)]
    assert rate_of([*slow, *fast], head=0.19) == pytest.approx(1000)
    assert rate_of([*slow, *fast], head=0) == pytest.approx(99 / 1.98)
    with pytest.raises(ValueError, match="no rate"):
        rate_of(slow[:1])


def test_latencies_near_a_seam_are_told_from_the_others() -> None:
    found = latency_of(1, [prediction(1000 * n, 40 if n == 10 else 70 if n == 30 else 5) for n in range(60)], [9.0])
    assert (found.rows, found.seams, found.at_seams) == (60, 1, 40)
    assert found.taken["p50"] == 5 and found.taken["max"] == 70
    assert latency_of(1, [prediction(0, 5)]).at_seams is None


def test_versions_are_seen_as_their_predictions_come() -> None:
    """Version 2 is there at 1 s, predicts from 3 s on after a gap of 150 ms, and version 3 never does."""
    first = [prediction(n, 7, 1) for n in range(10, 2850, 10)]
    second = [prediction(n, 12, 2) for n in range(2990, 20_000, 10)]
    one, two, three = turns_of([*first, *second], {1: 0.0, 2: 1.0, 3: 12.0})
    assert (one.runs, two.runs, three.runs) == (1, 1, 0)
    assert (one.predictions, two.predictions, three.predictions) == (len(first), len(second), 0)
    assert one.at == 0 and two.at == pytest.approx(0.99)
    assert two.after == pytest.approx(2.002) and three.after is None
    assert two.gap_ms == pytest.approx(155) and three.gap_ms == pytest.approx(10)
    assert two.latency_ms == pytest.approx(12)


def test_going_back_to_a_version_is_another_run_of_it() -> None:
    one, two = turns_of([prediction(n, 1, 1 + n % 2) for n in range(6)], {1: 0.0, 2: 0.0})
    assert (one.runs, two.runs) == (3, 3)


@pytest.fixture
def beam_uses(bigquery: BigQuery, monkeypatch: pytest.MonkeyPatch) -> BigQuery:
    send_beam_to_emulator(bigquery.url, monkeypatch.setattr)
    return bigquery


@pytest.fixture(scope="session")
def births(bigquery: BigQuery) -> str:
    return load(bigquery, make_births(300))


@pytest.mark.parametrize("name", bigquery_read.CONTENDERS, ids=lambda name: name.replace(" ", "_"))
def test_contenders_read_all_of_a_table(name: str, beam_uses: BigQuery, births: str) -> None:
    bigquery_read.CONTENDERS[name].run(births, 300)


def test_a_job_that_reads_other_rows_fails(bigquery: BigQuery, births: str) -> None:
    with pytest.raises(RuntimeError, match="300 of 301 rows were read"):
        bigquery_read.CONTENDERS[bigquery_read.SLUICE].run(births, 301)


# Beam's sink sizes rows the slower the more is loaded: it is tried without that, and else in the same way.
WRITERS = [name for name in bigquery_write.CONTENDERS if name != bigquery_write.BEAM]


@pytest.mark.parametrize("name", WRITERS, ids=lambda name: name.replace(" ", "_"))
def test_contenders_write_the_same_rows(name: str, beam_uses: BigQuery) -> None:
    table, rows = f"{beam_uses.make_dataset()}.table", bigquery_write.BATCH_ROWS
    bigquery_write.CONTENDERS[name].run(table, rows)
    bigquery_write.check_table(beam_uses.client, table, rows)


def test_a_table_with_other_rows_is_told_from_that_of_the_job(bigquery: BigQuery) -> None:
    """Changes follow each other, and each is seen: what sees it is looked at before what has seen the last one."""
    rows = bigquery_write.BATCH_ROWS
    table = load(bigquery, pa.Table.from_pylist(bigquery_write.scored_rows(0)))
    bigquery_write.check_table(bigquery.client, table, rows)
    for change, seen in (
        (f"UPDATE `{table}` SET score = score + 1 WHERE id = 1", "SUM(score) is "),
        (f"UPDATE `{table}` SET C26 = 'x' WHERE id = 1", "MAX(C26) is x, "),
        (f"UPDATE `{table}` SET id = 2 WHERE id = 1", "COUNT(DISTINCT id) is 1999, "),
        (f"INSERT INTO `{table}` SELECT * FROM `{table}` WHERE id = 3", "COUNT(*) is 2001, "),
    ):
        bigquery.client.query(change).result()
        with pytest.raises(RuntimeError, match=re.escape(seen)):
            bigquery_write.check_table(bigquery.client, table, rows)


def test_a_row_costs_what_a_large_job_costs_more_than_a_small_one() -> None:
    turns = [(Cost(1.0, 5.0), Cost(1.3, 6.0)), (Cost(2.0, 5.0), Cost(2.1, 7.0)), (Cost(1.0, 5.0), Cost(1.2, 9.0))]
    found = measure_rows((1_000, 101_000), turns)
    assert found.cpu_us == pytest.approx([3, 1, 2]) and found.wall_us == pytest.approx([10, 20, 40])
    assert (found.cpu, found.wall) == (pytest.approx(2), pytest.approx(20))


def test_the_report_compares_each_with_the_first() -> None:
    reading, writing = (
        {
            name: Measured((10, 1_000), [1.0 * place, 3.0 * place, 2.0 * place], [4.0 * place])
            for place, name in enumerate(module.CONTENDERS, start=1)
        }
        for module in (bigquery_read, bigquery_write)
    )
    lines = report(reading, writing, 60)
    assert "| Sluice ReadTable | 10 and 1,000 | 2.00 (1.00 to 3.00) | 1.0 | 4.00 (4.00 to 4.00) | 1.0 |" in lines
    assert (
        f"| {bigquery_write.BEAM} | 10 and 1,000 | 8.00 (4.00 to 12.00) | 4.0 | 16.00 (16.00 to 16.00) | 4.0 |" in lines
    )
    assert "- Beam's cheaper way to read costs 2.0 times the CPU of Sluice's." in lines
    (inserts,) = (line for line in lines if line.startswith("- Beam's streaming inserts cost"))
    assert "cost 4.0 times the CPU" in inserts and "2.0 times that of its default stream" in inserts
    assert "1.3 times that of its insertAll" in inserts


@pytest.mark.parametrize(
    "results,page",
    [
        ("RESULTS.md", "README.md"),
        ("SERVING.md", "docs/serving.md"),
        ("STREAMING.md", "docs/streaming.md"),
        ("BIGQUERY.md", "docs/bigquery.md"),
    ],
    ids=["batch", "serving", "streaming", "bigquery"],
)
def test_the_docs_quote_the_benchmark(results: str, page: str) -> None:
    written = (ROOT / "benchmarks" / results).read_text()
    quoted = (ROOT / page).read_text()
    rows = [line for line in written.splitlines() if line.startswith("| ") and "rows/s" not in line]
    assert len(rows) >= 8
    assert [row for row in rows if row not in quoted] == []
