"""Signatures as a server reports them: without what only a graph or a Session has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sluice.models.errors import SignatureError
from sluice.models.files import LocalFiles
from sluice.models.protos import message_class
from sluice.models.saved_model.signature_reader import pick_signature, read_served_signatures, read_signatures
from sluice.models.saved_model.versions import read_meta_graph
from sluice.models.signature import UNSERVED, Signature, TensorSpec
from tests.support.saved_models.cases import CASES

PREDICT = "tensorflow/serving/predict"
FLOAT, STRING = 1, 7


def definitions(**signatures: Any) -> Any:
    return message_class("tensorflow.serving.SignatureDefMap")(signature_def=signatures)


def definition(method: str = PREDICT, **inputs: Any) -> Any:
    made = message_class("tensorflow.SignatureDef")(method_name=method, inputs=inputs)
    made.outputs["y"].CopyFrom(info("y:0", FLOAT))
    return made


def info(tensor: str, dtype: int = STRING, size: int = -1) -> Any:
    made = message_class("tensorflow.TensorInfo")(name=tensor, dtype=dtype)
    made.tensor_shape.dim.add(size=size)
    return made


def read_one(made: Any) -> Signature:
    return read_served_signatures(definitions(s=made))["s"]


def test_names_are_sorted_and_the_initializer_is_hidden() -> None:
    made = definition(x=info("x:0"))
    assert list(read_served_signatures(definitions(b=made, a=made, __saved_model_init_op=made))) == ["a", "b"]
    assert read_served_signatures(definitions()) == {}


def test_tensors() -> None:
    signature = read_one(definition(x=info("x:0", FLOAT), a=info("a:0")))
    assert signature == Signature(
        "s",
        PREDICT,
        (TensorSpec("a", "string", (None,), ("a:0",)), TensorSpec("x", "float32", (None,), ("x:0",))),
        (TensorSpec("y", "float32", (None,), ("y:0",)),),
    )


@pytest.mark.parametrize(
    ("method", "tensor", "takes_examples"),
    [
        ("tensorflow/serving/classify", "x:0", True),
        ("tensorflow/serving/regress", "x:0", True),
        (PREDICT, "input_example_tensor:0", True),
        (PREDICT, "input_example_tensor_1:0", True),
        (PREDICT, "serving_default_examples:0", True),
        (PREDICT, "serving_default_serialized_tf_examples:0", True),
        (PREDICT, "tf_example:0", True),
        (PREDICT, "parse/example:0", True),
        (PREDICT, "x:0", False),
        (PREDICT, "serving_default_example_text:0", False),
        (PREDICT, "counterexamples:0", False),
    ],
)
def test_who_takes_examples(method: str, tensor: str, takes_examples: bool) -> None:
    signature = read_one(definition(method, x=info(tensor)))
    assert signature.takes_examples is takes_examples
    assert signature.features == (() if takes_examples else None)


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": info("examples:0", FLOAT)},
        {"x": info("examples:0"), "z": info("z:0")},
    ],
)
def test_examples_are_one_string_a_row(inputs: dict[str, Any]) -> None:
    assert not read_one(definition("tensorflow/serving/classify", **inputs)).takes_examples


def test_outputs_that_predict_cannot_give() -> None:
    made = definition(x=info("x:0"))
    made.outputs["words"].dtype = STRING
    made.outputs["words"].coo_sparse.values_tensor_name = "values:0"
    signature = read_one(made)
    assert [spec.kind for spec in signature.outputs] == [UNSERVED, "dense"]
    with pytest.raises(SignatureError, match="'words' is ragged or sparse, and TF Serving returns dense tensors only"):
        pick_signature({"s": signature}, "s")
    assert pick_signature({"s": signature}, "s", ("y",)) == signature.with_outputs(("y",))


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_served_model_has_the_signatures_of_its_files(case: Any, cases: Callable[[str], str]) -> None:
    """Except for the features of Examples, and outputs that are not dense tensors."""
    meta_graph = read_meta_graph(cases(case.name), LocalFiles())
    on_disk = read_signatures(meta_graph)
    served = read_served_signatures(definitions(**dict(meta_graph.signature_def)))
    assert list(served) == list(on_disk)
    for name, signature in served.items():
        assert signature.inputs == on_disk[name].inputs
        assert [spec.name for spec in signature.outputs] == [spec.name for spec in on_disk[name].outputs]
        assert {spec.kind for spec in signature.outputs} <= {"dense", UNSERVED}
        assert signature.takes_examples == on_disk[name].takes_examples
