"""`sluice streaming` into a BigQuery table by the Storage Write API, on the emulator and on a proxy before it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from sluice.pipelines.cli import main
from sluice.pipelines.options.streaming import StreamingOptions
from sluice.pipelines.plan.streaming_job import make_tables, plan_streaming
from sluice.transforms.bigquery.clients import EMULATOR_VARIABLE, STORAGE_EMULATOR_VARIABLE
from tests.support.bigquery.proxy import BigQueryProxy
from tests.support.pubsub.streams import LocalJob, make_ends, wait_until
from tests.support.saved_models.zoo import ZooSample
from tests.support.servers import BigQuery, Pubsub

# Of a table that lacks `_model`, and whose `note` takes JSON alone.
NARROW = [
    {"name": "x", "type": "INTEGER", "mode": "REQUIRED"},
    {"name": "note", "type": "JSON"},
    {"name": "root", "type": "FLOAT"},
    {"name": "_version", "type": "INTEGER"},
    {"name": "_message_id", "type": "STRING"},
    {"name": "_predicted_at", "type": "TIMESTAMP"},
]


@pytest.fixture
def picky(cases: Callable[[str], str]) -> str:
    """A model that takes a number x, and gives its root."""
    return cases("picky")


@pytest.fixture
def schema_of(tmp_path: Path) -> Callable[..., str]:
    """Writes a file for --input_schema; returns its path."""

    def write(**types: str) -> str:
        path = tmp_path / "schema.json"
        path.write_text(json.dumps([{"name": name, "type": kind} for name, kind in types.items()]))
        return str(path)

    return write


@pytest.fixture
def no_variables(bigquery: BigQuery, monkeypatch: pytest.MonkeyPatch) -> None:
    """No environment variable says where BigQuery is."""
    for name in (EMULATOR_VARIABLE, STORAGE_EMULATOR_VARIABLE):
        monkeypatch.delenv(name)


def lines_with_ids(sample: ZooSample) -> list[bytes]:
    """The sample's rows as JSON, each with its number as `row`."""
    lines = Path(sample.path("jsonl")).read_bytes().splitlines()
    return [json.dumps({**json.loads(line), "row": number}).encode() for number, line in enumerate(lines)]


@pytest.mark.usefixtures("no_variables")
def test_rows_are_those_of_the_model_called_directly_though_bigquery_is_away_for_a_while(
    pubsub: Pubsub, bigquery: BigQuery, zoo_samples: dict[str, ZooSample], schema_of: Callable[..., str]
) -> None:
    sample = zoo_samples["natality"]
    payloads, half = lines_with_ids(sample), sample.rows // 2
    table = f"{bigquery.make_dataset()}.predictions"
    ends, began = make_ends(pubsub), datetime.datetime.now(datetime.UTC)
    with closing(BigQueryProxy(bigquery)) as proxy:
        flags = [
            f"--model={sample.model}",
            f"--input_subscription={ends.subscription}",
            f"--input_schema={schema_of(row='INTEGER')}",
            "--columns=row,mother_age,plurality",
            f"--output_table={table}",
            "--partition_by=_predicted_at:MONTH",
            "--cluster_by=plurality,_version",
            f"--failures_topic={ends.failures_topic}",
            f"--bigquery_endpoint={bigquery.url}",
            f"--bigquery_storage_endpoint={proxy.url}",
        ]
        with LocalJob(flags) as job:
            ends.publish(payloads[:half])
            job.wait_for(half)
            proxy.fail_always("AppendRows")
            proxy.stop()  # the connection breaks, and new ones are refused, and then broken off
            proxy.start()
            ends.publish(payloads[half:])
            wait_until(lambda: proxy.happened >= 3, "refusals")
            assert job.figures()["messages"] == half  # what is not written is not acknowledged
            proxy.recover()
            job.wait_for(sample.rows)
            assert job.stop() == 0
    assert (job.summary["predictions"], job.summary["failures"], job.summary["restarts"]) == (sample.rows, 0, 0)
    rows = sorted(bigquery.rows(table), key=lambda row: row["row"])
    sources = [json.loads(payload) for payload in payloads]
    added = {"weight_pounds", "_model", "_version", "_message_id", "_predicted_at"}
    assert {*rows[0]} == {"row", "mother_age", "plurality", *added}
    assert len({row["_message_id"] for row in rows}) == sample.rows
    for name in ("row", "mother_age", "plurality"):
        assert [row[name] for row in rows] == [source[name] for source in sources]
    expected = np.ravel(sample.expected()["weight_pounds"])
    np.testing.assert_allclose([row["weight_pounds"] for row in rows], expected, rtol=1e-5, atol=1e-6)
    assert {(row["_model"], row["_version"]) for row in rows} == {(sample.model, 1)}
    assert all(began < row["_predicted_at"] < datetime.datetime.now(datetime.UTC) for row in rows)
    made = bigquery.client.get_table(table)
    assert (made.time_partitioning.field, made.time_partitioning.type_) == ("_predicted_at", "MONTH")
    assert made.clustering_fields == ["plurality", "_version"]


def test_a_row_that_bigquery_refuses_is_a_failure_with_its_words(
    pubsub: Pubsub, bigquery: BigQuery, picky: str, schema_of: Callable[..., str]
) -> None:
    """The table is another's: it gets the column that it lacks, and has one that does not take every text."""
    table, ends = bigquery.make_table(NARROW), make_ends(pubsub)
    payloads = [b'{"x": %d, "note": "[%d]"}' % (number**2, number) for number in range(50)]
    payloads[7], payloads[30] = b'{"x": 49, "note": "{no JSON"}', b'{"x": -1}'
    ends.publish(payloads, [{"id": str(number)} for number in range(50)])
    flags = [
        f"--model={picky}",
        f"--input_subscription={ends.subscription}",
        f"--input_schema={schema_of(note='STRING', x='INTEGER')}",
        f"--output_table={table}",
        "--allow_schema_update",
        f"--failures_table={table}_failures",
    ]
    with LocalJob(flags) as job:
        job.wait_for(50)
        assert job.stop() == 0
    rows = {row["x"]: row for row in bigquery.rows(table)}  # doubles: the emulator has taken some of what it refuses
    assert {x: (row["root"], row["note"]) for x, row in rows.items()} == {
        number**2: (number, [number]) for number in range(50) if number not in (7, 30)
    }
    assert {row["_model"] for row in rows.values()} == {picky}
    refused, raised = sorted(bigquery.rows(f"{table}_failures"), key=lambda row: int(row["attributes"][0]["value"]))
    assert (refused["stage"], refused["errorType"]) == ("write", "AppendError")
    assert "{no JSON" in refused["errorMessage"]
    assert refused["payloadBytes"] == payloads[7]
    assert (refused["model"], raised["stage"]) == (picky, "predict")
    assert job.summary["failures_by_stage"] == {"predict": {"BadInput": 1}, "write": {"AppendError": 1}}


@pytest.mark.usefixtures("no_variables")
def test_rows_are_sent_in_types_that_the_table_has(bigquery: BigQuery, picky: str, tmp_path: Path) -> None:
    """Until the table is looked at, they are those of one that is made."""
    fields = [{"name": "root", "type": "FLOAT", "mode": "REQUIRED"}, *NARROW[3:], {"name": "_model", "type": "STRING"}]
    options = StreamingOptions(
        model=picky,
        input_subscription="projects/sluice-test/subscriptions/none",
        output_table=bigquery.make_table(fields),
        columns=(),
        failures=str(tmp_path / "failed"),
        bigquery_endpoint=bigquery.url,
        bigquery_storage_endpoint=f"http://{bigquery.grpc}",
    )
    plan = plan_streaming(options, native=False)
    for table, mode in ((plan.output_table, "NULLABLE"), (make_tables(plan).output_table, "REQUIRED")):
        assert table is not None
        assert {field["name"]: field["mode"] for field in table.fields}["root"] == mode


@pytest.mark.parametrize(
    ("fields", "more", "text"),
    [
        (
            NARROW,
            ["--columns="],
            "has no column '_model', which is to be written as STRING: add it to the table (--allow_schema_",
        ),
        ([{"name": "x", "type": "STRING"}], ["--allow_schema_update"], "is STRING, and FLOAT is to be written: change"),
        ([], ["--partition_by=x"], "--partition_by x: the column is FLOAT; it must be one of DATE"),
        ([], ["--cluster_by=nosuch"], "--cluster_by nosuch: the table has no such column; it has x, root, _model, "),
        ([], ["--partition_by=x:WEEK"], "--partition_by x:WEEK: write FIELD or FIELD:DAY"),
        (NARROW, ["--output_table=t"], "'t' is not a table id; write PROJECT.DATASET.TABLE"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    bigquery: BigQuery,
    picky: str,
    capsys: pytest.CaptureFixture[str],
    fields: list[dict[str, str]],
    more: list[str],
    text: str,
) -> None:
    flags = [
        f"--model={picky}",
        "--input_subscription=projects/sluice-test/subscriptions/none",
        f"--output_table={bigquery.make_table(fields) if fields else f'{bigquery.make_dataset()}.t'}",
        "--columns=x",
        "--failures=/tmp/none",
    ]
    assert main(["streaming", *flags, *more]) == 2
    assert text in capsys.readouterr().err
