"""Which inputs of a model get what is in files."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sluice.models.errors import UsageError
from sluice.models.interface import EndpointOptions
from sluice.models.signature import ColumnSpec, Signature
from sluice.models.uri import parse_model_uri
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.plan.first_rows import check_rows
from sluice.pipelines.plan.input_columns import InputPlan
from sluice.pipelines.plan.model import make_recipe
from sluice.pipelines.plan.read_paths import file_inputs
from sluice.pipelines.plan.review import review
from sluice.transforms.core.file_contents import CALL_ROWS, FileInputs
from sluice.transforms.core.file_paths import PathRules
from sluice.transforms.core.formats import CSV, FILES, JSONL, PARQUET, PATH, TFRECORD
from sluice.transforms.decode.spec import Decoded
from tests.pipelines.plan.test_input_columns import FEATURES, OUTPUT, example_signature, plan, signature, source

FOLDER = source(FILES, **{PATH: pa.string()})
IMAGE = signature(image="string")
PATHS = ((PATH, pa.string()),)


def folder(model: Signature, **wanted: Any) -> InputPlan:
    return plan(FOLDER, model, **wanted)


@pytest.mark.parametrize(
    ("model", "wanted", "reads", "mapped"),
    [
        (IMAGE, {}, ("image",), ()),
        (signature(pixels="uint8[2,2,3]"), {}, ("pixels",), ()),
        (signature(content="string", text="string"), {"defaults": (("text", "x"),)}, ("content",), ()),
        (signature(a="string", b="string"), {"mapped": (("a", "content"), ("b", "path"))}, ("a",), (("b", "path"),)),
        (signature(a="string", b="string"), {"mapped": (("a", "content"), ("b", "content"))}, ("a", "b"), ()),
        (signature(a="string", b="string"), {"defaults": (("a", "x"),)}, ("b",), ()),
        (signature(image="string", path="string"), {}, ("image",), ()),
        (signature(path="string"), {}, (), ()),
        (signature(image="string", k="int64"), {"defaults": (("k", "1"),)}, ("image",), ()),
        (example_signature(ColumnSpec("image/encoded", "string")), {}, ("image/encoded",), ()),
    ],
)
def test_which_input_gets_the_content_of_a_file(
    model: Signature, wanted: dict[str, Any], reads: tuple[str, ...], mapped: tuple[tuple[str, str], ...]
) -> None:
    found = folder(model, **wanted)
    assert found.reads == tuple((name, PATH) for name in reads)
    assert (found.spec.mapped, found.spec.columns, found.columns) == (mapped, PATHS, PATHS)


def test_the_path_is_read_where_it_is_not_written() -> None:
    found = folder(IMAGE, columns=())
    assert (found.spec.columns, found.columns) == (PATHS, ())


@pytest.mark.parametrize(
    ("model", "wanted", "text"),
    [
        (signature(x="float32[4]"), {}, "the model takes 'x' (float32[4]), and none of it takes the bytes of a file"),
        (
            signature(a="string", b="string"),
            {},
            "takes several strings, 'a', 'b': say which gets what is in a file with --map a=content",
        ),
        (
            IMAGE,
            {"mapped": (("imag", "content"),)},
            "--map imag=content: the model takes no 'imag' (did you mean 'image'?)",
        ),
        (
            IMAGE,
            {"mapped": (("image", "contents"),)},
            "no column 'contents' (did you mean 'content'?); it has path, content",
        ),
        (
            signature(x="float32", image="string"),
            {},
            "the model takes column 'x' (float32), and the input data has no such",
        ),
        (
            signature(x="float32"),
            {"mapped": (("x", "content"),)},
            "--map x=content: the model takes float32, which the bytes of a file are not",
        ),
        (IMAGE, {"columns": ("path", "content")}, "column 'content': what is in the files goes to the model"),
        (IMAGE, {"exclude": ("content",)}, "column 'content': what is in the files goes to the model"),
        (IMAGE, {"columns": ("name",)}, "--columns name: the input has no such column"),
        (
            IMAGE,
            {"mapped": (("image", "content"),), "defaults": (("image", "x"),)},
            "--map image=content: 'image' is given",
        ),
    ],
)
def test_a_folder_that_does_not_fit(model: Signature, wanted: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        folder(model, **wanted)
    assert text in str(caught.value)


READ = {"read_paths": (("image", "file"),)}


def test_a_column_of_paths_is_read_as_text_and_carried() -> None:
    columns = (("id", pa.string()), ("file", pa.string()))
    found = plan(source(CSV, "id", "file"), IMAGE, output=CSV, **READ)
    assert (found.spec.columns, found.columns, found.reads) == (columns, columns, (("image", "file"),))
    assert (found.spec.fed, found.spec.mapped) == ((), ())
    raw = plan(source(CSV, "id", "file"), IMAGE, raw=True, **READ)
    assert (raw.spec.columns, raw.columns) == ((("file", pa.string()),), ())
    left_out = plan(source(CSV, "id", "file"), IMAGE, exclude=("file",), **READ)
    assert (left_out.spec.columns, left_out.columns) == (columns, columns[:1])
    json = plan(source(JSONL, "id", "file", sample=({"file": "x"},)), IMAGE, raw=True, **READ)
    assert json.spec.columns == (("file", pa.string()),)


def test_a_column_of_paths_has_the_type_of_its_file() -> None:
    kind = pa.dictionary(pa.int32(), pa.large_string())
    assert plan(source(PARQUET, file=kind), IMAGE, **READ).spec.columns == (("file", kind),)
    records = plan(source(TFRECORD, file=pa.binary()), IMAGE, output=TFRECORD, **READ)
    assert records.spec.columns == (("file", pa.string()),)


def test_the_column_may_have_the_name_of_the_input_and_go_to_another_too() -> None:
    same = plan(source(CSV, "image"), IMAGE, read_paths=(("image", "image"),))
    assert (same.spec.columns, same.spec.mapped) == ((("image", pa.string()),), ())
    both = plan(source(CSV, "file"), signature(image="string", name="string"), mapped=(("name", "file"),), **READ)
    assert both.spec.mapped == (("name", "file"),)


@pytest.mark.parametrize(
    ("found", "model", "wanted", "text"),
    [
        (
            source(CSV, "file"),
            IMAGE,
            {"read_paths": (("imag", "file"),)},
            "--read_paths imag=file: the model takes no 'imag'",
        ),
        (
            source(CSV, "file"),
            IMAGE,
            {"read_paths": (("image", "fil"),)},
            "no column 'fil' (did you mean 'file'?); it has file",
        ),
        (
            source(CSV, "file"),
            IMAGE,
            READ | {"mapped": (("image", "file"),)},
            "'image' is given a column or a value before",
        ),
        (
            source(CSV, "file"),
            IMAGE,
            {"read_paths": (("image", "file"), ("image", "file"))},
            "'image' is given a column",
        ),
        (
            source(CSV, "file"),
            signature(image="float32"),
            READ,
            "the model takes float32, which the bytes of a file are not",
        ),
        (source(PARQUET, file=pa.int64()), IMAGE, READ, "paths are text, and column 'file' is int64"),
        (
            source(CSV, "file"),
            signature(image="string", x="float32"),
            READ | {"mapped": (("x", "file"),)},
            "paths are text, and column 'file' is float",
        ),
        (
            source(TFRECORD, file=pa.binary()),
            FEATURES,
            {"read_paths": (("name", "file"),)},
            "the model gets the tf.Examples",
        ),
    ],
)
def test_a_column_that_does_not_fit(found: Any, model: Signature, wanted: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan(found, model, **wanted)
    assert text in str(caught.value)


def options(**flags: Any) -> BatchOptions:
    return BatchOptions(input="i.csv", model="m", output="o.csv", read_paths=(("image", "file"),), **flags)


def test_the_rules_for_paths(tmp_path: Path) -> None:
    rules = PathRules(local=True)
    assert file_inputs((), options(), rules) is None
    assert file_inputs((("image", "file"),), options(max_batch_bytes=7), rules) == FileInputs(
        (("image", "file"),), rules, 7
    )
    for root, found in ((f"{tmp_path}/", str(tmp_path)), ("gs://b/d/", "gs://b/d")):
        inputs = file_inputs((("image", "file"),), options(read_paths_root=root), rules)
        assert inputs is not None and inputs.rules == PathRules(found)
    with pytest.raises(UsageError, match="--read_paths_root /nowhere: there is no such directory"):
        file_inputs((("image", "file"),), options(read_paths_root="/nowhere"), rules)


def test_a_call_has_few_rows_of_files() -> None:
    def rows(reads_files: bool, **flags: Any) -> int:
        spec = parse_model_uri("/m")
        recipe = make_recipe(options(**flags), spec, IMAGE, {}, EndpointOptions(), reads_files=reads_files)
        return recipe.scheduler.max_batch_size

    assert (rows(False), rows(True)) == (0, CALL_ROWS)
    assert rows(True, max_batch_size=500) == 500
    assert rows(True, allowed_batch_sizes=(128, 256)) == 0, "they say how many"


def test_what_is_said_of_an_input_that_gets_files() -> None:
    found = review(FOLDER, folder(IMAGE), IMAGE, {}, pa.schema([(PATH, pa.string()), (OUTPUT.name, pa.float32())]), ())
    assert found.inputs == (("image", "string", "what is in the file that column 'path' names"),)
    assert found.outputs == ((PATH, "string", "carried"), (OUTPUT.name, "float", "added"))


@pytest.mark.parametrize("there", [10, 9])
def test_the_first_files_are_looked_at(there: int, tmp_path: Path) -> None:
    """If none of some can be read, the command is wrong rather than the rows. Thousands are not read for that."""
    for number in range(10):
        (tmp_path / f"{number}.jpg").write_bytes(b"x")
    inputs = FileInputs((("image", PATH),), PathRules(local=True), 10)
    missing = pa.array([f"{tmp_path}/{number}.png" for number in range(there)] + [f"{tmp_path}/9.jpg"] * 90)
    first = Decoded([pa.RecordBatch.from_arrays([missing], names=[PATH])])
    if there < 10:
        assert check_rows(first, FOLDER, IMAGE, {}, contents=inputs) == "Some of the first rows fit, and 9 do not."
        return
    with pytest.raises(
        UsageError, match=r"none of the first 10 rows of data fits the model\. The first: column 'path'"
    ):
        check_rows(first, FOLDER, IMAGE, {}, contents=inputs)
