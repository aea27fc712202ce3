"""Tensors, columns and signatures, read from protobufs built by hand, without TensorFlow."""

from __future__ import annotations

import pickle
from typing import Any

import pyarrow as pa
import pytest

from sluice.models.errors import SignatureError
from sluice.models.protos import message_class
from sluice.models.saved_model.signature_reader import pick_signature, read_signatures
from sluice.models.signature import ColumnSpec, Signature, TensorSpec, tensor_spec

FLOAT, STRING, INT64, COMPLEX64, BFLOAT16 = 1, 7, 9, 8, 14


def info(dtype: int, *sizes: int, unknown_rank: bool = False, name: str = "t:0") -> Any:
    made = message_class("tensorflow.TensorInfo")(name=name, dtype=dtype)
    made.tensor_shape.unknown_rank = unknown_rank
    for size in sizes:
        made.tensor_shape.dim.add(size=size)
    return made


def sparse(dtype: int, *sizes: int) -> Any:
    made = info(dtype, *sizes)
    made.coo_sparse.values_tensor_name = "values:0"
    made.coo_sparse.indices_tensor_name = "indices:0"
    made.coo_sparse.dense_shape_tensor_name = "shape:0"
    return made


def composite(kind: int, *components: Any) -> Any:
    made = message_class("tensorflow.TensorInfo")()
    made.composite_tensor.type_spec.type_spec_class = kind
    made.composite_tensor.components.extend(components)
    return made


SPLITS = info(INT64, -1, name="splits:0")


@pytest.mark.parametrize(
    ("given", "spec", "text"),
    [
        (info(FLOAT, -1), TensorSpec("t", "float32", (None,), ("t:0",)), "float32 [batch]"),
        (info(INT64, 8, -1, 3), TensorSpec("t", "int64", (8, None, 3), ("t:0",)), "int64 [batch, ?, 3]"),
        (info(STRING), TensorSpec("t", "string", (), ("t:0",)), "string []"),
        (info(BFLOAT16, unknown_rank=True), TensorSpec("t", "bfloat16", None, ("t:0",)), "bfloat16 of unknown rank"),
        (info(COMPLEX64, -1), TensorSpec("t", "complex64", (None,), ("t:0",)), "complex64 [batch]"),
        (
            sparse(STRING, -1, -1),
            TensorSpec("t", "string", (None, None), ("values:0", "indices:0", "shape:0"), "sparse"),
            "sparse string [batch, ?]",
        ),
        (
            composite(3, info(STRING, -1), SPLITS),
            TensorSpec("t", "string", (None, None), ("t:0", "splits:0"), "ragged"),
            "ragged string [batch, ?]",
        ),
        (
            composite(3, info(FLOAT, -1, 2), SPLITS),
            TensorSpec("t", "float32", (None, None, 2), ("t:0", "splits:0"), "ragged"),
            "ragged float32 [batch, ?, 2]",
        ),
    ],
)
def test_tensors(given: Any, spec: TensorSpec, text: str) -> None:
    assert tensor_spec("t", given) == spec
    assert str(spec) == text


@pytest.mark.parametrize(
    ("shape", "kind", "scalar"),
    [
        ((None,), "dense", True),
        ((None, 1), "dense", True),
        ((None, 1, 1), "dense", True),
        (None, "dense", True),
        ((None, 2), "dense", False),
        ((None, None), "dense", False),
        ((None, 1), "sparse", False),
    ],
)
def test_a_scalar_is_one_value_a_row(shape: Any, kind: str, scalar: bool) -> None:
    assert TensorSpec("t", "int64", shape, (), kind).is_scalar is scalar


@pytest.mark.parametrize(
    ("column", "arrow", "text"),
    [
        (ColumnSpec("x", "int8"), pa.int8(), "int8"),
        (ColumnSpec("x", "uint64", (1, 1)), pa.uint64(), "uint64"),
        (ColumnSpec("x", "bool"), pa.bool_(), "bool"),
        (ColumnSpec("x", "float16"), pa.float32(), "float16"),
        (ColumnSpec("x", "bfloat16", (3,)), pa.list_(pa.float32()), "bfloat16[3]"),
        (ColumnSpec("x", "string"), pa.string(), "string"),
        (ColumnSpec("x_bytes", "string"), pa.binary(), "string"),
        (ColumnSpec("x_bytes", "string", (2,)), pa.list_(pa.binary()), "string[2]"),
        (ColumnSpec("x", "float32", (None,)), pa.list_(pa.float32()), "float32[?]"),
        (ColumnSpec("x", "float32", (28, 28)), pa.list_(pa.float32()), "float32[28, 28]"),
        (ColumnSpec("x", "float32", (None, 3)), pa.list_(pa.list_(pa.float32())), "float32[?, 3]"),
    ],
)
def test_columns_have_the_types_that_readers_give_them(column: ColumnSpec, arrow: pa.DataType, text: str) -> None:
    assert column.arrow_type == arrow
    assert str(column) == text


X = TensorSpec("x", "float32", (None,), ("x:0",))
Y = TensorSpec("y", "float32", (None, 2), ("y:0",))
Z = TensorSpec("z", "string", (None,), ("z:0",))


def served(inputs: tuple[TensorSpec, ...] = (X,), outputs: tuple[TensorSpec, ...] = (Y,)) -> Signature:
    return Signature("serving_default", "predict", inputs, outputs)


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        (served(inputs=()), "has no input"),
        (served(outputs=()), "has no output"),
        (served(inputs=(tensor_spec("s", sparse(FLOAT, -1, -1)),)), "input 's' is sparse; only dense tensors"),
        (served(inputs=(tensor_spec("n", info(FLOAT)),)), "input 'n' has rank 0.*; export the model with a batch"),
        (served(outputs=(tensor_spec("n", info(FLOAT)),)), "output 'n' has rank 0.*--exclude_columns, or export"),
        (served(outputs=(tensor_spec("c", info(COMPLEX64, -1)),)), "output 'c' is complex64"),
        (
            served(outputs=(tensor_spec("deep", composite(3, info(STRING, -1), SPLITS, SPLITS)),)),
            "output 'deep' is a composite tensor of 3 parts.*ragged in more than one dimension.*--exclude_columns",
        ),
        (served(outputs=(tensor_spec("own", composite(7, info(STRING, -1))),)), "output 'own' is a composite tensor"),
    ],
)
def test_what_has_no_column_form_is_refused(signature: Signature, words: str) -> None:
    with pytest.raises(SignatureError, match=words):
        signature.checked()


def test_outputs_are_picked_by_name() -> None:
    signature = served(outputs=(Y, Z))
    assert signature.with_outputs(("z",)).outputs == (Z,)
    assert signature.with_outputs(("z", "y")).outputs == (Y, Z)
    with pytest.raises(SignatureError, match="has no output w, yy; it has y, z"):
        signature.with_outputs(("yy", "z", "w"))


def test_columns_are_the_inputs_or_the_features() -> None:
    assert served().columns == (ColumnSpec("x", "float32"),)
    assert served(inputs=(Y,)).columns == (ColumnSpec("y", "float32", (2,)),)
    features = (ColumnSpec("age", "int64"),)
    examples = Signature("s", "", (Z,), (Y,), features)
    assert examples.takes_examples and examples.columns == features
    assert not served().takes_examples


def test_a_signature_pickles_and_hashes_alike_after_use() -> None:
    used, fresh = served(), served()
    assert used.columns
    assert used == fresh and hash(used) == hash(fresh)
    assert pickle.loads(pickle.dumps(used)) == fresh


def meta_graph(*names: str) -> Any:
    made = message_class("tensorflow.MetaGraphDef")()
    for name in names:
        definition = made.signature_def[name]
        definition.method_name = "tensorflow/serving/predict"
        definition.inputs["b"].CopyFrom(info(FLOAT, -1, name="b:0"))
        definition.inputs["a"].CopyFrom(info(STRING, -1, name="a:0"))
        definition.outputs["y"].CopyFrom(info(FLOAT, -1, name="y:0"))
    return made


def test_reading_signatures() -> None:
    signatures = read_signatures(meta_graph("two", "__saved_model_init_op", "one"))
    assert list(signatures) == ["one", "two"]
    one = signatures["one"]
    assert [spec.name for spec in one.inputs] == ["a", "b"]
    assert one.method == "tensorflow/serving/predict"
    assert not one.takes_examples
    assert pick_signature(signatures, "one") is one


@pytest.mark.parametrize(
    ("names", "asked", "words"),
    [
        (["predict"], "serving_default", "no signature 'serving_default'; it has predict; give --signature predict"),
        (["predict", "classify"], "predct", "it has classify, predict; did you mean --signature predict?"),
        (["predict", "classify"], "other", "name one with --signature"),
        ([], "serving_default", "it has none"),
    ],
)
def test_a_signature_that_is_not_there(names: list[str], asked: str, words: str) -> None:
    with pytest.raises(SignatureError) as caught:
        pick_signature(read_signatures(meta_graph(*names)), asked)
    assert words in str(caught.value)
