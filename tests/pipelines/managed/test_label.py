"""The label of a job: stable for the same job, and another one for every other job."""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.cloud.bigquery import Table

from sluice.models.signature import Signature, TensorSpec
from sluice.pipelines.managed.label import LABEL, files_state, flags_label, job_label, table_state, table_text
from sluice.pipelines.options.batch import BatchOptions
from sluice.transforms.bigquery.find_table import find_query, find_table
from tests.support.bigquery.cases import load
from tests.support.servers import BigQuery

URI = "vertex://projects/p/locations/l/models/m"
MODEL = "projects/p/locations/l/models/m@3"
SIGNATURE = Signature(
    "serving_default", "predict", (TensorSpec("x", "float32", (None,)),), (TensorSpec("y", "float32", (None,)),)
)
STATE = ("gs://b/a.jsonl 10 1.5", "gs://b/b.jsonl 20 2.5")


def options(**flags: Any) -> BatchOptions:
    return BatchOptions(**{"model": URI, "input": "gs://b/*.jsonl", "output": "gs://b/out/p.jsonl"} | flags)


def label(
    inputs: tuple[str, ...] = STATE, resolved: str = MODEL, signature: Signature = SIGNATURE, **flags: Any
) -> str:
    return job_label(inputs, resolved, signature, options(**flags))


def test_the_same_job_has_the_same_label_for_ever() -> None:
    """A label of this Sluice is found by the next one, or `_FORM` and this value change."""
    assert label() == label()
    assert re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", label())


@pytest.mark.parametrize(
    "flags",
    [
        {"detach": True},
        {"cancel_on_interrupt": True},
        {"overwrite": True},
        {"max_failure_rate": 0.5},
        {"vertex_max_rescore_rate": 0.1},
        {"vertex_job": "7"},
        {"progress": "log"},
        {"summary_file": "s.json"},
        {"report_file": "r.html"},
        {"rpc_headers": (("a", "s3cret"),)},
        {"max_retry_secs": 5.0},
        {"bigquery_endpoint": "http://127.0.0.1:1"},
        {"input": "gs://b/?.jsonl"},  # the same files
        {"model": f"{URI}@default"},  # the same version
    ],
)
def test_what_changes_nothing_of_the_result_is_no_part_of_it(flags: dict[str, Any]) -> None:
    assert label(**flags) == label()


@pytest.mark.parametrize(
    "parts",
    [
        {"inputs": STATE[:1]},
        {"inputs": (STATE[0], "gs://b/c.jsonl 20 2.5")},
        {"inputs": (STATE[0], "gs://b/b.jsonl 21 2.5")},
        {"inputs": (STATE[0], "gs://b/b.jsonl 20 2.6")},
        {"resolved": "projects/p/locations/l/models/m@4"},
        {"resolved": "projects/p/locations/l/models/n@3"},
        {"signature": dataclasses.replace(SIGNATURE, outputs=(TensorSpec("z", "float32", (None,)),))},
        {"signature": dataclasses.replace(SIGNATURE, inputs=(TensorSpec("x", "float64", (None,)),))},
        {"output": "gs://b/out/q.jsonl"},
        {"output_prefix": "m_"},
        {"columns": ("x",)},
        {"column_defaults": (("x", "0"),)},
        {"csv_delimiter": ";"},
        {"vertex_machine_type": "n1-standard-8"},
        {"vertex_replicas": 2},
        {"vertex_accelerator": "NVIDIA_L4"},
        {"vertex_batch_size": 8},
        {"vertex_service_account": "a@b"},
        {"vertex_direct": True, "output": "gs://b/out/p"},
        {"failure_payload": "none"},
    ],
)
def test_each_part_counts(parts: dict[str, Any]) -> None:
    assert label(**parts) != label()


def test_the_label_of_the_flags_is_that_of_all_but_the_input() -> None:
    def flags(resolved: str = MODEL, **changed: Any) -> str:
        return flags_label(resolved, SIGNATURE, options(**changed))

    assert re.fullmatch(LABEL, flags()) and re.fullmatch(LABEL, label())
    assert flags() == flags(input="gs://b/?.jsonl", detach=True) != label()
    assert len({flags(), flags(resolved=f"{MODEL}1"), flags(output_prefix="m_")}) == 3


def test_a_local_output_is_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    relative = label(output="p.jsonl")
    assert relative == label(output=str(tmp_path / "p.jsonl"))
    monkeypatch.chdir("/")
    assert label(output="p.jsonl") != relative


def test_the_types_of_a_schema_count_and_not_where_they_stand(tmp_path: Path) -> None:
    def schema(name: str, kind: str) -> str:
        path = tmp_path / name
        path.write_text(json.dumps([{"name": "x", "type": kind}]))
        return str(path)

    first = label(input_schema=schema("s.json", "FLOAT64"))
    assert label(input_schema=schema("copy.json", "FLOAT64")) == first
    assert label(input_schema=schema("s.json", "STRING")) != first
    assert label() != first


def test_files_as_they_are(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text("{}\n")
    second.write_text("{}\n")
    before = files_state(f"{tmp_path}/*.jsonl")
    assert before == files_state(f"{tmp_path}/*.jsonl") and len(before) == 2
    first.write_text("{}\n{}\n")
    larger = files_state(f"{tmp_path}/*.jsonl")
    os.utime(second, (1, 1))
    older = files_state(f"{tmp_path}/*.jsonl")
    second.rename(tmp_path / "c.jsonl")
    renamed = files_state(f"{tmp_path}/*.jsonl")
    assert len({before, larger, older, renamed}) == 4


RESOURCE: dict[str, Any] = {
    "tableReference": {"projectId": "p", "datasetId": "d", "tableId": "t"},
    "lastModifiedTime": "1700000000000",
    "numRows": "10",
    "numBytes": "80",
}


@pytest.mark.parametrize(
    "change",
    [
        {"tableReference": {"projectId": "p", "datasetId": "d", "tableId": "u"}},
        {"lastModifiedTime": "1700000000001"},
        {"numRows": "11"},
        {"numBytes": "88"},
        {"streamingBuffer": {"estimatedRows": "5", "estimatedBytes": "40", "oldestEntryTime": "1700000000000"}},
    ],
)
def test_a_table_as_it_is(change: dict[str, Any]) -> None:
    before = table_text(Table.from_api_repr(RESOURCE))
    assert before.startswith("p.d.t ") and before == table_text(Table.from_api_repr(dict(RESOURCE)))
    assert table_text(Table.from_api_repr(RESOURCE | change)) != before


def test_where_a_table_is_looked_up(bigquery: BigQuery) -> None:
    """The emulator tells the time of the look-up as that of the last change."""
    table = load(bigquery, pa.table({"x": [1.0, 2.0]}))
    (stored,) = table_state(find_table(table).table)
    assert stored.startswith(f"{table} ") and stored.endswith(" 2 16 0")
    text = f"SELECT x + 1 AS x FROM `{table}`"
    query, read = table_state(find_query(text, bigquery.project).table)
    assert query == text and read.startswith(f"{table} ")
