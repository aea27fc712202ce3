"""`sluice schema`, and a job that makes its schema itself."""

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sluice.pipelines.cli import main
from sluice.pipelines.plan import declared
from sluice.transforms.bigquery.schema import read_schema_file
from tests.support.formats.decode_cases import put

ROWS = [
    {"amount": 1.5, "items": 3, "member": True, "country": "NO", "id": "007", "tags": [1, 2], "odd": 5},
    {"amount": 2, "items": 4, "member": False, "country": "SE", "id": "008", "who": {"name": "Ann"}, "odd": [" x"]},
]


def to_lines(rows: list[dict]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def test_the_schema_of_several_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [
        put(tmp_path, "1.json", json.dumps([{"id": 1, "at": "2024-01-02"}], indent=1).encode()),
        put(tmp_path, "2.jsonl.gz", gzip.compress(to_lines([{"id": 2.5, "at": "2024-01-03"}]))),
        put(tmp_path, "3.ndjson.bz2", bz2.compress(b'{"id": 3}\n[4]\n')),
        put(tmp_path, "4.json.zst", pa.compress(b'{"new": true}', codec="zstd", asbytes=True)),
    ]
    assert main(["schema", *(f"--input={path}" for path in paths), "--rows=all"]) == 0
    told = capsys.readouterr()
    assert read_schema_file(told.out) == pa.schema([("id", pa.float64()), ("new", pa.bool_()), ("at", pa.string())])
    assert told.err.splitlines() == [
        "5 rows of 4 file(s) were looked at; all of them",
        "Unsure:",
        "  id: whole numbers and others: taken as FLOAT",
        "  at: strings that look like times: taken as STRING; DATE, DATETIME or TIMESTAMP may be meant",
        "  1 of 5 rows, which are no JSON objects: they would fail",
    ]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "give --input: the JSON files whose schema is wanted"),
        (["--input=projects/p/subscriptions/s"], "messages would have to be taken away to look at them"),
        (["--input=/nowhere/*.json"], "--input /nowhere/*.json: no file matches"),
        (["--input=f.csv"], "--input: f.csv is csv, and a schema is made from the rows of JSON only"),
        (["--input=f.csv", "--rows=0"], "--rows: expected a number above 0, or all, found '0'"),
        (["--input=f.csv", "--rows=some"], "--rows: expected a number above 0, or all, found 'some'"),
    ],
)
def test_what_it_refuses(
    flags: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "f.csv", b"a\n1\n")
    try:
        code: object = main(["schema", *flags])
    except SystemExit as ended:
        code = ended.code
    assert code == 2 and words in capsys.readouterr().err


@pytest.mark.job
def test_a_job_takes_its_schema_from_the_first_rows_and_a_row_that_does_not_fit_fails(
    cases: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declared, "SAMPLED_ROWS", 2)
    older = ROWS[1] | {"who": {"name": "Bo", "age": 5}}
    path = put(tmp_path, "in.jsonl", to_lines([*ROWS, ROWS[0] | {"tags": "x"}, ROWS[1] | {"odd": True}, older]))
    flags = ["--model", cases("tf2_function"), "--input", path, "--output", str(tmp_path / "out.parquet")]
    assert main(["batch", "--progress=none", *flags, "--input_schema=auto", "--max_failure_rate=0.9"]) == 0
    table = pq.read_table(tmp_path / "out-00000-of-00001.parquet")
    assert table.column_names[:8] == ["amount", "items", "member", "country", "id", "tags", "odd", "who"]
    assert table["tags"].to_pylist() == [[1, 2], None, None]
    assert table["odd"].to_pylist() == ["5", '[" x"]', "true"]
    assert table["who"].to_pylist() == [None, {"name": "Ann"}, {"name": "Ann"}]
    failures = map(json.loads, next(tmp_path.glob("out*failures*")).read_text().splitlines())
    assert [each["error_message"] for each in failures] == [
        "column 'tags': a list is expected, found 'x'",
        "column 'who': no object of the first rows has the key 'age'; declare it in --input_schema FILE",
    ]
