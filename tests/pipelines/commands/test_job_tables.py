"""BigQuery as input and output of the local Vertex AI's jobs."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from google.api_core import exceptions
from google.cloud.aiplatform_v1 import JobServiceClient

from sluice.pipelines.commands.job_tables import BigQueryTables
from tests.support.servers import BigQuery
from tests.support.vertex.clients import ended, job_of, rest_client
from tests.support.vertex.service import vertex_service

ROWS = [{"x": 4.0, "note": "a"}, {"x": 9.0, "note": "b"}]


def test_a_job_reads_a_table_and_writes_one(bigquery: BigQuery, cases: Callable[[str], str]) -> None:
    table = bigquery.make_table([{"name": "x", "type": "FLOAT64"}, {"name": "note", "type": "STRING"}])
    assert bigquery.client.insert_rows_json(table, ROWS) == []
    output = f"bq://{bigquery.make_dataset()}.scored"
    fields = {
        "input_config": {"instances_format": "bigquery", "bigquery_source": {"input_uri": f"bq://{table}"}},
        "output_config": {"predictions_format": "bigquery", "bigquery_destination": {"output_uri": output}},
        "instance_config": {"instance_type": "object", "included_fields": ["x"]},
    }
    with vertex_service({"picky": cases("picky")}) as service:
        client = rest_client(JobServiceClient, service)
        job = job_of(service, "picky", [], "", **fields)
        made = client.create_batch_prediction_job(parent=service.parent, batch_prediction_job=job)
        done = ended(client, made.name)
        keyed = {**job, "instance_config": {"key_field": "note"}}
        with pytest.raises(exceptions.BadRequest, match="key_field"):
            client.create_batch_prediction_job(parent=service.parent, batch_prediction_job=keyed)
    assert done.state.name == "JOB_STATE_SUCCEEDED", done.error.message
    assert f"{done.output_info.bigquery_output_dataset}.{done.output_info.bigquery_output_table}" == output
    scored = bigquery.rows(output.removeprefix("bq://"))
    found = sorted((row["note"], row["x"], json.loads(row["prediction"])) for row in scored)
    assert found == [("a", 4.0, 2.0), ("b", 9.0, 3.0)]


def test_values_as_json_has_them(bigquery: BigQuery) -> None:
    kinds = {"b": "BYTES", "d": "DATE", "n": "NUMERIC", "i": "INT64", "s": "STRING"}
    table = bigquery.make_table([{"name": name, "type": kind} for name, kind in kinds.items()])
    row = {"b": "/w==", "d": "2020-01-02", "n": "1.5", "i": 2**53 + 1, "s": None}
    assert bigquery.client.insert_rows_json(table, [row]) == []
    (found,) = BigQueryTables().read(f"bq://{table}")
    assert found == {"b": "/w==", "d": "2020-01-02", "n": 1.5, "i": 2**53 + 1, "s": None}
    json.dumps(found)
