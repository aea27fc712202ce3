"""What the report of a job has on it, and what it has not where rows are private."""

import dataclasses
import datetime

import numpy as np
import pyarrow as pa
import pytest

from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.streaming import StreamingOptions
from sluice.pipelines.progress.batch_summary import Summary
from sluice.pipelines.progress.stream_summary import StreamSummary
from sluice.pipelines.report.batch import batch_page
from sluice.pipelines.report.job import Seen
from sluice.pipelines.report.page import Page, Section
from sluice.pipelines.report.stream import stream_page
from sluice.transforms.core.metrics import BATCH_SIZE, PREDICT_LATENCY_MSEC
from sluice.transforms.core.observed import Observed, Record
from sluice.transforms.core.outputs import VERSION_COLUMN
from sluice.transforms.core.reasons import Group

NOW = datetime.datetime(2026, 5, 4, 3, 2, tzinfo=datetime.UTC)
SECRET = 91234.5
SUMMARY = Summary(
    rows_in=1000,
    predictions=990,
    failures=10,
    failures_by={"decode": {"InvalidRow": 9}, "predict": {"BadInput": 1}},
    seconds=2.0,
    output_files=("out-00000-of-00001.csv",),
    failure_files=(),
    model="models/m",
    version=7,
    batch_size=495.0,
    predict_latency_msec=3.25,
    phases={"imports": 1.5, "plan": 0.5, "model_load": None, "run": 2.0, "commit": 0.1},
    beam_options={"runner": "DirectRunner"},
)
OPTIONS = BatchOptions(
    model="models/m", input="in.csv", output="out.csv", report_file="r.html", rpc_headers=(("a", "s3cret"),)
)
STREAM = StreamSummary(
    messages=500, predictions=495, failures=5, failures_by={"bind": {"InvalidRow": 5}}, seconds=60.0,
    latency_p50_ms=12.3, latency_p99_ms=45.6, batch_size=8.0, bundles=60,
    restarts=2, rpc_retries=3, throttled_seconds=4,
    model="grpc://h:1/m", model_swaps=0, model_versions_rejected=0, phases={"run": 60.0}, versions={"1": 400, "2": 95},
)  # fmt: skip


REASON = Group(
    "decode",
    "InvalidRow",
    "column 'age': … is not int64",
    9,
    "column 'age': 'NA' is not int64",
    "in.csv#byte=17",
    values={"'NA'": None},
)


def observed() -> Record:
    seen = Observed(wall=lambda: 1e9)
    ages = pa.array(np.random.default_rng(1).integers(18, 90, 1000))
    pay = pa.array([*np.random.default_rng(2).normal(3000, 100, 999), SECRET])
    seen.see_inputs(pa.RecordBatch.from_arrays([ages, pay], ["age", "pay"]), ["age", "pay"])
    scores = pa.array(np.random.default_rng(3).uniform(0, 1, 990))
    versions = pa.array([7] * 990)
    seen.see_outputs(pa.RecordBatch.from_arrays([scores, versions], ["score", VERSION_COLUMN]), ["score"])
    return seen.record


def seen(error: str = "") -> Seen:
    return Seen(observed(), {BATCH_SIZE: {448: 1, 512: 1}, PREDICT_LATENCY_MSEC: {3: 2}}, (REASON,), error, NOW)


def section(page: Page, title: str) -> Section:
    (found,) = [each for each in page.sections if each.title.startswith(title)]
    return found


def figures(page: Page) -> dict[str, str]:
    return {each.label: each.value for each in page.figures}


def test_the_report_of_a_batch_job() -> None:
    page = batch_page(SUMMARY, OPTIONS, seen())
    assert (page.kind, page.title) == ("Sluice: batch job", "990 predictions")
    assert page.subtitle == "Model models/m. Written on 4 May 2026 at 03:02 UTC."
    assert figures(page) == {
        "Rows in": "1,000",
        "Predictions": "990",
        "Failures": "10",
        "Run": "2 s",
        "Rows per second": "500",
        "Batch size": "495",
    }
    assert list(dict.fromkeys(each.group for each in page.sections)) == [
        "Speed",
        "Predictions",
        "Failures",
        "Inputs of the model",
        "Job",
    ]
    assert section(page, "Predictions over time").data.records() == [{"seconds": 0.0, "per_second": 3960.0}]
    assert section(page, "Rows of a call").data.records()[0] == {"from_rows": 448, "to_rows": 480, "calls": 1}
    assert section(page, "Before the run: 2 s").data.records()[-1] == {"phase": "Commit", "seconds": 0.1}
    (reason,) = section(page, "Most frequent").data.records()
    assert (reason["rows"], reason["origin"]) == (9, "in.csv#byte=17")
    assert reason["remedy"].startswith("--null_values NA --column_defaults age=VALUE")
    assert section(page, "10 rows failed").data.records()[1] == {
        "stage": "predict",
        "error_type": "BadInput",
        "rows": 1,
    }
    table = {record["column"]: record for record in section(page, "Inputs of the model in numbers").data.records()}
    assert table["pay"]["max"] == SECRET and table["age"]["values"] == 1000
    assert sum(record["values"] for record in section(page, "score").data.records()) == 990
    assert section(page, "One version").data.records() == [{"version": "7", "rows": 990}]
    assert page.notes == ()


def test_flags_that_differ_from_the_defaults_are_told_but_for_secrets() -> None:
    flags = dict(section(batch_page(SUMMARY, OPTIONS, seen()), "Options").data.rows)
    assert flags == {
        "--model": "models/m",
        "--input": "in.csv",
        "--output": "out.csv",
        "--report_file": "r.html",
        "--rpc_headers": "(not shown)",
        "--runner": "DirectRunner",
    }


def test_the_report_of_a_stream() -> None:
    options = StreamingOptions(
        model="grpc://h:1/m",
        input_subscription="projects/p/subscriptions/sub",
        output_topic="projects/p/topics/top",
        failures="f",
    )
    page = stream_page(STREAM, options, seen())
    assert (page.kind, page.title) == ("Sluice: stream", "500 messages")
    assert figures(page)["Latency p99"] == "45.6 ms" and figures(page)["Restarts"] == "2"
    assert section(page, "2 versions predicted").data.records() == [
        {"version": "1", "rows": 400},
        {"version": "2", "rows": 95},
    ]


@pytest.mark.parametrize("mode", ["hash", "none"])
def test_where_rows_are_private_no_value_of_a_row_is_told(mode: str) -> None:
    options = dataclasses.replace(OPTIONS, failure_payload=mode)
    page = batch_page(SUMMARY, options, seen())
    table = section(page, "Inputs of the model in numbers").data
    assert not {"mean", "min", "max"} & set(table.names)
    extreme = observed().inputs.sketches["pay"]
    told = [cell for each in page.sections if each.data for row in each.data.rows for cell in row]
    assert SECRET not in told and extreme.least not in told
    assert all(cell < SECRET / 2 for row in section(page, "pay").data.rows for cell in row)
    for name in ("age", "pay", "score"):
        assert all(count >= 10 for _, _, count in section(page, name).data.rows)


def test_a_job_that_failed_says_why() -> None:
    page = batch_page(SUMMARY, OPTIONS, seen("the disk is full"))
    assert page.title == "The job failed"
    assert page.subtitle.startswith("It ended with an error: the disk is full. Model models/m.")


def test_what_other_processes_have_seen_is_said_to_be_unknown() -> None:
    page = batch_page(SUMMARY, OPTIONS, Seen(Record(), {}))
    assert "other processes" in page.notes[0]
    assert [each.group for each in page.sections if each.group in ("Predictions", "Inputs of the model")] == []


def test_a_job_whose_files_cannot_be_read() -> None:
    failed = dataclasses.replace(SUMMARY, rows_in=0, predictions=0, failures=1, failures_by={"read": {"OSError": 1}})
    assert figures(batch_page(failed, OPTIONS, Seen(Record(), {})))["Failures"] == "1"


def test_a_job_without_rows() -> None:
    empty = dataclasses.replace(
        SUMMARY, rows_in=0, predictions=0, failures=0, failures_by={}, batch_size=None, phases={}
    )
    page = batch_page(empty, OPTIONS, Seen(Record(), {}))
    assert page.notes == () and {each.group for each in page.sections} == {"Job"}
