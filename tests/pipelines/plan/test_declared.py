"""--input_schema: a file, or the rows themselves; which rows a sample has."""

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sluice.models.errors import UsageError
from sluice.models.signature import Signature, TensorSpec
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.plan import declared
from sluice.pipelines.plan.declared import Declared, declare, infer_schema, read_input_schema
from sluice.pipelines.plan.input_columns import Wanted, plan_input
from sluice.transforms.decode.spec import CsvOptions
from sluice.transforms.files.find_source import Source, find_source
from tests.support.formats.decode_cases import put

OUTPUT = TensorSpec("score", "float32", (None,))
MODEL = Signature("serving_default", "", (TensorSpec("age", "float32", (None,)),), (OUTPUT,))
GRID = Signature("serving_default", "", (TensorSpec("grid", "float32", (None, 2, 2)),), (OUTPUT,))
UNKNOWN = Signature("serving_default", "", (TensorSpec("examples", "string", (None,)),), (OUTPUT,), ())


def source(path: str | Path) -> Source:
    return find_source(str(path), "", CsvOptions(""))


def rows(*values: Any) -> bytes:
    return b"\n".join(json.dumps(value).encode() for value in values)


def auto(path: str | Path, model: Signature = MODEL, raw: bool = False, **flags: Any) -> Declared:
    options = BatchOptions(model="m", input=str(path), output="o.parquet", input_schema="auto", **flags)
    return declare(options, source(path), model, raw)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "sluice")
    return caplog


def test_the_columns_of_the_model_have_its_types(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    path = put(tmp_path, "f.jsonl", rows({"age": 1, "id": "7"}, {"age": 2.5, "id": None, "odd": 1}, {"odd": "x"}))
    assert auto(path) == Declared({"id": pa.string(), "odd": pa.string()}, ("odd",))
    assert auto(path, map=(("age", "id"),)).types.keys() == {"age", "odd"}
    assert auto(path, read_paths=(("age", "id"),)).types.keys() == {"age", "odd"}
    assert auto(path, UNKNOWN, raw=True).types.keys() == {"age", "id", "odd"}
    assert "--input_schema auto: id STRING, odd JSON (from 3 rows)" in told.text
    assert "--input_schema auto is unsure of odd: numbers and strings: taken as the text of its JSON" in told.text


def test_rows_that_stay_as_they_are_need_no_schema(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    assert auto(put(tmp_path, "f.jsonl", rows({"a": 1})), raw=True) == Declared()
    assert "the rows are carried as they are, and need none" in told.text


def test_a_name_that_is_none_is_left_out(tmp_path: Path) -> None:
    path = put(tmp_path, "f.jsonl", rows({"": 1, "age": 2, "a": 3}))
    found = auto(path)
    assert (found.types, found.left_out) == ({"a": pa.int64()}, ("",))
    plan = plan_input(source(path), MODEL, Wanted(found.types, exclude=found.left_out), CsvOptions())
    assert [name for name, _ in plan.columns] == ["age", "a"]


def test_what_has_no_schema(tmp_path: Path) -> None:
    path = put(tmp_path, "f.csv", b"a\n1\n")
    with pytest.raises(UsageError) as caught:
        auto(path)
    assert f"--input_schema auto: {path} is csv, and a schema is made from the rows of JSON only" in str(caught.value)
    path = put(tmp_path, "f.jsonl", b"\n\n")
    assert auto(path) == Declared(), "an input without rows is none that is wrong"
    with pytest.raises(UsageError, match="there is no row to make a schema from"):
        infer_schema(source(path), 0)


def test_what_the_model_takes_as_another_type_than_json_is_read_so(tmp_path: Path) -> None:
    path = put(tmp_path, "schema.json", b'[{"name": "grid", "type": "JSON"}, {"name": "odd", "type": "json"}]')
    found = read_input_schema(path)
    assert found == Declared({"grid": pa.string(), "odd": pa.string()}, ("grid", "odd"))
    lines = source(put(tmp_path, "f.jsonl", rows({"grid": [[1, 2], [3, 4]], "odd": 1})))
    spec = plan_input(lines, GRID, Wanted(found.types, texts=found.texts), CsvOptions()).spec
    assert (dict(spec.columns)["odd"], spec.texts) == (pa.string(), ("odd",))
    assert pa.types.is_list(dict(spec.columns)["grid"])


def test_json_in_a_file_that_is_not_json_is_text(tmp_path: Path) -> None:
    lines = source(put(tmp_path, "f.csv", b"age,odd\n1,{}\n"))
    spec = plan_input(lines, MODEL, Wanted({"odd": pa.string()}, texts=("odd",)), CsvOptions()).spec
    assert spec.texts == ()


@pytest.mark.parametrize(
    ("files", "most", "seen"),
    [
        (3, 0, {0: 50, 1: 50, 2: 50}),
        (3, 10, {0: 4, 1: 3, 2: 3}),
        (3, 2, {0: 1, 1: 1}),
        (40, 40, dict.fromkeys(range(0, 40, 2), 2)),
        (1, 1000, {0: 50}),
    ],
)
def test_a_sample_is_of_files_from_the_first_to_the_last(
    files: int, most: int, seen: dict[int, int], tmp_path: Path
) -> None:
    for file in range(files):
        put(tmp_path, f"{file:02}.jsonl", rows(*({f"f{file}": row} for row in range(50))))
    put(tmp_path, "empty.jsonl", b"")
    found = infer_schema(source(tmp_path), most)
    assert {field["name"] for field in found.fields} == {f"f{place}" for place in seen}
    assert found.rows == sum(seen.values())


def test_a_sample_of_large_rows_is_of_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in range(2):
        put(tmp_path, f"{file}.jsonl", rows(*({"image": "x" * 1000} for _ in range(50))))
    assert infer_schema(source(tmp_path), 100, 5_000).rows == 6
    assert infer_schema(source(tmp_path), 100).rows == infer_schema(source(tmp_path), 0).rows == 100
    monkeypatch.setattr(declared, "_SAMPLED_BYTES", 5_000)
    looked: list[int] = []
    monkeypatch.setattr(declared, "_say", lambda found: looked.append(found.rows))
    auto(tmp_path)
    assert looked == [6]


def test_of_a_damaged_file_the_rows_before_the_damage_count(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "1.json", b'[{"a": 1}, {"a": 2} {"a": "secret"}]')
    put(tmp_path, "2.json", b'{"b": 1}\n')
    found = infer_schema(source(tmp_path), 0)
    assert [field["name"] for field in found.fields] == ["a", "b"]
    assert "1.json cannot be read further" in told.text and "secret" not in told.text
