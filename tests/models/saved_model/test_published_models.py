"""SavedModels of forms that people publish are loaded as TF Serving loads them.

The forms are those of tensorflow_serving/servables/tensorflow/testdata in github.com/tensorflow/serving: models
pinned to a GPU, models that name an asset file which is not there, signatures without shapes, outputs that are
references to variables, or no values at all.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pytest

from sluice.models.cache import open_model
from sluice.models.endpoints.rest import RestModel
from sluice.models.errors import ModelNotFound, SignatureError
from sluice.models.files import LocalFiles
from sluice.models.interface import Model, ModelOptions
from sluice.models.uri import parse_model_uri
from sluice.pipelines.commands.inspect_model import describe
from sluice.pipelines.commands.inspect_text import render
from tests.support.saved_models.by_hand import FLOAT, REFERENCE, RESOURCE, STRING, half_plus_two
from tests.support.serving.model_servers import model_server

VECTOR = [-1, 1]


def call(model: Model, values: list[float]) -> dict[str, list[object]]:
    (group,) = model.bind(pa.RecordBatch.from_pydict({"x": pa.array(values, pa.float32())})).groups
    return {name: array.reshape(-1).tolist() for name, array in model.call(group.feeds).arrays.items()}


def test_a_model_pinned_to_a_device_that_is_not_there(tmp_path: Path) -> None:
    pinned = half_plus_two("/device:GPU:0").write(tmp_path / "m")
    assert call(open_model(pinned), [2.0, 4.0]) == {"y": [3.0, 4.0]}


def test_a_missing_asset_that_nothing_reads_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = half_plus_two().constant("path", b"").asset("foo.txt", "path:0").write(tmp_path / "1")
    assert call(open_model(str(tmp_path)), [2.0]) == {"y": [3.0]}
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == [f"SavedModel {made} lacks assets/foo.txt, which its graph names; it is run without"]
    found = describe(str(tmp_path), None, LocalFiles())
    assert found["missing_assets"] == ["assets/foo.txt"]
    assert "Lacks    assets/foo.txt; TensorFlow loads the model without, unless its graph reads it" in render(found)
    caplog.clear()
    (tmp_path / "1" / "assets").mkdir()
    (tmp_path / "1" / "assets" / "foo.txt").touch()
    open_model(str(tmp_path))
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]


def test_a_missing_asset_that_the_graph_reads_is_named(tmp_path: Path) -> None:
    made = half_plus_two().constant("path", b"").node("text", "ReadFile", "path").asset("foo.txt", "path:0")
    made.init("text").write(tmp_path / "m")
    with pytest.raises(ModelNotFound, match=r"cannot load .*foo\.txt; No such file or directory; it lacks assets/"):
        open_model(f"{tmp_path}/m")


def test_an_output_that_is_no_value_is_left_out(tmp_path: Path) -> None:
    made = half_plus_two().node("table", "HashTableV2", key_dtype=STRING, value_dtype=STRING)
    x, y, table = (FLOAT, "x:0", VECTOR), (FLOAT, "y:0", VECTOR), (RESOURCE, "table:0", [])
    made.signature({"x": x}, {"y": y, "table": table})
    model = made.signature({"x": x}, {"table": table}, "table_only").write(tmp_path / "m")
    assert call(open_model(model), [2.0]) == {"y": [3.0]}
    found = describe(model, None, LocalFiles())
    by_name = {signature["name"]: signature for signature in found["signatures"]}
    assert (by_name["serving_default"]["problem"], by_name["serving_default"]["left_out"]) == (None, ["table"])
    assert "  output 'table' is left out: a resource has no values\n" in render(found)
    assert found["command"].startswith("sluice batch --model ") and "exclude" not in found["command"]
    with pytest.raises(SignatureError, match="output 'table' is resource, which has no column form"):
        open_model(model, ModelOptions(signature="table_only"))


def test_a_server_answers_when_an_output_is_no_value(tmp_path: Path) -> None:
    made = half_plus_two().node("table", "HashTableV2", key_dtype=STRING, value_dtype=STRING)
    outputs = {"y": (FLOAT, "y:0", VECTOR), "table": (RESOURCE, "table:0", [])}
    made.signature({"x": (FLOAT, "x:0", VECTOR)}, outputs).write(tmp_path / "1")
    with model_server({"m": str(tmp_path)}) as server:
        assert call(open_model(f"grpc://127.0.0.1:{server.grpc_port}/m"), [2.0]) == {"y": [3.0]}
        with pytest.raises(SignatureError, match="output 'table' is resource, for which TF Serving's REST"):
            RestModel(parse_model_uri(f"http://127.0.0.1:{server.rest_port}/v1/models/m"), ModelOptions())


def test_an_output_that_is_a_reference_has_the_values_of_its_variable(tmp_path: Path) -> None:
    made = half_plus_two().node("v", "VariableV2", dtype=FLOAT, shape=[], container=b"", shared_name=b"")
    made.constant("five", 5.0).node("set", "Assign", "v", "five", T=FLOAT).init("set")
    made.signature({"x": (FLOAT, "x:0", VECTOR)}, {"y": (FLOAT, "y:0", VECTOR), "v": (FLOAT + REFERENCE, "v:0", [])})
    model = made.write(tmp_path / "m")
    for name in ("variables.index", "variables.data-00000-of-00001"):
        (tmp_path / "m" / "variables").mkdir(exist_ok=True)
        (tmp_path / "m" / "variables" / name).touch()
    spec = describe(model, None, LocalFiles())["signatures"][0]["outputs"]
    assert [(each["name"], each["dtype"]) for each in spec] == [("v", "float32"), ("y", "float32")]


def test_a_tensor_whose_shape_is_left_out_is_of_unknown_rank(tmp_path: Path) -> None:
    made = half_plus_two().signature({"x": (FLOAT, "x:0", None)}, {"y": (FLOAT, "y:0", None)})
    model = open_model(made.write(tmp_path / "m"))
    assert [spec.shape for spec in (*model.signature.inputs, *model.signature.outputs)] == [None, None]
