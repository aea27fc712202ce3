import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sluice.models.errors import UsageError
from sluice.models.signature import ColumnSpec, Signature, TensorSpec
from sluice.pipelines.plan.first_rows import check_sample
from sluice.pipelines.plan.input_columns import InputPlan, Wanted, plan_input
from sluice.transforms.core.formats import AVRO, CSV, JSONL, PARQUET, TFRECORD
from sluice.transforms.decode.spec import CsvOptions
from sluice.transforms.files.find_source import Source
from tests.support.formats.decode_cases import put, to_avro

OUTPUT = TensorSpec("score", "float32", (None,))


def signature(**inputs: str) -> Signature:
    """A model with these inputs, each a dtype and perhaps a row's shape: "float32" or "float32[3]"."""
    specs = []
    for name, text in inputs.items():
        dtype, _, sizes = text.partition("[")
        shape = tuple(None if size == "?" else int(size) for size in sizes.rstrip("]").split(",") if size)
        specs.append(TensorSpec(name, dtype, (None, *shape)))
    return Signature("serving_default", "", tuple(specs), (OUTPUT,))


def example_signature(*features: ColumnSpec) -> Signature:
    """A model that parses tf.Examples."""
    return Signature("serving_default", "", (TensorSpec("examples", "string", (None,)),), (OUTPUT,), features)


MODEL = signature(age="int64", height="float32", name="string")
FEATURES = example_signature(ColumnSpec("age", "int64"), ColumnSpec("name", "string", (), required=False))


def source(format_: str, *names: str, sample: tuple[dict[str, Any], ...] = (), **types: pa.DataType) -> Source:
    return Source(format_, "data", 1, 100, names or tuple(types), types, sample)


def plan(
    found: Source, model: Signature = MODEL, schema: dict[str, pa.DataType] | None = None, **wanted: Any
) -> InputPlan:
    return plan_input(found, model, Wanted(schema or {}, **wanted), CsvOptions())


def test_csv_types_the_models_columns_and_leaves_the_others_as_they_are() -> None:
    found = plan(source(CSV, "zip", "name", "age", "height"))
    columns = (("zip", pa.string()), ("name", pa.string()), ("age", pa.int64()), ("height", pa.float64()))
    assert (found.spec.format, found.spec.columns, found.columns) == (CSV, columns, columns)


def test_what_is_said_of_columns_decides_what_is_carried() -> None:
    csv = source(CSV, "zip", "name", "age", "height")
    read = dict(plan(csv, columns=("zip",)).spec.columns)
    assert set(read) == {"zip", "name", "age", "height"}
    assert plan(csv, columns=("zip", "age")).columns == (("zip", pa.string()), ("age", pa.int64()))
    assert [name for name, _ in plan(csv, exclude=("zip", "name")).columns] == ["age", "height"]
    assert "zip" not in dict(plan(csv, exclude=("zip",)).spec.columns)
    assert plan(csv, schema={"zip": pa.int64()}).columns[0] == ("zip", pa.int64())
    raw = plan(csv, raw=True)
    assert (raw.columns, raw.spec.header) == ((), csv.names)
    assert [name for name, _ in raw.spec.columns] == ["name", "age", "height"]


def test_json_columns_come_from_the_sample_the_model_and_the_schema() -> None:
    found = source(JSONL, "name", "age", "extra", sample=({"name": "a", "age": 1},))
    planned = plan(found, signature(age="int64", name="string"), {"extra": pa.string(), "late": pa.float64()})
    assert planned.spec.columns == (
        ("name", pa.string()),
        ("age", pa.int64()),
        ("extra", pa.string()),
        ("late", pa.float64()),
    )


@pytest.mark.parametrize(
    ("dtype", "value", "kind"),
    [
        ("string", {"b64": "AA=="}, pa.binary()),
        ("string", "text", pa.string()),
        ("string", None, pa.string()),
        ("string[?]", [{"b64": "AA=="}], pa.list_(pa.binary())),
        ("string[?]", ["text"], pa.list_(pa.string())),
        ("float32[3]", [1, 2, 3], pa.list_(pa.float64())),
    ],
)
def test_bytes_in_json_are_known_by_their_form(dtype: str, value: Any, kind: pa.DataType) -> None:
    found = source(JSONL, "x", sample=({}, {"x": None}, {"x": value}))
    assert dict(plan(found, signature(x=dtype)).spec.columns) == {"x": kind}
    assert dict(plan(source(CSV, "image_bytes"), signature(image_bytes="string")).spec.columns) == {
        "image_bytes": pa.binary()
    }


@pytest.mark.parametrize(
    ("dtype", "values", "is_boolean"),
    [
        ("float32", [None, True, False], True),
        ("float32", [True, 2.5], False),
        ("int64", [1, True], False),
        ("float32[?]", [[], [True, None]], True),
        ("float32[?]", [[True], [0.5]], False),
        ("float32", [None], False),
    ],
)
def test_numbers_are_booleans_if_all_first_values_are(dtype: str, values: list[Any], is_boolean: bool) -> None:
    found = source(JSONL, "x", sample=tuple({"x": value} for value in values))
    kind = dict(plan(found, signature(x=dtype)).spec.columns)["x"]
    assert pa.types.is_boolean(kind.value_type if pa.types.is_list(kind) else kind) == is_boolean


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x\n1\n2\n", "The first rows fit."),
        ("x\n1\na\n\n", "Some of the first rows fit, and 1 do not."),
        ("x\n" + '""\n' * 3, "None of the first rows fits: 3 were looked at."),
        ("x\n", "There was no first row to look at."),
        ("", "There was no first row to look at."),
    ],
)
def test_what_is_said_of_the_first_rows(text: str, expected: str, tmp_path: Path) -> None:
    path = put(tmp_path, "in.csv", text.encode())
    found = Source(CSV, path, 1, len(text), ("x",) if text else ())
    model = signature(x="float32")
    assert check_sample(found, plan(found, model), model, {}) == expected


@pytest.mark.parametrize("format_", [PARQUET, AVRO])
def test_formats_with_types_keep_them(format_: str) -> None:
    types = {"age": pa.int32(), "height": pa.float64(), "name": pa.string(), "when": pa.date32()}
    assert plan(source(format_, **types)).columns == tuple(types.items())


def test_columns_that_the_model_does_without() -> None:
    assert plan(source(CSV, "age", "name"), defaults=(("height", "1.5"),)).spec.columns == (
        ("age", pa.int64()),
        ("name", pa.string()),
    )
    assert plan(source(CSV, "age"), FEATURES).spec.columns == (("age", pa.int64()),)


@pytest.mark.parametrize("raw", [True, False])
def test_features_that_are_not_known_are_all_that_have_a_type(raw: bool) -> None:
    types = {"age": pa.int64(), "name": pa.string()}
    model = example_signature()
    for format_ in (CSV, JSONL):
        planned = plan(source(format_, "age", "name", "zip"), model, types, raw=raw, exclude=("name", "zip"))
        assert planned.spec.columns == tuple(types.items())
        assert [name for name, _ in planned.columns] == ([] if raw else ["age"])
    planned = plan(source(PARQUET, **types), model, columns=("age",))
    assert (planned.spec.columns, planned.columns) == (tuple(types.items()), (("age", pa.int64()),))


def test_empty_files_have_no_columns_to_hold_against_the_model() -> None:
    found = plan(Source(CSV, "data", 1, 0, ()))
    assert dict(found.spec.columns) == {"age": pa.int64(), "height": pa.float64(), "name": pa.string()}
    assert found.columns == found.spec.columns


def test_tf_examples_go_to_the_model_as_they_are() -> None:
    planned = plan(source(TFRECORD, age=pa.int64(), city=pa.binary()), FEATURES, raw=True)
    assert (planned.spec.columns, planned.spec.examples) == ((("examples", pa.binary()),), "examples")
    kept = plan(source(TFRECORD, age=pa.int64()), FEATURES, {"age": pa.int64()})
    assert kept.spec.columns == (("age", pa.int64()), ("examples", pa.binary()))
    assert kept.columns == (("age", pa.int64()),)


def test_tf_examples_as_a_column_of_a_table() -> None:
    planned = plan(source(PARQUET, examples=pa.binary(), id=pa.int64()), FEATURES)
    assert planned.spec.columns == (("examples", pa.binary()), ("id", pa.int64()))


@pytest.mark.parametrize("format_", [CSV, PARQUET, AVRO, JSONL])
def test_a_model_that_parses_tf_examples_takes_their_features_as_columns(format_: str) -> None:
    types = {"age": pa.int64(), "name": pa.string()}
    found = source(format_, **types) if format_ in (PARQUET, AVRO) else source(format_, *types)
    assert plan(found, FEATURES).spec.columns == tuple(types.items())


UNKNOWN_FEATURES = example_signature()
CASES: list[tuple[str, Source, Signature, dict[str, Any], str]] = [
    (
        "a missing column",
        source(CSV, "ages", "height", "name"),
        MODEL,
        {},
        "the model takes column 'age' (int64), and the input data has no such column (did you mean 'ages'?); it has "
        "ages, height, name. Name the column that it is with --map age=COLUMN, or give a value for it with "
        "--column_defaults age=VALUE.",
    ),
    ("a near name", source(CSV, "age", "heigth", "name"), MODEL, {}, "(did you mean 'heigth'?)"),
    (
        "many columns",
        source(CSV, *(f"c{number}" for number in range(20))),
        MODEL,
        {},
        "it has c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11 and 8 more.",
    ),
    (
        "another type",
        source(PARQUET, age=pa.string(), height=pa.float32(), name=pa.string()),
        MODEL,
        {},
        "column 'age': the model takes int64, and the input data has string. Convert the column, or export a signature "
        "that takes this type",
    ),
    (
        "another type by schema",
        source(CSV, "age", "height", "name"),
        MODEL,
        {"schema": {"age": pa.date32()}},
        "column 'age': the model takes int64, and --input_schema says date32[day].",
    ),
    (
        "a list",
        source(AVRO, age=pa.int64(), height=pa.list_(pa.date32()), name=pa.string()),
        MODEL,
        {},
        "column 'height': the model takes float32, and the input data has list<item: date32[day]>.",
    ),
    (
        "another kind of feature",
        source(TFRECORD, age=pa.float32(), height=pa.float32(), name=pa.binary()),
        MODEL,
        {},
        "column 'age': the model takes int64, and the tf.Examples in data hold a float feature",
    ),
    (
        "untyped columns",
        source(JSONL, "age", "height", "name", "a", "b", "c", "d"),
        MODEL,
        {},
        "the types of a, b, c, d are not known: each jsonl row has types of its own. Give their types with "
        "--input_schema FILE (BigQuery's JSON schema form, or auto: as the first rows are), leave them out with "
        "--exclude_columns a,b,c, or write jsonl, which carries rows as they are",
    ),
    (
        "features that are not known",
        source(CSV, "age"),
        UNKNOWN_FEATURES,
        {},
        "signature 'serving_default' takes serialized tf.Examples, and the features that it reads are not known: its "
        "graph does not show them, or its server shows no graph. Give --input_schema FILE with their types, or "
        "TFRecord input",
    ),
    (
        "--columns",
        source(CSV, "age", "height", "name"),
        MODEL,
        {"columns": ("ages",)},
        "--columns ages: the input has no such column (did you mean 'age'?)",
    ),
    (
        "--exclude_columns",
        source(CSV, "age", "height", "name"),
        MODEL,
        {"exclude": ("score", "xyz")},
        "--exclude_columns xyz: the input has no such column",
    ),
    (
        "--input_schema",
        source(CSV, "age", "height", "name"),
        MODEL,
        {"schema": {"nam": pa.string()}},
        "--input_schema names 'nam': the input has no such column (did you mean 'name'?)",
    ),
    (
        "--column_defaults",
        source(CSV, "age", "height", "name"),
        MODEL,
        {"defaults": (("hight", "1"),)},
        "--column_defaults hight: the model takes no such column (did you mean 'height'?)",
    ),
]


@pytest.mark.parametrize(("found", "model", "wanted", "text"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_a_model_and_an_input_that_do_not_fit(
    found: Source, model: Signature, wanted: dict[str, Any], text: str
) -> None:
    with pytest.raises(UsageError) as caught:
        plan(found, model, **wanted)
    assert text in str(caught.value)


NAMES = ("age", "height", "name")


def check(path: str, format_: str, model: Signature = MODEL, names: tuple[str, ...] = NAMES) -> None:
    found = Source(format_, path, 1, Path(path).stat().st_size, names)
    check_sample(found, plan(found, model), model, {})


def csv_of(line: str, count: int) -> bytes:
    return ",".join(NAMES).encode() + b"\n" + line.encode() * count


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_rows_of_which_none_fits_are_the_commands_fault(ending: str, tmp_path: Path) -> None:
    pack = gzip.compress if ending else bytes
    path = put(tmp_path, f"f.csv{ending}", pack(csv_of("old,1.5,a\n", 1000)))
    with pytest.raises(UsageError) as caught:
        check(path, CSV)
    assert f"rows of {path} fits the model. The first: column 'age': 'old' is not int64" in str(caught.value)
    check(put(tmp_path, f"one.csv{ending}", pack(csv_of("old,1.5,a\n", 1000) + b"7,1.5,a\n")), CSV)
    check(put(tmp_path, f"few.csv{ending}", pack(csv_of("old,1.5,a\n", 9))), CSV)
    check(put(tmp_path, f"none.csv{ending}", pack(csv_of("", 0))), CSV)


def test_rows_that_the_model_cannot_take_are_seen_too(tmp_path: Path) -> None:
    rows = [json.dumps({"x": [1, 2]}) + "\n"] * 20
    with pytest.raises(UsageError, match=r"none of the first 20 rows of .* fits the model\. The first: "):
        check(put(tmp_path, "f.jsonl", "".join(rows).encode()), JSONL, signature(x="float32[3]"), ("x",))


def test_other_formats_are_looked_at(tmp_path: Path) -> None:
    schema = {"type": "record", "name": "r", "fields": [{"name": "x", "type": ["null", "double"]}]}
    path = put(tmp_path, "f.avro", to_avro([{"x": 1e39}] * 20, schema))
    found = Source(AVRO, path, 1, 1000, ("x",), {"x": pa.float64()})
    model = signature(x="float32")
    with pytest.raises(UsageError, match="none of the first 20 rows"):
        check_sample(found, plan(found, model), model, {})
    put(tmp_path, "f.avro", to_avro([{"x": None}] * 20, schema))
    check_sample(found, plan(found, model), model, {"x": 1.0})


@pytest.mark.parametrize("later", ["1", ""])
def test_rows_without_a_value_do_not_speak_for_those_after_them(
    later: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = put(tmp_path, "in.csv", ("x,y\n" + ",a\n" * 150 + f"{later},a\n").encode())
    found = Source(CSV, path, 1, Path(path).stat().st_size, ("x", "y"))
    model = signature(x="float32")
    check_sample(found, plan(found, model), model, {})
    assert ("None of the first 151 rows" in caplog.text) == (later == "")
    assert "--column_defaults x=VALUE" in caplog.text


def test_rows_that_do_not_fit_are_refused_though_others_lack_a_value(tmp_path: Path) -> None:
    path = put(tmp_path, "in.csv", ("x\n" + "a\n" * 20 + '""\n' * 150).encode())
    found = Source(CSV, path, 1, Path(path).stat().st_size, ("x",))
    model = signature(x="float32")
    with pytest.raises(UsageError, match="none of the first 120 rows"):
        check_sample(found, plan(found, model), model, {})
