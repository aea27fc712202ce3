"""`sluice batch` from BigQuery, to BigQuery, and both, on the emulator."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from google.auth.exceptions import RefreshError
from google.cloud import bigquery as client

from sluice.models.zoo.quality import run_signature
from sluice.pipelines.cli import main
from tests.support.saved_models.zoo import ZooSample, read_output
from tests.support.servers import BigQuery

ADDED = ["weight_pounds", "_model", "_version", "_predicted_at"]


def batch(*flags: str) -> int:
    return main(["batch", "--progress=none", *flags])


@pytest.fixture(scope="module")
def natality(zoo_samples: dict[str, ZooSample]) -> str:
    return zoo_samples["natality"].model


@pytest.fixture
def dataset(bigquery: BigQuery) -> str:
    return bigquery.make_dataset()


def pounds_of(model: str, rows: pa.Table) -> np.ndarray:
    """What the SavedModel says when it is called directly."""
    batch = rows.combine_chunks().to_batches()[0]
    return np.ravel(run_signature(f"{model}/1", batch, "serving_default")["weight_pounds"])


def read(bigquery: BigQuery, table: str, order: str = "id") -> pa.Table:
    """The rows of a table, sorted."""
    return bigquery.client.query(f"SELECT * FROM `{table}` ORDER BY {order}").to_arrow(create_bqstorage_client=False)


def fields_of(bigquery: BigQuery, table: str) -> dict[str, str]:
    return {field.name: field.field_type for field in bigquery.client.get_table(table).schema}


def tables_in(bigquery: BigQuery, dataset: str) -> list[str]:
    return sorted(table.table_id for table in bigquery.client.list_tables(dataset))


def test_a_large_table_with_its_predictions(
    bigquery: BigQuery, births: pa.Table, births_table: str, natality: str, dataset: str, tmp_path: Path
) -> None:
    """Every row comes out once, as it was, with what the model says of it; those with a null fail."""
    summary = tmp_path / "summary.json"
    flags = [f"--input_table={births_table}", f"--output_table={dataset}.scored", f"--failures_table={dataset}.failed"]
    assert batch(*flags, "--max_failure_rate=0.2", f"--model={natality}", f"--summary_file={summary}") == 0
    whole = births.filter(births["gestation_weeks"].is_valid())
    written = read(bigquery, f"{dataset}.scored")
    assert written.column_names == [*births.column_names, *ADDED]
    for name in births.column_names:
        assert written[name].cast(whole[name].type).to_pylist() == whole[name].to_pylist(), name
    np.testing.assert_allclose(written["weight_pounds"].to_numpy(), pounds_of(natality, whole), rtol=1e-6)
    assert set(written["_version"].to_pylist()) == {1}
    assert set(written["_model"].to_pylist()) == {natality}
    failed = read(bigquery, f"{dataset}.failed", "origin")
    assert failed.num_rows == births["gestation_weeks"].null_count > 0
    assert set(failed["stage"].to_pylist()) == {"bind"}
    ids = {json.loads(payload)["id"] for payload in failed["payloadString"].to_pylist()}
    assert ids == set(births.filter(births["gestation_weeks"].is_null())["id"].to_pylist())
    found = json.loads(summary.read_text())
    assert (found["rows_in"], found["predictions"], found["failures"]) == (
        births.num_rows,
        whole.num_rows,
        failed.num_rows,
    )
    assert (found["output_table"], found["failures_table"]) == (f"{dataset}.scored", f"{dataset}.failed")
    assert found["output_files"] == found["failure_files"] == []


def test_a_query_and_chosen_columns(
    bigquery: BigQuery, births: pa.Table, births_table: str, natality: str, dataset: str
) -> None:
    query = f"SELECT *, id * 2 AS twice FROM `{births_table}` WHERE id < 1000 AND gestation_weeks IS NOT NULL"
    flags = [f"--input_query={query}", "--project=proj1", "--columns=id,twice", f"--failures_table={dataset}.failed"]
    assert batch(*flags, f"--output_table={dataset}.scored", f"--model={natality}") == 0
    rows = births.slice(0, 1000)
    rows = rows.filter(rows["gestation_weeks"].is_valid())
    written = read(bigquery, f"{dataset}.scored")
    assert written.column_names == ["id", "twice", *ADDED]
    assert written["twice"].to_pylist() == [2 * each for each in rows["id"].to_pylist()]
    np.testing.assert_allclose(written["weight_pounds"].to_numpy(), pounds_of(natality, rows), rtol=1e-6)


def test_a_query_says_who_pays(
    natality: str, births_table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [f"--input_query=SELECT * FROM `{births_table}`", f"--output={tmp_path}/out.csv", f"--model={natality}"]
    assert batch(*flags) == 2
    assert "which project pays for the query? Give --project" in capsys.readouterr().err


def test_rows_of_a_table_to_files(
    births: pa.Table, births_table: str, natality: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.parquet"
    flags = [f"--input_table={births_table}", "--row_restriction=id < 500", f"--output={output}"]
    assert batch(*flags, "--max_failure_rate=0.3", f"--model={natality}") == 0
    (path,) = tmp_path.glob("out-*.parquet")
    rows = births.slice(0, 500)
    rows = rows.filter(rows["gestation_weeks"].is_valid())
    written = sorted(read_output(str(path)), key=lambda row: row["id"])
    np.testing.assert_allclose([row["weight_pounds"] for row in written], pounds_of(natality, rows), rtol=1e-6)
    (failures,) = tmp_path.glob("out.failures-*.jsonl")
    assert len(failures.read_text().splitlines()) == 500 - rows.num_rows
    said = capsys.readouterr().err
    assert re.search(rf"such as: .*gestation_weeks.* \({births_table}#stream=\d+&row=\d+\)", said)


@pytest.mark.parametrize("format_", ["csv", "avro"])
def test_files_to_a_table(bigquery: BigQuery, criteo: ZooSample, dataset: str, format_: str) -> None:
    flags = [f"--input={criteo.path(format_)}", f"--output_table={dataset}.t", f"--failures_table={dataset}.f"]
    assert batch(*flags, f"--model={criteo.model}", "--output_prefix=p_") == 0
    written = read(bigquery, f"{dataset}.t")
    np.testing.assert_allclose(written["p_score"].to_numpy(), np.ravel(criteo.expected()["score"]), rtol=1e-6)
    kinds = {"csv": "STRING", "avro": "INTEGER"}
    assert fields_of(bigquery, f"{dataset}.t")["label"] == kinds[format_]


def test_json_lines_to_a_table_want_types(
    bigquery: BigQuery, criteo: ZooSample, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [f"--input={criteo.path('jsonl')}", f"--output_table={dataset}.t", f"--failures_table={dataset}.f"]
    assert batch(*flags, f"--model={criteo.model}") == 2
    assert "Give their types with --input_schema FILE" in capsys.readouterr().err
    assert tables_in(bigquery, dataset) == [], "nothing is made"
    assert batch(*flags, f"--model={criteo.model}", "--columns=I1") == 0
    assert bigquery.client.get_table(f"{dataset}.t").schema[0].name == "I1"


# Values of every kind -----------------------------------------------------------------------------------------------

NESTED: list[dict[str, Any]] = [
    {"name": "id", "type": "INTEGER", "mode": "REQUIRED"},
    {"name": "x", "type": "FLOAT"},
    {"name": "tags", "type": "STRING", "mode": "REPEATED"},
    {"name": "who", "type": "RECORD", "fields": [{"name": "name", "type": "STRING"}, {"name": "born", "type": "DATE"}]},
    {"name": "visits", "type": "RECORD", "mode": "REPEATED", "fields": [{"name": "at", "type": "TIMESTAMP"}]},
    {"name": "price", "type": "NUMERIC"},
    {"name": "raw", "type": "BYTES"},
]


@pytest.fixture(scope="module")
def nested(bigquery: BigQuery) -> str:
    """A table that no test writes to."""
    table = bigquery.make_table(NESTED)
    bigquery.client.query(
        f"INSERT INTO `{table}` VALUES "
        "(1, 0.5, ['a', 'b'], STRUCT('ü', DATE '2026-01-02'), [STRUCT(TIMESTAMP '2026-01-02 03:04:05.000006+00')], "
        "NUMERIC '1.500000001', FROM_HEX('00ff')), (2, 1.5, [], NULL, [], NULL, NULL), (3, NULL, [], NULL, [], NULL, "
        "NULL)"
    ).result()
    return table


def one_input_model(directory: Path) -> str:
    """A model that takes one float and gives a list of what is more than one."""
    import tensorflow as tf

    class Twice(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"twice": 2 * x, "powers": tf.stack([x, x * x, x * x * x], axis=1)}

    module = Twice()
    tf.saved_model.save(module, f"{directory}/1", signatures=module.__call__)
    return str(directory)


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> str:
    return one_input_model(tmp_path_factory.mktemp("twice"))


def test_nested_rows_and_nulls(bigquery: BigQuery, nested: str, twice: str, dataset: str) -> None:
    """Records, lists, decimals and bytes pass through; a null that the model cannot take fails its row."""
    flags = [f"--input_table={nested}", f"--output_table={dataset}.t", f"--failures_table={dataset}.f"]
    assert batch(*flags, f"--model={twice}", "--max_failure_rate=0.4") == 0
    source = {row["id"]: row for row in bigquery.rows(nested)}
    written = {row["id"]: row for row in bigquery.rows(f"{dataset}.t")}
    assert set(written) == {1, 2}
    for row in written.values():
        assert {name: row[name] for name in source[1]} == source[row["id"]]
    assert (written[2]["twice"], written[2]["powers"]) == (3.0, [1.5, 2.25, 3.375])
    (failure,) = bigquery.rows(f"{dataset}.f")
    assert (failure["stage"], failure["origin"].split("#")[0]) == ("bind", nested)
    assert json.loads(failure["payloadString"])["id"] == 3
    types = fields_of(bigquery, f"{dataset}.t")
    assert [types[field["name"]] for field in NESTED] == [field["type"] for field in NESTED]


def test_defaults_stand_for_nulls(bigquery: BigQuery, nested: str, twice: str, dataset: str) -> None:
    flags = [f"--input_table={nested}", f"--output_table={dataset}.t", f"--failures_table={dataset}.f"]
    assert batch(*flags, f"--model={twice}", "--column_defaults=x=4", "--exclude_columns=who,visits") == 0
    assert {row["id"]: row["twice"] for row in bigquery.rows(f"{dataset}.t")} == {1: 1.0, 2: 3.0, 3: 8.0}


# What becomes of the table ------------------------------------------------------------------------------------------


def write_twice(flags: list[str], disposition: str) -> list[int]:
    """Runs a job whose table is not there, and then again; returns the exit codes."""
    return [batch(*flags, f"--write_disposition={disposition}") for _ in range(2)]


@pytest.mark.parametrize(
    "method,disposition,codes,times",
    [
        ("storage_write_api", "append", [0, 0], 2),
        ("storage_write_api", "truncate", [0, 0], 1),
        ("storage_write_api", "empty", [0, 2], 1),
        ("file_loads", "truncate", [0, 0], 1),  # see tests/transforms/bigquery/test_load_table.py for the others
    ],
)
def test_dispositions(
    bigquery: BigQuery,
    gcs: Any,
    nested: str,
    twice: str,
    dataset: str,
    method: str,
    disposition: str,
    codes: list[int],
    times: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = [f"--input_table={nested}", f"--output_table={dataset}.t", f"--failures_table={dataset}.f"]
    flags += [f"--model={twice}", "--max_failure_rate=0.4", f"--write_method={method}"]
    flags += [f"--temp_location=gs://{gcs.bucket}/temp"] if method == "file_loads" else []
    assert write_twice(flags, disposition) == codes
    assert Counter(row["id"] for row in bigquery.rows(f"{dataset}.t")) == {1: times, 2: times}
    assert tables_in(bigquery, dataset) == ["f", "t"], "no table is left behind"
    if codes[1]:
        said = capsys.readouterr().err
        assert f"table {dataset}.t has rows, and --write_disposition empty says that it has none" in said


def test_loads_want_a_place_for_files(
    nested: str, twice: str, dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [f"--input_table={nested}", f"--output_table={dataset}.t", f"--failures_table={dataset}.f"]
    assert batch(*flags, f"--model={twice}", "--write_method=file_loads") == 2
    assert "give --temp_location gs://BUCKET/DIRECTORY" in capsys.readouterr().err


def test_the_failure_rate_is_judged_before_rows_are_seen(
    bigquery: BigQuery, nested: str, twice: str, dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [f"--input_table={nested}", f"--output_table={dataset}.t", f"--failures_table={dataset}.f"]
    for disposition in ("append", "truncate"):
        assert batch(*flags, f"--model={twice}", f"--write_disposition={disposition}") == 3
        assert bigquery.rows(f"{dataset}.t") == []
    assert len(bigquery.rows(f"{dataset}.f")) == 2, "one of each job"
    assert tables_in(bigquery, dataset) == ["f", "t"]
    assert "more than --max_failure_rate 0.1 allows" in capsys.readouterr().err


def test_nothing_to_read(bigquery: BigQuery, twice: str, dataset: str) -> None:
    empty = bigquery.make_table(NESTED)
    flags = [f"--input_table={empty}", f"--output_table={dataset}.t", f"--failures_table={dataset}.f"]
    assert batch(*flags, f"--model={twice}") == 0
    assert bigquery.rows(f"{dataset}.t") == []


def test_a_column_that_the_table_lacks(
    bigquery: BigQuery, nested: str, twice: str, dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused with its name, unless it may be added; a type that has changed is refused always."""
    bigquery.client.create_table(client.Table(f"{dataset}.t", [client.SchemaField("id", "INTEGER")]))
    flags = [f"--input_table={nested}", f"--output_table={dataset}.t", f"--failures_table={dataset}.f"]
    flags += [f"--model={twice}", "--columns=id", "--max_failure_rate=0.4"]
    assert batch(*flags) == 2
    assert f"table {dataset}.t has no column 'powers'" in capsys.readouterr().err
    assert batch(*flags, "--allow_schema_update") == 0
    assert fields_of(bigquery, f"{dataset}.t")["twice"] == "FLOAT"
    assert {row["id"]: row["twice"] for row in bigquery.rows(f"{dataset}.t")} == {1: 1.0, 2: 3.0}
    drifted = bigquery.make_table([{"name": "id", "type": "STRING"}])
    assert batch(*[flag.replace(f"{dataset}.t", drifted) for flag in flags], "--allow_schema_update") == 2
    said = capsys.readouterr().err
    assert "column 'id'" in said
    assert "is STRING, and INTEGER is to be written" in said


def test_a_table_is_laid_out_as_asked(bigquery: BigQuery, nested: str, twice: str, dataset: str) -> None:
    flags = [f"--input_table={nested}", f"--output_table={dataset}.t", f"--failures_table={dataset}.f"]
    flags += ["--partition_by=_predicted_at:HOUR", "--cluster_by=id,_model"]
    assert batch(*flags, f"--model={twice}", "--max_failure_rate=0.4") == 0
    table = bigquery.client.get_table(f"{dataset}.t")
    assert (table.time_partitioning.field, table.time_partitioning.type_) == ("_predicted_at", "HOUR")
    assert table.clustering_fields == ["id", "_model"]


# What is refused at launch ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flag,words",
    [
        ("--input_table={nested}x", "Is the name right (PROJECT.DATASET.TABLE), and are you allowed to see it?"),
        ("--input_table=nested", "'nested' is not a table id; write PROJECT.DATASET.TABLE"),
        ("--output_table=proj1.nowhere.t", "there is no dataset proj1:nowhere; `bq mk --dataset"),
        ("--failures_table={nested}", "has no column"),
        ("--row_restriction=id >", "(--row_restriction 'id >')"),
        ("--columns=ids", "--columns ids: the input has no such column (did you mean 'id'?)"),
        ("--column_defaults=y=1", "--column_defaults y: the model takes no such column"),
    ],
)
def test_what_does_not_fit(
    bigquery: BigQuery, nested: str, twice: str, dataset: str, flag: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [f"--input_table={nested}", f"--output_table={dataset}.t", f"--failures_table={dataset}.f"]
    assert batch(*flags, f"--model={twice}", flag.format(nested=nested)) == 2
    assert words in capsys.readouterr().err


def test_a_column_of_another_type(
    bigquery: BigQuery, twice: str, dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = bigquery.make_table([{"name": "x", "type": "STRING"}])
    flags = [f"--input_table={table}", f"--output_table={dataset}.t", f"--failures_table={dataset}.f"]
    assert batch(*flags, f"--model={twice}") == 2
    said = capsys.readouterr().err
    assert "column 'x': the model takes float32" in said
    assert "which --input_query can do" in said


@pytest.mark.parametrize("given", ["bigquery_endpoint", "bigquery_storage_endpoint"])
def test_one_endpoint_alone_is_refused(
    bigquery: BigQuery,
    nested: str,
    twice: str,
    tmp_path: Path,
    given: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Tables would be looked at in one place, and rows read from another."""
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST")
    monkeypatch.delenv("BIGQUERY_STORAGE_EMULATOR_HOST")
    flags = [f"--input_table={nested}", f"--output={tmp_path}/out.parquet", f"--model={twice}"]
    assert batch(*flags, f"--{given}={bigquery.url}") == 2
    (other,) = {"bigquery_endpoint", "bigquery_storage_endpoint"} - {given}
    assert f"give --{other} too" in capsys.readouterr().err


def test_credentials_that_do_not_hold_are_told(
    nested: str, twice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise RefreshError("invalid_grant")

    monkeypatch.setattr(client.Client, "get_table", refused)
    flags = [f"--input_table={nested}", f"--output={tmp_path}/out.parquet", f"--model={twice}"]
    assert batch(*flags) == 2
    said = capsys.readouterr().err
    assert "credentials are not valid: invalid_grant; `gcloud auth application-default login` renews yours" in said


def test_endpoints_can_be_given_by_flags(
    bigquery: BigQuery, nested: str, twice: str, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST")
    monkeypatch.delenv("BIGQUERY_STORAGE_EMULATOR_HOST")
    flags = [f"--input_table={nested}", f"--output_table={dataset}.t", f"--failures_table={dataset}.f"]
    flags += [f"--bigquery_endpoint={bigquery.url}", f"--bigquery_storage_endpoint=http://{bigquery.grpc}"]
    assert batch(*flags, f"--model={twice}", "--max_failure_rate=0.4", "--write_disposition=truncate") == 0
    assert len(bigquery.rows(f"{dataset}.t")) == 2
