"""The summary of a job: from counters, as a table, as JSON."""

import dataclasses
import json

import pytest

from sluice.pipelines.progress.batch_summary import Summary, from_counters, render, to_json
from sluice.transforms.core import metrics
from sluice.transforms.core.reasons import Group

COUNTERS = {
    "bytes_read": 31_000_000,
    "rows_read": 200_000,
    "rows_predicted": 199_975,
    "rows_failed": 25,
    "rows_failed/predict/InvalidArgumentError": 1,
    "rows_failed/decode/InvalidRow": 20,
    "rows_failed/read/OSError/of some/kind": 4,
    "rpc_retries": 12,
    "cumulativeThrottlingSeconds": 3,
}
MEANS = {"batch_size": 3921.44, "predict_latency_msec": 11.234, "model_load_msec": 1234.0, "queue_msec": 3.0}

PHASES = {"imports": 2.0, "plan": 0.25, "model_load": 1.234, "run": 12.5, "commit": None}


def summarise(**changes: object) -> Summary:
    made = from_counters(
        COUNTERS,
        MEANS,
        phases=PHASES,
        model="work/model",
        version=3,
        output_files=[f"out/p-{shard:05d}-of-00005.csv" for shard in range(5)],
        failure_files=["out/p.failures-00000-of-00001.jsonl"],
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


REASONS = (
    Group(
        "decode",
        "InvalidRow",
        "column 'age': \u2026 is not int64",
        20,
        "column 'age': 'abc' is not int64",
        "data.csv#byte=12",
    ),
)
EMPTY = from_counters({}, {}, phases={}, model="work/model")


def test_counters_become_a_summary() -> None:
    assert summarise() == Summary(
        rows_in=200_000,
        predictions=199_975,
        failures=25,
        failures_by={
            "decode": {"InvalidRow": 20},
            "predict": {"InvalidArgumentError": 1},
            "read": {"OSError/of some/kind": 4},
        },
        seconds=12.5,
        output_files=tuple(f"out/p-0000{shard}-of-00005.csv" for shard in range(5)),
        failure_files=("out/p.failures-00000-of-00001.jsonl",),
        model="work/model",
        version=3,
        model_load_msec=1234.0,
        batch_size=3921.44,
        predict_latency_msec=11.234,
        rpc_retries=12,
        throttled_seconds=3,
        phases=PHASES,
    )
    assert summarise().rows_per_second == 16_000.0


def test_failures_that_were_counted_are_found_again() -> None:
    metrics.reset_tally()
    metrics.count_failure("decode", "InvalidRow", 2)
    metrics.count_failure("predict", "BadOutput")
    made = from_counters(metrics.tally(), {}, phases={}, model="m")
    metrics.reset_tally()
    assert (made.failures, made.failures_by) == (3, {"decode": {"InvalidRow": 2}, "predict": {"BadOutput": 1}})


def test_a_row_that_was_predicted_and_not_written_is_a_failure() -> None:
    counters = {"rows_read": 10, "rows_predicted": 9, "rows_failed": 4, "rows_failed/bind/InvalidRow": 1}
    counters |= {"rows_failed/encode/SluiceError": 2, "rows_failed/write/AppendError": 1}
    made = from_counters(counters, {}, phases={}, model="m")
    assert (made.rows_in, made.predictions, made.failures) == (10, 6, 4)


def test_golden_json() -> None:
    assert json.loads(to_json(summarise(reasons=REASONS))) == {
        "rows_in": 200_000,
        "predictions": 199_975,
        "failures": 25,
        "failures_by_stage": {
            "decode": {"InvalidRow": 20},
            "predict": {"InvalidArgumentError": 1},
            "read": {"OSError/of some/kind": 4},
        },
        "seconds": 12.5,
        "rows_per_second": 16_000.0,
        "output_files": [f"out/p-0000{shard}-of-00005.csv" for shard in range(5)],
        "failure_files": ["out/p.failures-00000-of-00001.jsonl"],
        "output_table": "",
        "failures_table": "",
        "model": "work/model",
        "version": 3,
        "versions": {},
        "model_load_msec": 1234.0,
        "batch_size": 3921.4,
        "predict_latency_msec": 11.2,
        "rpc_retries": 12,
        "throttled_seconds": 3,
        "phases": PHASES,
        "options": {},
        "beam_options": {},
        "reasons": [
            {
                "count": 20,
                "stage": "decode",
                "error_type": "InvalidRow",
                "reason": "column 'age': \u2026 is not int64",
                "example": "column 'age': 'abc' is not int64",
                "origin": "data.csv#byte=12",
                "flags": "",
                "remedy": "the value is not of the model's type: mend what writes these rows, or the rows themselves "
                "(sluice failures --export)",
            }
        ],
    }


def test_tables_are_named_where_files_would_be() -> None:
    summary = dataclasses.replace(
        summarise(), output_files=(), output_table="p.d.predictions", failures_table="p.d.failed"
    )
    lines = [line.split() for line in render(summary).splitlines()]
    assert ["Output", "p.d.predictions"] in lines
    assert ["Failures", "in", "p.d.failed"] in lines
    assert ["out/p.failures-00000-of-00001.jsonl"] in lines


def test_the_keys_are_there_when_nothing_is_known() -> None:
    assert list(json.loads(to_json(EMPTY))) == list(json.loads(to_json(summarise())))
    assert json.loads(to_json(EMPTY))["rows_per_second"] == 0.0
    assert json.loads(to_json(EMPTY))["version"] is None


def test_what_was_not_counted_is_not_known_and_not_0() -> None:
    made = from_counters({}, {}, counted=False, phases={"run": 2.0}, model="m")
    record = json.loads(to_json(made))
    unknown = {"rows_in", "predictions", "failures", "failures_by_stage", "rows_per_second", "versions"}
    assert {name for name in record if record[name] is None} >= unknown | {"rpc_retries", "throttled_seconds"}
    assert record["seconds"] == 2.0 and list(record) == list(json.loads(to_json(EMPTY)))
    lines = [line.split(maxsplit=1) for line in render(made).splitlines()]
    assert ["Predictions", "not known"] in lines and render(made).count("not known") == 3
    assert "Rows/s" not in render(made)


def test_golden_table() -> None:
    assert (
        render(summarise())
        == """\
Rows in                         200,000
Predictions                     199,975
Failures                             25  under 0.1% of the rows
  decode InvalidRow                  20
  predict InvalidArgumentError        1
  read OSError/of some/kind           4
Seconds                            12.5
Rows/s                           16,000
Batch size                        3,921  rows per call, on average; 11.2 ms per call
Retries                              12  calls repeated; 3 s waited for the server
Model                           work/model (version 3, loaded in 1.2 s)
Output                          out/p-00000-of-00005.csv
                                out/p-00001-of-00005.csv
                                ... 2 more, and out/p-00004-of-00005.csv
Failures in                     out/p.failures-00000-of-00001.jsonl"""
    )


def test_the_table_leaves_out_what_is_not_known() -> None:
    assert (
        render(EMPTY)
        == """\
Rows in        0
Predictions    0
Failures       0
Seconds      0.0
Rows/s         0
Model        work/model"""
    )


@pytest.mark.parametrize(
    "failures,text",
    [
        (0, "0"),
        (199, "199  under 0.1% of the rows"),
        (200, "200  0.1% of the rows"),
        (200_000, "200,000  100.0% of the rows"),
    ],
)
def test_the_share_of_failures(failures: int, text: str) -> None:
    line = render(summarise(failures=failures, failures_by={})).splitlines()[2]
    assert " ".join(line.split()) == " ".join(f"Failures {text}".split())


@pytest.mark.parametrize("count,lines", [(0, 0), (1, 1), (3, 3), (4, 3), (1000, 3)])
def test_as_many_files_are_named_as_a_user_would_read(count: int, lines: int) -> None:
    files = tuple(f"f{number}" for number in range(count))
    table = render(summarise(output_files=files, failure_files=()))
    shown = [line for line in table.splitlines() if line.split()[-1].startswith("f")]
    assert len(shown) == lines
    assert shown == [] or shown[-1].endswith(f"f{count - 1}")
