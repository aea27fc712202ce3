"""Rows to a table by load jobs, on the emulator, which reads the files from the emulator of GCS.

The emulator differs from BigQuery in what WRITE_TRUNCATE_DATA does: it replaces the schema as well, as WRITE_TRUNCATE
would. And it has no decimals of more than 38 digits. Of these the tests look at the request, and at the files.
"""

import dataclasses
import datetime
import decimal
import itertools
import json
import pickle
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from google.cloud import bigquery as google

from sluice.models.errors import SluiceError, UsageError
from sluice.transforms.bigquery import file_loads
from sluice.transforms.bigquery.file_loads import LoadCommitter, WriteLoadFiles, load_groups
from sluice.transforms.bigquery.jobs import JobRunner
from sluice.transforms.bigquery.table import PREDICTED_AT, TableOptions, table_fields
from sluice.transforms.bigquery.table_layout import TableLayout
from sluice.transforms.bigquery.table_target import TableTarget, check_loadable, plan_table
from sluice.transforms.core.commit import Commit, Committed, FailurePolicy
from sluice.transforms.core.failures import ENCODE, Failure
from sluice.transforms.files.commit import FilesCommitter
from sluice.transforms.files.write import Shard, Target, WriteFailureShards
from tests.support.servers import BigQuery, Gcs
from tests.support.serving.http_proxy import Proxy
from tests.transforms.bigquery.test_write_inserts import EVERY_TYPE, comparable

UTC = datetime.UTC
NOW = 1_750_000_000.25
SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string())])
D = decimal.Decimal


def plan(table: str, schema: pa.Schema = SCHEMA, disposition: str = "append", **options: Any) -> TableTarget:
    """Returns the target of a new job."""
    return plan_table(table, schema, f"job-{uuid.uuid4().hex[:8]}", disposition, **options)


def batch_of(*ids: int) -> pa.RecordBatch:
    return pa.record_batch([pa.array(ids, pa.int64()), pa.array(["x"] * len(ids))], schema=SCHEMA)


def write(target: TableTarget, files: Target, *batches: pa.RecordBatch) -> tuple[list[Shard], list[Failure]]:
    """Writes batches in one bundle."""
    fn = WriteLoadFiles(target, files, lambda: NOW)._fn
    fn.start_bundle()
    outputs = [each for batch in batches for each in fn.process(batch)]
    shards = [each.value for each in fn.finish_bundle()]
    return shards, [each.value for each in outputs]


def shards_of(target: TableTarget, files: Target, count: int) -> list[Shard]:
    """Writes the rows 0, 1, ..., each to a file of its own."""
    return [shard for number in range(count) for shard in write(target, files, batch_of(number))[0]]


def ids_in(bigquery: BigQuery, table: str) -> list[int]:
    return sorted(row["id"] for row in bigquery.rows(table))


def tables_beside(bigquery: BigQuery, table: str) -> list[str]:
    return sorted(each.table_id for each in bigquery.client.list_tables(table.rsplit(".", 1)[0]))


def staging_of(target: TableTarget) -> str:
    return f"{target.table.rsplit('.', 1)[0]}.sluice_tmp_{target.job.replace('-', '_')}"


def read_file(shard: Shard) -> pq.ParquetFile:
    with FileSystems.open(shard.path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return pq.ParquetFile(pa.BufferReader(file.read()))


def jobs_in(proxy: Proxy) -> list[tuple[str, str, dict[str, Any]]]:
    """Returns the jobs that were requested: the end of each id, its kind, and its configuration."""
    posted = [each for each in proxy.posted if "jobReference" in each]
    return [
        (each["jobReference"]["jobId"].partition("_job-")[2][9:], kind, each["configuration"][kind])
        for each in posted
        for kind in ("load", "query", "copy")
        if kind in each["configuration"]
    ]


@pytest.fixture
def table(bigquery: BigQuery) -> str:
    """A table that does not exist yet."""
    return f"{bigquery.make_dataset()}.t"


@pytest.fixture
def files(gcs: Gcs) -> Target:
    temp = gcs.path(f"temp/{uuid.uuid4().hex}")
    return Target(f"{temp}/rows", ".parquet", temp)


@pytest.fixture
def proxy(bigquery: BigQuery) -> Iterator[Proxy]:
    with closing(Proxy(bigquery.url)) as server:
        yield server


# What is in the files -----------------------------------------------------------------------------------------------


def test_values_of_every_type_come_back(bigquery: BigQuery, table: str, files: Target) -> None:
    schema = pa.schema([(name, column[0]) for name, column in EVERY_TYPE.items()])
    target = plan(table, schema)
    batch = pa.record_batch([pa.array(column[1], column[0]) for column in EVERY_TYPE.values()], schema=schema)
    shards, failures = write(target, files, batch)
    assert failures == []
    LoadCommitter(target, files).commit(shards)
    found = sorted(bigquery.rows(table), key=lambda row: row["id"])
    wanted = {name: column[-1] for name, column in EVERY_TYPE.items()}
    wanted["f4"] = pa.array(wanted["f4"], pa.float32()).to_pylist()  # the exact value, not its shortest text
    wanted["floats"] = pa.array(wanted["floats"], pa.list_(pa.float32())).to_pylist()
    for column, values in wanted.items():
        assert comparable([row[column] for row in found]) == comparable(values), column
    assert {row[PREDICTED_AT] for row in found} == {datetime.datetime.fromtimestamp(NOW, UTC)}


def test_files_have_the_types_that_bigquery_takes_for_the_tables(bigquery: BigQuery, files: Target) -> None:
    """The conversions are those of BigQuery's documentation; a list is REPEATED because of enable_list_inference."""
    columns = {
        "i": ("INTEGER", pa.array([1], pa.int64()), "i INT64 None"),
        "f": ("FLOAT", pa.array([0.5]), "f DOUBLE None"),
        "b": ("BOOLEAN", pa.array([True]), "b BOOLEAN None"),
        "s": ("STRING", pa.array(["é"]), "s BYTE_ARRAY String"),
        "y": ("BYTES", pa.array([b"\xff"]), "y BYTE_ARRAY None"),
        "n": (
            "NUMERIC",
            pa.array([D(7)], pa.decimal128(38, 9)),
            "n FIXED_LEN_BYTE_ARRAY Decimal(precision=38, scale=9)",
        ),
        "big": (
            "BIGNUMERIC",
            pa.array([D("1e-38")], pa.decimal256(76, 38)),
            "big FIXED_LEN_BYTE_ARRAY Decimal(precision=76, scale=38)",
        ),
        "d": ("DATE", pa.array([datetime.date(2024, 2, 29)]), "d INT32 Date"),
        "t": ("TIME", pa.array([1], pa.time64("us")), "t INT64 Time(isAdjustedToUTC"),
        "dt": (
            "DATETIME",
            pa.array([1], pa.timestamp("us")),
            "dt INT64 Timestamp(isAdjustedToUTC=false, timeUnit=micro",
        ),
        "ts": (
            "TIMESTAMP",
            pa.array([1], pa.timestamp("us", "UTC")),
            "ts INT64 Timestamp(isAdjustedToUTC=true, timeUnit=micro",
        ),
    }  # fmt: skip
    fields = [{"name": name, "type": kind, "mode": "NULLABLE"} for name, (kind, *_) in columns.items()]
    fields += [
        {"name": "id", "type": "INTEGER", "mode": "REQUIRED"},
        {"name": "many", "type": "STRING", "mode": "REPEATED"},
        {"name": "records", "type": "RECORD", "mode": "REPEATED", "fields": fields[:1]},
    ]
    arrays = {name: array for name, (_, array, _) in columns.items()} | {
        "id": pa.array([1]),
        "many": pa.array([["a"]]),
        "records": pa.array([[{"i": 1}]]),
    }
    batch = pa.record_batch(list(arrays.values()), list(arrays))
    schema = pa.schema([field.with_nullable(field.name != "id") for field in batch.schema])
    table = bigquery.make_table([*fields, {"name": PREDICTED_AT, "type": "TIMESTAMP", "mode": "REQUIRED"}])
    (shard,), failures = write(plan(table, schema), files, batch)
    assert failures == []
    file = read_file(shard)
    found = {column.path: column for column in file.schema}
    shown = {path: f"{path} {column.physical_type} {column.logical_type}" for path, column in found.items()}
    for name, (*_, wanted) in columns.items():
        assert shown[name].startswith(wanted), name
        assert found[name].max_definition_level == 1, name
    assert [found[name].max_definition_level for name in ("id", PREDICTED_AT)] == [0, 0]  # REQUIRED
    assert {"many.list.element", "records.list.element.i"} < set(found)
    assert file.read().column("big").to_pylist() == [D("1e-38")]


def test_decimals_go_to_the_type_that_the_table_has(bigquery: BigQuery, files: Target) -> None:
    """BigQuery reads a decimal as NUMERIC if that has its digits, else as BIGNUMERIC."""
    kinds = {"n": ("NUMERIC", pa.decimal128(5, 2)), "big": ("BIGNUMERIC", pa.decimal256(5, 2))}
    fields = [
        {"name": name, "type": kind, "mode": "REPEATED", "precision": "5", "scale": "2"}
        for name, (kind, _) in kinds.items()
    ]
    table = bigquery.make_table([*fields, {"name": PREDICTED_AT, "type": "TIMESTAMP"}])
    schema = pa.schema([(name, pa.list_(kind)) for name, (_, kind) in kinds.items()])
    batch = pa.record_batch([pa.array([[D("1.5")]], field.type) for field in schema], schema=schema)
    (shard,), _ = write(plan(table, schema), files, batch)
    rows = read_file(shard).read()
    assert [rows.schema.field(name).type.value_type for name in kinds] == [pa.decimal128(5, 2), pa.decimal256(76, 38)]
    assert [rows.column(name).to_pylist() for name in kinds] == [[[D("1.5")]]] * 2


def test_a_row_that_cannot_be_converted_fails_alone(bigquery: BigQuery, table: str, files: Target) -> None:
    target = plan(table)
    texts = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    shards, (failure,) = write(target, files, pa.record_batch([pa.array([1, 2, 3]), texts], schema=SCHEMA), batch_of(4))
    assert (failure.stage, failure.error_type) == (ENCODE, "SluiceError")
    assert "column 'text': string does not fit string of the table: Invalid UTF8" in failure.error_message
    assert [shard.rows for shard in shards] == [3]
    LoadCommitter(target, files).commit(shards)
    assert ids_in(bigquery, table) == [1, 3, 4]


@pytest.mark.parametrize(
    ("there", "text"),
    [
        (
            {"type": "JSON"},
            "column 'one.x' is JSON in the table, which load jobs do not accept in Parquet files: give ",
        ),
        (
            {"type": "GEOGRAPHY"},
            "column 'one.x' is GEOGRAPHY in the table, and one text that is not a geography would fail the ",
        ),
        ({"maxLength": "7"}, r"column 'one.x' is STRING\(7\) in the table, and one value that is longer would fail "),
    ],
)
def test_columns_of_which_one_value_could_fail_the_job_are_refused(there: dict[str, str], text: str) -> None:
    schema = pa.schema([("id", pa.int64()), ("One", pa.list_(pa.struct([("x", pa.string())])))])
    record, other = (
        {"name": name, "type": "RECORD", "mode": "REPEATED", "fields": [{"name": "X", "type": "STRING", **each}]}
        for name, each in (("one", there), ("not_written", {"type": "JSON"}))
    )
    with pytest.raises(UsageError, match=f"(?i){text}.*--write_method storage_write_api"):
        check_loadable(schema, [{"name": "id", "type": "INTEGER"}, record])
    check_loadable(pa.schema([("id", pa.int64())]), [{"name": "id", "type": "INTEGER"}, record, other])


def test_what_sluice_makes_itself_is_loadable() -> None:
    schema = pa.schema([(name, column[0]) for name, column in EVERY_TYPE.items()])
    check_loadable(schema, table_fields(schema))


# One job ------------------------------------------------------------------------------------------------------------


def test_rows_are_seen_once_they_are_put_in_place(bigquery: BigQuery, table: str, files: Target) -> None:
    target = plan(table)
    shards = shards_of(target, files, 3)
    place = LoadCommitter(target, files)
    assert bigquery.rows(table) == []
    assert place.commit(shards) == ()
    assert ids_in(bigquery, table) == [0, 1, 2]
    place.commit([*reversed(shards), shards[0]])  # the step is tried again
    assert ids_in(bigquery, table) == [0, 1, 2]
    place.clean_up()
    assert [match.metadata_list for match in FileSystems.match([f"{files.temp}/**"])] == [[]]
    elsewhere = LoadCommitter(plan(table), dataclasses.replace(files, temp=f"{files.temp}-of-another"))
    finishing, parts = elsewhere.noted(json.loads(json.dumps(place.note(shards))))
    assert (finishing.files, finishing.target.job, parts) == (files, target.job, shards)
    finishing.commit(parts)  # by another command
    pickle.loads(pickle.dumps(place)).commit(shards)  # and again, on another machine, with the files gone
    place.clean_up()
    assert ids_in(bigquery, table) == [0, 1, 2]
    again = plan(table)
    LoadCommitter(again, files).commit(shards_of(again, files, 1))
    assert ids_in(bigquery, table) == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("disposition", "word", "seen"),
    [("append", "WRITE_APPEND", [0, 7]), ("truncate", "WRITE_TRUNCATE_DATA", [0]), ("empty", "WRITE_EMPTY", [0])],
)
def test_one_job_does_what_the_disposition_says(
    bigquery: BigQuery, table: str, files: Target, proxy: Proxy, disposition: str, word: str, seen: list[int]
) -> None:
    if disposition != "empty":
        old = plan(table)
        LoadCommitter(old, files).commit(write(old, files, batch_of(7))[0])
    target = plan(table, SCHEMA, disposition, endpoint=proxy.url)
    shards = shards_of(target, files, 1)
    for _ in range(2):
        LoadCommitter(target, files).commit(shards)
        assert ids_in(bigquery, table) == seen
    project, dataset, name = table.split(".")
    wanted = {
        "sourceUris": [shards[0].path],
        "sourceFormat": "PARQUET",
        "parquetOptions": {"enableListInference": True},
        "decimalTargetTypes": ["NUMERIC", "BIGNUMERIC"],
        "destinationTable": {"projectId": project, "datasetId": dataset, "tableId": name},
        "createDisposition": "CREATE_NEVER",
        "writeDisposition": word,
    }
    assert jobs_in(proxy) == [("load_0", "load", wanted)] * 2


def test_a_table_that_has_got_rows_is_not_empty(bigquery: BigQuery, table: str, files: Target) -> None:
    target = plan(table, SCHEMA, "empty")
    other = plan(table)
    LoadCommitter(other, files).commit(write(other, files, batch_of(7))[0])
    for _ in range(2):
        with pytest.raises(SluiceError, match="has got rows since the job began, and disposition empty says"):
            LoadCommitter(target, files).commit(shards_of(target, files, 1))
    assert ids_in(bigquery, table) == [7]


def test_no_rows_append_nothing_and_replace_all(bigquery: BigQuery, table: str, files: Target, proxy: Proxy) -> None:
    target = plan(table)
    LoadCommitter(target, files).commit(shards_of(target, files, 2))
    assert write(target, files) == ([], [])
    for disposition in ("append", "empty"):
        LoadCommitter(TableTarget(table, table, target.schema, disposition, "j", proxy.url), files).commit([])
    assert proxy.posted == []
    nothing = plan(table, SCHEMA, "truncate", endpoint=proxy.url)
    for _ in range(2):
        LoadCommitter(nothing, files).commit([])
    assert bigquery.rows(table) == []
    assert {(end, kind, job["writeDisposition"]) for end, kind, job in jobs_in(proxy)} == {
        ("load_0", "load", "WRITE_TRUNCATE_DATA")
    }


def test_a_load_that_fails_tells_why_and_loads_nothing(bigquery: BigQuery, table: str, files: Target) -> None:
    target = plan(table)
    (good,) = shards_of(target, files, 1)
    with FileSystems.create(f"{files.temp}/bad.parquet", compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(b"this is no Parquet file")
    bad = Shard(f"{files.temp}/bad.parquet", 1, 23)
    for _ in range(2):  # the job is found as it failed
        with pytest.raises(
            SluiceError,
            match=rf"^table {table}: its rows cannot be loaded: job {bigquery.project}:US.sluice_{target.job}_load_0 "
            "failed: Error while reading data, error message: .*",
        ):
            LoadCommitter(target, files).commit([good, bad])
    assert bigquery.rows(table) == []


def test_a_table_that_is_gone_is_not_made_again(bigquery: BigQuery, table: str, files: Target) -> None:
    target = plan(table)
    shards = shards_of(target, files, 1)
    bigquery.client.delete_table(table)
    with pytest.raises(SluiceError, match=rf"table {table}: its rows cannot be loaded: .*[Nn]ot found"):
        LoadCommitter(target, files).commit(shards)
    assert tables_beside(bigquery, table) == []


def test_what_is_not_allowed_fails_at_once(table: str, files: Target, proxy: Proxy) -> None:
    target = plan(table, endpoint=proxy.url)
    shards = shards_of(target, files, 1)
    proxy.answers = [(403, {"error": {"message": "no bigquery.jobs.create", "errors": [{"reason": "accessDenied"}]}})]
    with pytest.raises(SluiceError, match=rf"table {table}: its rows cannot be loaded: 403 .*no bigquery.jobs.create"):
        LoadCommitter(target, files).commit(shards)


def test_a_request_that_is_not_answered_is_made_again(
    bigquery: BigQuery, table: str, files: Target, proxy: Proxy
) -> None:
    target = plan(table, endpoint=proxy.url)
    shards = shards_of(target, files, 1)
    proxy.answers = [(503, {"error": {"message": "later", "errors": [{"reason": "backendError"}]}})]
    LoadCommitter(target, files).commit(shards)
    assert [end for end, *_ in jobs_in(proxy)] == ["load_0", "load_0"]
    assert ids_in(bigquery, table) == [0]


# Several jobs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("disposition", "last", "seen"),
    [
        ("append", ("copy", "WRITE_APPEND"), [0, 1, 2, 7]),
        ("truncate", ("query", "WRITE_TRUNCATE_DATA"), [0, 1, 2]),
        ("empty", ("copy", "WRITE_EMPTY"), [0, 1, 2]),
    ],
)
def test_more_than_one_job_may_load_is_seen_all_at_once(
    bigquery: BigQuery,
    table: str,
    files: Target,
    proxy: Proxy,
    disposition: str,
    last: tuple[str, str],
    seen: list[int],
) -> None:
    if disposition != "empty":
        old = plan(table)
        LoadCommitter(old, files).commit(write(old, files, batch_of(7))[0])
    target = plan(table, SCHEMA, disposition, endpoint=proxy.url)
    shards = shards_of(target, files, 3)
    place = LoadCommitter(target, files, max_files=2)
    place.commit(shards)
    assert ids_in(bigquery, table) == seen
    staging = staging_of(target).rsplit(".", 1)[1]
    asked = [
        (end, kind, job["writeDisposition"], job["destinationTable"]["tableId"]) for end, kind, job in jobs_in(proxy)
    ]
    parts = [(f"part{number}_0", "load", "WRITE_APPEND", staging) for number in range(2)]
    assert asked == [*parts, ("load_0", *last, "t")]
    assert tables_beside(bigquery, table) == [staging, "t"]
    assert bigquery.client.get_table(staging_of(target)).expires is not None
    place.clean_up()  # the proxy knows no DELETE
    LoadCommitter(dataclasses.replace(target, endpoint=None), files).clean_up()
    assert tables_beside(bigquery, table) == ["t"]
    place.commit(shards)  # tried again, with the files gone
    assert (ids_in(bigquery, table), len(jobs_in(proxy))) == (seen, 3)


def test_a_table_with_required_columns_is_replaced_by_a_copy(bigquery: BigQuery, files: Target, proxy: Proxy) -> None:
    """A query's results are never REQUIRED. The copied table has the schema, which the emulator then relaxes."""
    fields = table_fields(pa.schema([SCHEMA.field("id").with_nullable(False), SCHEMA.field("text")]))
    table = bigquery.make_table(fields)
    target = plan(table, SCHEMA, "truncate", endpoint=proxy.url, loaded=True)
    LoadCommitter(target, files, max_files=1).commit(shards_of(target, files, 2))
    assert ids_in(bigquery, table) == [0, 1]
    end, kind, job = jobs_in(proxy)[-1]
    assert (end, kind, job["writeDisposition"]) == ("load_0", "copy", "WRITE_TRUNCATE")
    assert [field.to_api_repr() for field in bigquery.client.get_table(staging_of(target)).schema] == fields


def test_rows_that_wait_do_not_expire_and_are_read_without_a_filter() -> None:
    like = google.Table("p.d.t", [google.SchemaField("day", "DATE")])
    layout = {"type": "MONTH", "field": "day", "expirationMs": "1", "requirePartitionFilter": True}
    like.time_partitioning = google.TimePartitioning.from_api_repr(layout)
    like.clustering_fields = ["day"]
    found = file_loads._laid_out(google.Table("p.d.s"), like)
    assert found.time_partitioning == google.TimePartitioning("MONTH", "day")
    assert found.clustering_fields == ["day"]
    assert file_loads._laid_out(google.Table("p.d.s"), google.Table("p.d.t")).time_partitioning is None


def test_a_table_for_rows_to_wait_in_is_laid_out_as_theirs(bigquery: BigQuery, table: str, files: Target) -> None:
    """BigQuery copies only between tables of the same layout."""
    schema = pa.schema([("id", pa.int64()), ("text", pa.string()), ("day", pa.date32())])
    target = plan(table, schema, options=TableOptions(TableLayout("day", "MONTH", ("text",))))
    day = pa.array([datetime.date(2024, 2, 29)])
    shards = [
        shard
        for number in range(2)
        for shard in write(target, files, pa.record_batch([pa.array([number]), pa.array(["x"]), day], schema=schema))[0]
    ]
    LoadCommitter(target, files, max_bytes=1).commit(shards)
    assert ids_in(bigquery, table) == [0, 1]
    staging = bigquery.client.get_table(staging_of(target))
    there = bigquery.client.get_table(table)
    assert (there.time_partitioning.field, there.time_partitioning.type_) == ("day", "MONTH")
    assert staging.time_partitioning == there.time_partitioning
    assert staging.clustering_fields == ["text"]
    assert staging.schema == there.schema


def dies(monkeypatch: pytest.MonkeyPatch, at: int, before: bool) -> None:
    """Makes the step fail at its job of this number."""
    run, jobs = JobRunner._run, itertools.count(1)

    def _run(*arguments: Any) -> None:
        number = next(jobs)
        if not (before and number == at):
            run(*arguments)
        if number == at:
            raise SluiceError("dead")

    monkeypatch.setattr(JobRunner, "_run", _run)


def test_loading_that_dies_half_way_goes_on(bigquery: BigQuery, table: str, files: Target) -> None:
    target = plan(table, SCHEMA, "truncate")
    shards = shards_of(target, files, 2)
    place = LoadCommitter(target, files, max_files=1)
    for at, before, seen in ((1, False, []), (3, True, []), (3, False, [0, 1])):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SluiceError, match="dead"):
            dies(patch, at, before)
            place.commit(shards)
        assert ids_in(bigquery, table) == seen
    place.commit(shards)
    assert ids_in(bigquery, table) == [0, 1]


def test_rows_that_waited_and_are_gone_are_missed(bigquery: BigQuery, table: str, files: Target) -> None:
    target = plan(table)
    shards = shards_of(target, files, 2)
    place = LoadCommitter(target, files, max_files=1)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SluiceError, match="dead"):
        dies(patch, 3, True)
        place.commit(shards)
    place.clean_up()
    with pytest.raises(SluiceError, match=rf"{staging_of(target)}, where rows waited, has 0 of 2 rows; .* run the job"):
        place.commit(shards)
    assert bigquery.rows(table) == []


def test_groups_keep_within_the_limits() -> None:
    shards = [Shard(f"s{number}", 1, number) for number in range(10)]
    names = [[shard.path for shard in group] for group in load_groups([*reversed(shards), shards[0]], 4, 10)]
    assert names == [["s0", "s1", "s2", "s3"], ["s4", "s5"], ["s6"], ["s7"], ["s8"], ["s9"]]
    assert [len(group) for group in load_groups([Shard(str(number), 1, 1) for number in range(10_001)])] == [10_000, 1]
    assert [len(group) for group in load_groups([Shard(str(number), 1, 4 * 10**12) for number in range(4)])] == [3, 1]


# A pipeline ---------------------------------------------------------------------------------------------------------


def test_a_job_loads_its_rows_and_leaves_no_files(
    bigquery: BigQuery, table: str, files: Target, tmp_path: Path
) -> None:
    target = plan(table, SCHEMA, "truncate")
    failures = Target(f"{tmp_path}/failures", ".jsonl", f"{tmp_path}/.temp")
    texts = pa.array([b"a", b"\xff"]).view(pa.string())
    batches = [batch_of(1, 2), pa.record_batch([pa.array([3, 4]), texts], schema=SCHEMA)]
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        rows = (
            pipeline
            | beam.Create(range(len(batches)), reshuffle=False)
            | beam.Map(batches.__getitem__).with_output_types(pa.RecordBatch)
        )
        tally = rows | "Count" >> beam.Map(lambda batch: batch.num_rows)
        written = rows | "Write" >> WriteLoadFiles(target, files)
        failed = written.failures | "WriteFailures" >> WriteFailureShards(failures)
        places = Commit(LoadCommitter(target, files), [FilesCommitter(failures)], FailurePolicy(0.5))
        done = (written.shards, failed, tally) | "Commit" >> places
        done | "Keep" >> beam.Map(_keep, f"{tmp_path}/committed")
    assert ids_in(bigquery, table) == [1, 2, 3]
    wanted = Committed(4, 3, 1, (), (f"{tmp_path}/failures-00000-of-00001.jsonl",))
    assert (tmp_path / "committed").read_text() == repr(wanted)
    assert FileSystems.match([f"{files.temp}/**"])[0].metadata_list == []
    assert tables_beside(bigquery, table) == ["t"]


def _keep(committed: Committed, path: str) -> None:
    Path(path).write_text(repr(committed))
