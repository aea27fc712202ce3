"""The `sluice inspect` command."""

import argparse
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from sluice.models.errors import ModelNotFound, SignatureError, UsageError
from sluice.models.files import LocalFiles
from sluice.models.protos import message_class
from sluice.models.saved_model.signature_reader import read_signatures
from sluice.models.saved_model.versions import read_meta_graph
from sluice.models.tensors.binding import bind
from sluice.pipelines.commands import inspect_model
from sluice.pipelines.commands.inspect_model import describe
from sluice.pipelines.commands.inspect_text import render
from sluice.transforms.decode.json import decode_object
from sluice.transforms.decode.spec import InputSpec
from tests.support.saved_models.cases import CASES, ModelCase

BY_NAME = {case.name: case for case in CASES}

STRING, FLOAT, RESOURCE = 7, 1, 20

# Outputs that no column can hold: a scalar for the whole batch, and a tensor ragged in two dimensions.
NO_COLUMN = {"scalar_output": ["threshold"], "ragged_output": ["letters"]}


@pytest.fixture(scope="module")
def built(cases: Callable[[str], str]) -> Path:
    """The directory of every case, by name."""
    (directory,) = {Path(cases(case.name)).parent for case in CASES}
    return directory


def write_model(directory: str | os.PathLike[str], signatures: dict[str, Any]) -> str:
    """Writes a saved_model.pb without a graph: {signature: ({input: (dtype, shape)}, {output: (dtype, shape)})}."""
    saved_model = message_class("tensorflow.SavedModel")()
    meta_graph = saved_model.meta_graphs.add()
    meta_graph.meta_info_def.tags.append("serve")
    for name, (inputs, outputs) in signatures.items():
        signature = meta_graph.signature_def[name]
        signature.method_name = "tensorflow/serving/predict"
        for infos, tensors in ((signature.inputs, inputs), (signature.outputs, outputs)):
            for key, (dtype, shape) in tensors.items():
                infos[key].name = f"{name}_{key}:0"
                infos[key].dtype = dtype
                infos[key].tensor_shape.SetInParent()
                for size in shape:
                    infos[key].tensor_shape.dim.add(size=size)
    os.makedirs(directory)
    Path(directory, "saved_model.pb").write_bytes(saved_model.SerializeToString())
    return str(directory)


def describe_case(case: ModelCase, built: Path) -> dict[str, Any]:
    return describe(str(built / case.name), case.signature, LocalFiles())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_names_what_the_model_takes_and_gives(case: ModelCase, built: Path) -> None:
    found = describe_case(case, built)
    assert {column["name"] for column in found["columns"]} == set(case.rows[0])
    assert found["excluded_outputs"] == NO_COLUMN.get(case.name, [])
    outputs = [name for name in case.expected(case.rows) if name not in found["excluded_outputs"]]
    assert sorted(column["name"] for column in found["output_columns"]) == sorted(outputs)
    if case.name == "ragged_output":  # a list of lists, which BigQuery has no column for
        assert found["bigquery_schema"] is None and "spans" in found["bigquery_problem"]
        return
    fields = [field["name"] for field in found["bigquery_schema"]]
    assert fields == [*(column["name"] for column in found["output_columns"]), "_model", "_version"]
    excluded = "".join(f"--exclude_columns {name} " for name in found["excluded_outputs"])
    signature = "" if case.signature == "serving_default" else f"--signature {case.signature} "
    assert found["command"] == (
        f"sluice batch --model {built / case.name} {signature}{excluded}--input rows.jsonl --output predictions.jsonl"
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_sample_row_is_one_that_the_model_takes(case: ModelCase, built: Path) -> None:
    row = describe_case(case, built)["sample_row"]
    signature = read_signatures(read_meta_graph(str(built / case.name), LocalFiles()))[case.signature]
    spec = InputSpec("jsonl", tuple((column.name, column.arrow_type) for column in signature.columns))
    values = decode_object(orjson.dumps(row), spec)
    arrays = [pa.array([value], kind) for value, (_, kind) in zip(values, spec.columns, strict=True)]
    bound = bind(pa.RecordBatch.from_arrays(arrays, schema=spec.schema), signature)
    assert bound.errors == {}
    assert [group.size for group in bound.groups] == [1]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_text_and_json_hold_every_name(case: ModelCase, built: Path) -> None:
    found = describe_case(case, built)
    assert json.loads(inspect_model.to_json(found)) == found
    text = render(found)
    names = [each["name"] for key in ("signatures", "columns", "output_columns") for each in found[key]]
    assert [name for name in names if f" {name}" not in text] == []
    assert text.endswith(f"\n  {found['command']}")
    assert all(line == line.rstrip() for line in text.splitlines())


def test_golden_json_of_a_model_that_parses_examples(built: Path) -> None:
    found = describe(f"{built}/tf1_estimator/", "predict", LocalFiles(), "churn_")
    tensor = {"dtype": "string", "shape": [None], "kind": "dense"}
    assert [signature["name"] for signature in found["signatures"]] == [
        "classification",
        "predict",
        "regression",
        "serving_default",
    ]
    assert found.pop("signatures")[1] == {
        "name": "predict",
        "method": "tensorflow/serving/predict",
        "problem": None,
        "takes_examples": True,
        "left_out": [],
        "inputs": [{"name": "examples", **tensor}],
        "outputs": [
            {"name": "class_ids", "dtype": "int64", "shape": [None, 1], "kind": "dense"},
            {"name": "classes", "dtype": "string", "shape": [None, 1], "kind": "dense"},
            {"name": "probabilities", "dtype": "float32", "shape": [None, 3], "kind": "dense"},
        ],
    }
    assert found == {
        "uri": f"{built}/tf1_estimator",
        "directory": f"{built}/tf1_estimator",
        "version": None,
        "versions": [],
        "missing_assets": [],
        "signature": "predict",
        "excluded_outputs": [],
        "columns": [
            {"name": "monthly_charge", "dtype": "float32", "shape": [1], "type": "float", "required": False},
            {"name": "plan", "dtype": "string", "shape": [1], "type": "string", "required": True},
            {"name": "tenure_months", "dtype": "int64", "shape": [1], "type": "int64", "required": True},
            {
                "name": "complaints",
                "dtype": "string",
                "shape": [None],
                "type": "list<item: string>",
                "required": False,
            },
        ],
        "sample_row": {"monthly_charge": 0.0, "plan": "", "tenure_months": 0, "complaints": [""]},
        "output_columns": [
            {"name": "churn_class_ids", "type": "int64"},
            {"name": "churn_classes", "type": "string"},
            {"name": "churn_probabilities", "type": "list<item: float>"},
        ],
        "bigquery_schema": [
            {"name": "churn_class_ids", "type": "INTEGER", "mode": "NULLABLE"},
            {"name": "churn_classes", "type": "STRING", "mode": "NULLABLE"},
            {"name": "churn_probabilities", "type": "FLOAT", "mode": "REPEATED"},
            {"name": "_model", "type": "STRING", "mode": "NULLABLE"},
            {"name": "_version", "type": "INTEGER", "mode": "NULLABLE"},
        ],
        "bigquery_problem": None,
        "command": f"sluice batch --model {built}/tf1_estimator --signature predict --output_prefix churn_ "
        "--input rows.jsonl --output predictions.jsonl",
    }


def test_golden_text_of_an_image_model(built: Path) -> None:
    found = describe_case(BY_NAME["image"], built)
    assert (
        render(found)
        == f"""\
Model  {built}/image
Trust  a SavedModel is a program: load it only if you trust its maker (docs/security.md)

Signature serving_default  tensorflow/serving/predict
  input   image      float32  [batch, 8, 8, 3]
  output  class      int64    [batch]
  output  embedding  float32  [batch, 8]

Sample row for serving_default, a line of a .jsonl file (shortened; whole with --json)
  {{"image": [[[0.0, 0.0, 0.0], ... 7 more], ... 7 more]}}

Output columns
  class      int64
  embedding  list<item: float>

BigQuery schema of predictions
  [{{"name": "class", "type": "INTEGER", "mode": "NULLABLE"}},
   {{"name": "embedding", "type": "FLOAT", "mode": "REPEATED"}},
   {{"name": "_model", "type": "STRING", "mode": "NULLABLE"}},
   {{"name": "_version", "type": "INTEGER", "mode": "NULLABLE"}}]

Try
  sluice batch --model {built}/image --input rows.jsonl --output predictions.jsonl"""
    )
    assert found["sample_row"] == {"image": [[[0.0] * 3] * 8] * 8}


@pytest.mark.parametrize(
    "name,row",
    [
        ("raw_bytes", {"image_bytes": {"b64": ""}}),
        ("vector_inputs", {"machine": 0, "place": ["", ""], "sensors": [0.0] * 4}),
        ("image_any_size", {"image": [[[0.0] * 3]]}),
        ("fixed_batch", {"x": [0.0] * 3}),
        ("tf2_function", {"amount": 0.0, "country": "", "items": 0, "member": False}),
    ],
)
def test_sample_rows(name: str, row: dict[str, Any], built: Path) -> None:
    assert describe_case(BY_NAME[name], built)["sample_row"] == row


def test_features_and_shapes_in_the_text(built: Path) -> None:
    text = render(describe_case(BY_NAME["tf1_estimator"], built))
    assert (
        """
Features of serving_default, each a column of the input
  monthly_charge  float               optional
  plan            string              required
  tenure_months   int64               required
  complaints      list<item: string>  optional
"""
        in text
    )
    assert "takes tf.Examples; their features: --signature predict\n" in text
    assert "  input   x  float32  [8, 3]\n" in render(describe_case(BY_NAME["fixed_batch"], built))
    assert "  output  doubled  float32  of unknown rank\n" in render(describe_case(BY_NAME["unknown_rank"], built))
    assert "  output  words  sparse string  [batch, ?]\n" in render(describe_case(BY_NAME["sparse_output"], built))


def test_versions_and_what_they_lack(built: Path, tmp_path: Path) -> None:
    for number in ("0001", "3", "4", "12"):
        shutil.copytree(built / "fixed_batch", tmp_path / "base" / number)
    os.remove(tmp_path / "base" / "0001" / "variables" / "variables.index")
    os.remove(tmp_path / "base" / "12" / "saved_model.pb")
    (tmp_path / "base" / "assets").mkdir()
    found = describe(str(tmp_path / "base"), None, LocalFiles())
    assert found["version"] == 4
    assert found["directory"] == f"{tmp_path}/base/4"
    assert [(each["version"], each["used"], each["missing"]) for each in found["versions"]] == [
        (12, False, f"{tmp_path}/base/12/saved_model.pb does not exist"),
        (4, True, None),
        (3, False, None),
        (1, False, f"{tmp_path}/base/0001/variables/variables.index does not exist, and the graph has variables"),
    ]
    assert render(found).startswith(f"""\
Model    {tmp_path}/base
Version  4, in {tmp_path}/base/4
Trust    a SavedModel is a program: load it only if you trust its maker (docs/security.md)

Versions
  12  incomplete: {tmp_path}/base/12/saved_model.pb does not exist
  4   complete, used
  3   complete
  1   incomplete: {tmp_path}/base/0001/variables/variables.index does not exist""")


def test_a_signature_that_cannot_be_served_says_why(tmp_path: Path) -> None:
    good = ({"x": (FLOAT, [-1])}, {"y": (FLOAT, [-1, 2, 2])})
    bad = ({"x": (RESOURCE, [-1])}, {"y": (FLOAT, [-1])})
    model = write_model(tmp_path / "m", {"good": good, "bad": bad})
    found = describe(model, "bad", LocalFiles())
    assert [signature["problem"] is None for signature in found["signatures"]] == [False, True]
    assert (found["signature"], found["command"], found["sample_row"]) == ("bad", None, None)
    assert "  cannot be served whole: signature 'bad': input 'x' is resource, which has no column form" in render(found)
    lists = describe(model, "good", LocalFiles())
    assert lists["output_columns"] == [{"name": "y", "type": "list<item: list<item: float>>"}]
    assert lists["bigquery_schema"] is None
    assert "  none: column 'y' is list<item: list<item: float>>; BigQuery has no lists of lists" in render(lists)


def test_which_signature_is_shown(tmp_path: Path) -> None:
    one = ({"x": (FLOAT, [-1])}, {"y": (FLOAT, [-1])})
    several = write_model(tmp_path / "several", {"a": one, "b": one})
    found = describe(several, None, LocalFiles())
    assert found["signature"] is None
    assert render(found).endswith(
        "\n\nNo signature has the name serving_default: choose one with --signature to see its rows"
    )
    only = write_model(tmp_path / "only", {"a": one})
    assert describe(only, None, LocalFiles())["signature"] == "a"
    default = write_model(tmp_path / "default", {"a": one, "serving_default": one})
    assert describe(default, None, LocalFiles())["signature"] == "serving_default"
    with pytest.raises(SignatureError, match=r"no signature 'serving'; it has a, serving_default; did you mean"):
        describe(default, "serving", LocalFiles())
    with pytest.raises(SignatureError, match="no signature 'c'; it has a, b"):
        describe(several, "c", LocalFiles())


@pytest.mark.parametrize(
    ("inputs", "is_told"),
    [
        ({"image bytes": (STRING, [-1])}, True),
        ({"image bytes": (STRING, [-1, 1])}, True),
        ({"image bytes": (STRING, [-1, 2])}, False),
        ({"image bytes": (STRING, [-1]), "x": (FLOAT, [-1])}, False),
        ({"x": (FLOAT, [-1])}, False),
    ],
)
def test_how_to_give_files_to_a_model_that_may_take_their_bytes(
    inputs: dict[str, Any], is_told: bool, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "m", {"serving_default": (inputs, {"y": (FLOAT, [-1])})})
    text = render(describe(model, None, LocalFiles()))
    told = """
If 'image bytes' takes the bytes of files, such as images
  each file a row:   --input 'DIR/*.jpg' --input_format files
  paths in a column: --read_paths 'image bytes'=COLUMN

Try
  sluice batch --model"""
    assert (told in text) == is_told
    assert ("--read_paths" in text) == is_told


@pytest.mark.parametrize(
    "uri,error,message",
    [
        ("", UsageError, "--model is empty"),
        ("ftp://host/model", UsageError, "'ftp://' is not a scheme"),
        ("/nowhere/model", ModelNotFound, "--model /nowhere/model: there is nothing at this path"),
    ],
)
def test_what_is_no_model_is_the_users_error(uri: str, error: type[Exception], message: str) -> None:
    parser = argparse.ArgumentParser()
    inspect_model.add_arguments(parser)
    with pytest.raises(error, match=message):
        inspect_model.run(parser.parse_args(["--model", uri]))


def test_the_command_prints_text_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "a model", {"serving_default": ({"x": (STRING, [-1])}, {"y": (STRING, [-1])})})
    parser = argparse.ArgumentParser()
    inspect_model.add_arguments(parser)
    assert inspect_model.run(parser.parse_args(["--model", f"file://{model}", "--output_prefix", "p_"])) == 0
    printed = capsys.readouterr().out
    assert printed.endswith(
        f"sluice batch --model '{model}' --output_prefix p_ --input rows.jsonl --output predictions.jsonl\n"
    )
    assert inspect_model.run(parser.parse_args(["--model", model, "--output_prefix", "p_", "--json"])) == 0
    assert json.loads(capsys.readouterr().out) == describe(model, None, LocalFiles(), "p_")
