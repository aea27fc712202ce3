"""Encoding columns as tf.Examples, compared with an encoder of single rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.protos import message_class
from sluice.models.reserved import PAYLOAD
from sluice.models.signature import ColumnSpec, Signature, TensorSpec
from sluice.models.tensors.binding import bind
from sluice.models.tensors.columns import RowErrors
from sluice.models.tensors.examples import encode_examples
from tests.support.columns_twin import Misfit, arrays, expected_row, fitting_arrays, may_hold
from tests.support.sizes import examples

FEATURES = st.builds(
    ColumnSpec,
    st.just(""),
    st.sampled_from(["int64", "float32", "string"]),
    st.sampled_from([(), (1,), (2,), (None,), (None, 2), (2, 2)]),
    st.booleans(),
)
Parsed = dict[str, list[Any]]


def parsed(encoded: np.ndarray) -> list[Parsed]:
    """Returns the values of each Example's features."""
    rows = []
    for serialized in encoded.tolist():
        features = message_class("tensorflow.Example").FromString(serialized).features.feature
        kinds = {name: feature.WhichOneof("kind") for name, feature in features.items()}
        rows.append({name: list(getattr(features[name], kind).value) for name, kind in kinds.items() if kind})
    return rows


def expected_feature(value: Any, kind: pa.DataType, spec: ColumnSpec) -> list[Any]:
    """Returns the values of one row's feature; [] if it is left out."""
    depth, leaf = 0, kind
    while hasattr(leaf, "value_type"):
        depth += not pa.types.is_dictionary(leaf)
        leaf = leaf.value_type
    if pa.types.is_boolean(leaf) and spec.dtype == "int64":
        leaf = pa.int8()
    if not pa.types.is_null(leaf) and not may_hold(leaf, spec.dtype):
        raise Misfit
    if value is None:
        values = np.empty(0)
    else:
        values = expected_row(value, _listed(leaf, depth), ColumnSpec("", spec.dtype, (None,) * depth))
    known = None not in spec.shape
    if values.size == 0:
        if known and spec.required:
            raise Misfit
        return []
    if known and values.size != math.prod(size or 0 for size in spec.shape):
        raise Misfit
    if depth == len(spec.shape) and any(
        wanted not in (None, size) for wanted, size in zip(spec.shape, values.shape, strict=True)
    ):
        raise Misfit
    return values.reshape(-1).tolist()


def _listed(leaf: pa.DataType, depth: int) -> pa.DataType:
    for _ in range(depth):
        leaf = pa.list_(leaf)
    return leaf


@examples(120)
@given(st.data())
def test_examples_hold_each_row_as_it_is(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 5))
    drawn = data.draw(st.lists(FEATURES, min_size=1, max_size=3))
    specs = [ColumnSpec(f"f{n}", each.dtype, each.shape, each.required) for n, each in enumerate(drawn)]
    batch = pa.RecordBatch.from_pydict(
        {s.name: data.draw(fitting_arrays(s, rows) if data.draw(st.integers(0, 2)) else arrays(s, rows)) for s in specs}
    )
    errors = RowErrors(rows)
    found = parsed(encode_examples(batch, specs, errors, {}))
    for row in range(rows):
        try:
            wanted = {s.name: expected_feature(batch[s.name][row].as_py(), batch[s.name].type, s) for s in specs}
        except Misfit:
            assert row in errors.reasons
            continue
        assert row not in errors.reasons, errors.reasons[row]
        assert _comparable(found[row]) == _comparable({name: values for name, values in wanted.items() if values})


def _comparable(row: Parsed) -> dict[str, list[Any]]:
    return {name: ["nan" if value != value else value for value in values] for name, values in row.items()}


def encode(columns: dict[str, Any], *features: ColumnSpec, defaults: dict[str, Any] | None = None) -> Any:
    batch = pa.RecordBatch.from_pydict(columns)
    errors = RowErrors(batch.num_rows)
    return parsed(encode_examples(batch, features, errors, defaults or {})), errors.reasons


def test_columns_of_a_model_whose_features_are_unknown_all_go_in() -> None:
    rows, errors = encode(
        {
            "i": pa.array([1], pa.uint8()),
            "b": [True],
            "f": [0.5],
            "s": pa.array(["a"]).dictionary_encode(),
            "many": pa.array([["x", "y"]], pa.list_(pa.string(), 2)),
            "flags": [[True, False]],
            "when": pa.array([0], pa.timestamp("us")),
            "numbers": pa.array([7]).dictionary_encode(),
            PAYLOAD: [b"raw"],
        }
    )
    assert not errors
    assert rows == [
        {"i": [1], "b": [1], "f": [0.5], "s": [b"a"], "many": [b"x", b"y"], "flags": [1, 0], "numbers": [7]}
    ]


def test_no_column_at_all_is_an_empty_example() -> None:
    assert encode({PAYLOAD: [b"raw", b"raw"]}) == ([{}, {}], {})


AGE = ColumnSpec("age", "int64")
TAGS = ColumnSpec("tags", "string", (None,), required=False)
BIAS = ColumnSpec("bias", "float32", (), required=False)


def test_what_is_missing_is_left_to_the_parser_unless_it_is_required() -> None:
    rows, errors = encode({"age": [1, None], "bias": [None, 0.5]}, AGE, TAGS, BIAS)
    assert rows == [{"age": [1]}, {"bias": [0.5]}]
    assert errors.keys() == {1}
    assert errors[1] == (
        "column 'age' is null and the model has no default for it (int64); give one with --column_defaults age=VALUE"
    )


def test_our_defaults_come_before_the_parsers() -> None:
    rows, errors = encode({"age": pa.array([1, None], pa.int8())}, AGE, BIAS, defaults={"age": 300, "bias": 2})
    assert not errors
    assert rows == [{"age": [1], "bias": [2.0]}, {"age": [300], "bias": [2.0]}]


def test_bad_rows_do_not_shift_the_others() -> None:
    pairs = ColumnSpec("pairs", "int64", (None, 2), required=False)
    column = [[[1, 2]], [[3], [4, 5]], [[6, 7], [8, 9]], [[None, 1]], None, [[10, 11]]]
    rows, errors = encode({"pairs": column}, pairs)
    assert errors.keys() == {1, 3}
    assert [rows[row] for row in (0, 2, 4, 5)] == [{"pairs": [1, 2]}, {"pairs": [6, 7, 8, 9]}, {}, {"pairs": [10, 11]}]


@pytest.mark.parametrize(
    ("column", "spec", "reason"),
    [
        ([["a", "b"]], ColumnSpec("c", "string", (3,)), "the model takes string[3], found a list of 2"),
        ([[[1, 2, 3]]], ColumnSpec("c", "int64", (None, 2)), "the model takes int64[?, 2], found lists of 1 x 3"),
        (["7"], ColumnSpec("c", "int64"), "column 'c' has type string, and the model takes int64"),
        ([2**63], ColumnSpec("c", "int64"), "9223372036854775808 does not fit int64"),
    ],
)
def test_reasons(column: list[Any], spec: ColumnSpec, reason: str) -> None:
    kind = pa.uint64() if column == [2**63] else None
    assert reason in encode({"c": pa.array(column, kind)}, spec)[1][0]


@pytest.mark.parametrize("shape", [(None,), (None, 1)])
def test_examples_are_fed_in_the_shape_of_the_input(shape: tuple[int | None, ...]) -> None:
    signature = Signature("s", "", (TensorSpec("examples", "string", shape),), (), (AGE,))
    for batch in ({"age": [1, None, 2]}, {"examples": [b"one", None, b"two"]}):
        (group,) = bind(pa.RecordBatch.from_pydict(batch), signature).groups
        assert group.feeds["examples"].shape == (2, *shape[1:])


def test_a_column_that_holds_examples_is_taken_as_it_is() -> None:
    inputs = (TensorSpec("examples", "string", (None,)),)
    signature = Signature("s", "", inputs, (), (AGE,))
    batch = pa.RecordBatch.from_pydict({"examples": [b"one", None], "age": [1, 2]})
    bound = bind(batch, signature)
    assert bound.groups[0].feeds["examples"].tolist() == [b"one"]
    assert bound.errors.keys() == {1}
    (group,) = bind(batch.select(["age"]), signature).groups
    assert [row["age"] for row in parsed(group.feeds["examples"])] == [[1], [2]]
    assert group.feeds["examples"].dtype == np.dtype(object)
