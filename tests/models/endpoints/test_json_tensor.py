"""Tensors as TF Serving's JSON, against Python's json module and a reader that takes one value after the other."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sluice.models.endpoints.json_tensor import decode_outputs, encode_columns, encode_rows
from sluice.models.errors import BadOutput
from sluice.models.signature import Signature, TensorSpec, numpy_dtype
from tests.support.paths import ROOT

FLOATS = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = (*FLOATS, *INTEGERS, "bool", "string")
SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)
STRINGS = st.one_of(
    st.binary(max_size=9),
    st.text(max_size=9).map(str.encode),
    st.sampled_from(
        [
            b"",
            b'"',
            b'"",""',
            b"\\",
            b"\x00",
            b"\x1f",
            b"\x7f",
            b"\xff",
            b"\xed\xa0\x80",
            b"%b",
            b"[],",
            b'{"b64":"YQ=="}',
        ]
        + [text.encode() for text in ("é", "😀", "\u2028", "\ufffe", "\U0010ffff")]
    ),
)


def signature(*inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = ()) -> Signature:
    return Signature("serving_default", "tensorflow/serving/predict", inputs, outputs)


def spec_of(name: str, array: np.ndarray) -> TensorSpec:
    dtype = "string" if array.dtype == object else array.dtype.name
    return TensorSpec(name, dtype, (None, *array.shape[1:]))


def draw_array(data: st.DataObject, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    if dtype == "string":
        return data.draw(hnp.arrays(object, shape, elements=STRINGS))
    if dtype == "bfloat16":
        return data.draw(hnp.arrays(np.uint16, shape)).view(ml_dtypes.bfloat16)
    return data.draw(hnp.arrays(numpy_dtype(dtype), shape))


def strings(*values: bytes) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def as_json(array: np.ndarray, name: str = "") -> Any:
    """The tensor as nested lists of what json.dumps takes, value by value."""
    return replaced(
        (array.astype(np.float64) if array.dtype.name in FLOATS else array).tolist(), lambda value: leaf(value, name)
    )


def leaf(value: Any, name: str) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        if not name.endswith("_bytes"):
            return value.decode()
    except UnicodeDecodeError:
        pass
    return {"b64": base64.b64encode(value).decode()}


def replaced(value: Any, function: Callable[[Any], Any]) -> Any:
    return [replaced(item, function) for item in value] if isinstance(value, list) else function(value)


def from_json(value: Any, like: np.ndarray) -> np.ndarray:
    """What TF Serving reads of a request, value by value, floats by way of a double."""
    leaves: list[Any] = []
    assert nesting(value) == nesting(as_json(like))
    replaced(value, leaves.append)
    if like.dtype == object:
        array = np.empty(len(leaves), object)
        array[:] = [base64.b64decode(item["b64"]) if isinstance(item, dict) else item.encode() for item in leaves]
        return array.reshape(like.shape)
    kind = bool if like.dtype == bool else float if like.dtype.name in FLOATS else int
    assert {type(item) for item in leaves} <= {kind}
    return np.array(leaves, np.float64 if kind is float else like.dtype).astype(like.dtype).reshape(like.shape)


def nesting(value: Any) -> Any:
    return replaced(value, lambda _: None)


def assert_same(array: np.ndarray, expected: np.ndarray) -> None:
    assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
    if array.dtype == object:
        assert array.tolist() == expected.tolist()
    elif expected.dtype.name in FLOATS:
        wide, wanted = array.astype(np.float64), expected.astype(np.float64)
        np.testing.assert_array_equal(wide, wanted)
        number = ~np.isnan(wanted)
        np.testing.assert_array_equal(np.signbit(wide)[number], np.signbit(wanted)[number])
    else:
        np.testing.assert_array_equal(array, expected)


@given(st.data(), st.sampled_from(DTYPES), SHAPES, st.sampled_from(["x", 'a "%s" é', "x_bytes", "b64"]))
def test_requests_in_columns_hold_the_tensor(
    data: st.DataObject, dtype: str, shape: tuple[int, ...], name: str
) -> None:
    array = draw_array(data, dtype, shape)
    body = json.loads(encode_columns({name: array}, signature(spec_of(name, array))))
    assert body.keys() == {"signature_name", "inputs"}
    assert body["signature_name"] == "serving_default"
    assert body["inputs"].keys() == {name}
    value = body["inputs"][name]
    if dtype not in FLOATS:  # the largest float32 is written with fewer digits than it has as a double
        assert value == as_json(array, name)
    assert_same(from_json(value, array), array)


@given(st.data(), st.lists(st.sampled_from(DTYPES), min_size=1, max_size=4), st.integers(0, 4))
def test_requests_in_rows_hold_the_same_as_in_columns(data: st.DataObject, dtypes: list[str], rows: int) -> None:
    inner = hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3)
    feeds = {
        f"{number} %b %%": draw_array(data, dtype, (rows, *data.draw(inner))) for number, dtype in enumerate(dtypes)
    }
    spec = signature(*(spec_of(name, array) for name, array in feeds.items()))
    columns = json.loads(encode_columns(feeds, spec))["inputs"]
    body = json.loads(encode_rows(feeds, spec))
    assert body.keys() == {"signature_name", "instances"}
    expected = [{name: columns[name][row] for name in feeds} for row in range(rows)]
    assert json.dumps(body["instances"]) == json.dumps(expected)  # as text, where NaN is like NaN


@pytest.mark.parametrize("shape", [(3,), (3, 1), (1, 3), (3, 1, 1), (1, 3, 1), (2, 0), (2, 0, 3), (2, 3, 0), (0, 3)])
@pytest.mark.parametrize("dtype", ["int64", "float32", "string"])
def test_nesting_follows_the_shape(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(int(np.prod(shape))).reshape(shape)
    array = np.array([b"%d" % value for value in array.ravel()], object).reshape(shape) if dtype == "string" else array
    array = array if dtype == "string" else array.astype(dtype)
    spec = signature(spec_of("x", array))
    assert json.loads(encode_columns({"x": array}, spec))["inputs"]["x"] == as_json(array)
    assert json.loads(encode_rows({"x": array}, spec))["instances"] == [{"x": row} for row in as_json(array)]


def test_what_a_request_looks_like() -> None:
    feeds = {"n": np.array([1, -2]), "s": strings(b"a", b"b")}
    spec = signature(*(spec_of(name, array) for name, array in feeds.items()))
    assert encode_columns(feeds, spec) == b'{"signature_name":"serving_default","inputs":{"n":[1,-2],"s":["a","b"]}}'
    assert encode_rows(feeds, spec) == (
        b'{"signature_name":"serving_default","instances":[{"n":1,"s":"a"},{"n":-2,"s":"b"}]}'
    )


def test_feeds_that_the_signature_does_not_name_stay_out() -> None:
    feeds = {"other": np.zeros(2), "n": np.array([1, 2])}
    spec = signature(TensorSpec("n", "int64", (None,)))
    assert json.loads(encode_columns(feeds, spec))["inputs"] == {"n": [1, 2]}
    assert json.loads(encode_rows(feeds, spec))["instances"] == [{"n": 1}, {"n": 2}]


def test_the_only_input_named_b64_is_sent_without_its_name_in_rows() -> None:
    array = strings(b"YQ==")
    body = encode_rows({"b64": array}, signature(spec_of("b64", array)))
    assert json.loads(body)["instances"] == ["YQ=="]


def column(array: np.ndarray, name: str = "x") -> bytes:
    body = encode_columns({name: array}, signature(spec_of(name, array)))
    return body.partition(f'"{name}":'.encode())[2][:-2]


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_that_json_has_no_form_for_are_written_as_tf_serving_reads_them(dtype: str) -> None:
    array = np.array([np.nan, np.inf, -np.inf, 0.5, -0.0]).astype(numpy_dtype(dtype))
    assert column(array) == b"[NaN,Infinity,-Infinity,0.5,-0.0]"
    assert column(array.reshape(5, 1)) == b"[[NaN],[Infinity],[-Infinity],[0.5],[-0.0]]"


def test_whole_floats_are_not_written_as_integers() -> None:
    """TF Serving refuses whole numbers past 2^24 for a float32, unless they have a point or an exponent."""
    for text in column(np.array([3, 2**24 + 2, 1e22, 1e-7], np.float32))[1:-1].split(b","):
        assert b"." in text or b"e" in text


@example(0x15AE43FD)  # its shortest text, 7.038531e-26, lies so near the middle to the next that the double is that
@example(0x7F7FFFFF)
@example(0xFF7FFFFF)
@example(1)
@given(st.integers(0, 2**32 - 1))
def test_every_float32_survives_a_parser_of_doubles(bits: int) -> None:
    array = np.array([bits], np.uint32).view(np.float32)
    read = np.array(json.loads(column(array)), np.float64)
    assert_same(read.astype(np.float32), array)
    largest = float(np.finfo(np.float32).max)
    assert not np.isfinite(read[0]) or abs(read[0]) <= largest


def fast_rapidjson(text: bytes) -> float:
    """How RapidJSON reads a double without kParseFullPrecisionFlag: 2^53 or more in digits, and then a power of ten.

    https://github.com/Tencent/rapidjson/blob/master/include/rapidjson/reader.h, ParseNumber
    """
    digits, _, exponent = text.partition(b"e")
    whole, _, fraction = digits.partition(b".")
    number, power = int(whole), int(exponent or 0)
    for digit in fraction.decode():
        if number > 2**53 - 1:
            break
        number, power = 10 * number + int(digit), power - 1
    return float(number) * 10.0**power if power >= 0 else float(number) / 10.0**-power


def test_the_largest_float32_stays_below_tf_servings_limit() -> None:
    largest = np.finfo(np.float32).max
    assert fast_rapidjson(repr(float(largest)).encode()) > float(largest)  # why all of its digits are not sent
    text = column(np.array([largest]))[1:-1]
    assert fast_rapidjson(text) <= float(largest)
    assert np.float32(fast_rapidjson(text)) == largest
    assert column(np.array([-largest, np.inf], np.float32))[1:-1] == b"-" + text + b",Infinity"


def test_the_docs_say_what_tf_serving_makes_of_float64() -> None:
    """The text of a value is exact, and its parser rounds twice: only gRPC carries every value as it is."""
    values = np.random.default_rng(1).uniform(size=2000)
    read = np.array([fast_rapidjson(text) for text in column(values)[1:-1].split(b",")])
    steps = abs(read.view(np.int64) - values.view(np.int64))
    assert 0.08 < np.mean(steps > 0) < 0.16 and steps.max() <= 2
    page = " ".join((ROOT / "docs" / "serving.md").read_text().split())
    assert "some 12 % of float64 values as a neighbour, one or two units in the last place away" in page
    assert "call models that take float64 over gRPC" in page


@pytest.mark.parametrize("values", [[2**63 - 1, -(2**63), 2**53 + 1], [2**64 - 1, 2**53 + 1]])
def test_integers_are_exact(values: list[int]) -> None:
    array = np.array(values, np.int64 if min(values) < 0 else np.uint64)
    assert json.loads(column(array)) == values
    outputs = (TensorSpec("y", array.dtype.name, (None,)),)
    assert decode_outputs(json.dumps({"outputs": values}).encode(), signature(outputs=outputs))["y"].tolist() == values


def test_arrays_that_are_not_contiguous() -> None:
    array = np.arange(12).reshape(3, 4)
    assert json.loads(column(array.T)) == array.T.tolist()
    assert json.loads(column(array.astype(np.float32)[:, ::2])) == array[:, ::2].tolist()
    words = np.array([[b"a", b"b"], [b"c", b"d"]], object)
    assert json.loads(column(words.T)) == [["a", "c"], ["b", "d"]]


def test_strings_that_are_not_text_are_sent_in_base64_and_others_as_text() -> None:
    assert json.loads(column(strings(b"a", b"\xff", b'"'))) == ["a", {"b64": "/w=="}, '"']
    assert json.loads(column(strings(b"a", b""), "x_bytes")) == [{"b64": "YQ=="}, {"b64": ""}]


def answer(value: Any, key: str = "outputs") -> bytes:
    return json.dumps({key: value}).encode()


def decode_one(value: Any, spec: TensorSpec, key: str = "outputs") -> np.ndarray:
    return decode_outputs(answer(value, key), signature(outputs=(spec,)))[spec.name]


@given(st.data(), st.sampled_from(DTYPES), SHAPES, st.booleans(), st.sampled_from(["y", "y_bytes"]), st.booleans())
def test_answers_give_the_tensor(
    data: st.DataObject, dtype: str, shape: tuple[int, ...], rows: bool, name: str, alone: bool
) -> None:
    array = draw_array(data, dtype, shape)
    values = as_json(array, name)
    spec = spec_of(name, array)
    if rows:
        value = values if alone else [{name: row, "other": 0} for row in values]
    else:
        value = values if alone else {name: values, "other": 0}
    if rows and not alone and not values:
        return  # without rows there are no names
    assert_same(decode_one(value, spec, "predictions" if rows else "outputs"), array)


def test_only_the_outputs_of_the_signature_are_read() -> None:
    specs = (TensorSpec("b", "float32", (None,)), TensorSpec("a", "string", (None,)))
    columns = {"a": ["x", "y"], "b": [1, 2.5], "c": [None, {}]}
    for body in (
        answer(columns),
        answer([{name: columns[name][row] for name in columns} for row in (0, 1)], "predictions"),
    ):
        arrays = decode_outputs(body, signature(outputs=specs))
        assert list(arrays) == ["b", "a"]
        assert_same(arrays["b"], np.array([1, 2.5], np.float32))
        assert_same(arrays["a"], strings(b"x", b"y"))


def test_an_output_that_is_the_only_one_wanted_of_several() -> None:
    assert decode_one({"y": [1], "z": [2]}, TensorSpec("y", "int64", (None,))).tolist() == [1]
    assert decode_one([{"y": 1, "z": 2}], TensorSpec("y", "int64", (None,)), "predictions").tolist() == [1]


@pytest.mark.parametrize("key", ["outputs", "predictions"])
def test_base64_is_a_value_and_no_name(key: str) -> None:
    spec = TensorSpec("y_bytes", "string", (None,))
    assert decode_one([{"b64": "/w=="}, {"b64": ""}], spec, key).tolist() == [b"\xff", b""]
    assert decode_one(["a", {"b64": "/w=="}], spec, key).tolist() == [b"a", b"\xff"]


def test_strings_that_are_not_utf8_come_as_they_are() -> None:
    """TF Serving writes them so, which is not JSON."""
    spec = signature(outputs=(TensorSpec("y", "string", (None,)),))
    assert decode_outputs(b'{"outputs": ["\xff\xfe", "\xc3\xa9"]}', spec)["y"].tolist() == [b"\xff\xfe", "é".encode()]


def test_nan_and_infinity_are_read() -> None:
    spec = TensorSpec("y", "float32", (None, 2))
    assert_same(
        decode_outputs(b'{"outputs": [[NaN, 1.5],\n [-Infinity, Infinity]]}', signature(outputs=(spec,)))["y"],
        np.array([[np.nan, 1.5], [-np.inf, np.inf]], np.float32),
    )


def test_whole_numbers_are_floats_too_and_not_the_other_way_round() -> None:
    assert_same(decode_one([1, 2], TensorSpec("y", "float64", (None,))), np.array([1.0, 2.0]))
    with pytest.raises(BadOutput, match=r"output 'y', row 1: 2.0, and the signature says int64 \[batch\]"):
        decode_one([1, 2.0], TensorSpec("y", "int64", (None,)))


@pytest.mark.parametrize(
    ("shape", "value", "expected"),
    [
        ((None, None), [[], []], (2, 0)),
        ((None, None, 3), [[], []], (2, 0, 3)),
        ((None, 0, None), [[], []], (2, 0, 0)),
        ((None, 2, 0), [[[], []]], (1, 2, 0)),
        ((None, 3), [], (0, 3)),
        (None, [], (0,)),
        (None, [1.5], (1,)),
        (None, [[[1.5]], [[2.5]]], (2, 1, 1)),
        (None, [[], []], (2, 0)),
    ],
)
def test_dimensions_that_are_empty_or_unknown(
    shape: tuple[int | None, ...] | None, value: Any, expected: tuple[int, ...]
) -> None:
    assert decode_one(value, TensorSpec("y", "float32", shape)).shape == expected


@pytest.mark.parametrize(
    ("spec", "value", "text"),
    [
        (TensorSpec("y", "float32", (None,)), [0.5, None], "output 'y', row 1: null, and the signature says float32"),
        (TensorSpec("y", "float32", (None, 2)), [[1, 2], [1, "2"]], "output 'y', row 1: \"2\""),
        (TensorSpec("y", "float32", (None,)), [True], "output 'y', row 0: true"),
        (TensorSpec("y", "bool", (None,)), [True, 1], "output 'y', row 1: 1, and the signature says bool"),
        (TensorSpec("y", "int64", (None,)), [True], "output 'y', row 0: true"),
        (TensorSpec("y", "string", (None,)), ["a", 1], "output 'y', row 1: 1, and the signature says string"),
        (TensorSpec("y", "string", (None,)), ["a", {"b65": "YQ=="}], r'\{"b65": "YQ=="\} is not a string'),
        (TensorSpec("y", "string", (None,)), ["a", {"b64": "YQ==", "c": 1}], "is not a string"),
        (TensorSpec("y", "string", (None,)), ["a", {"b64": "YQ"}], "output 'y': Incorrect padding"),
        (TensorSpec("y", "string", (None,)), ["\ud800"], "output 'y': .*surrogates"),
        (TensorSpec("y", "int8", (None,)), [1, 128], "output 'y': 128 is out of range, and the signature says int8"),
        (TensorSpec("y", "uint32", (None,)), [-1], "output 'y': -1 is out of range"),
        (TensorSpec("y", "uint64", (None,)), [2**64], "output 'y', row 0: 1.8446744073709552e\\+19"),
        (TensorSpec("y", "float32", (None,)), [[0.5]], r"output 'y', row 0: \[0.5\], and the signature says"),
        (TensorSpec("y", "float32", (None, 1)), [0.5], "output 'y', row 0: 0.5 is not a list"),
        (TensorSpec("y", "float32", (None, 1)), [[0.5], 3], "output 'y', row 1: 3 is not a list"),
        (TensorSpec("y", "float32", (None, 2, 1)), [[[1], [2]], [[1], 2]], "output 'y', row 1: 2 is not a list"),
        (
            TensorSpec("y", "float32", (None, 1)),
            [[0.5], [1, 2]],
            "output 'y': lists of 1 and of 2 values are not a tensor",
        ),
        (TensorSpec("y", "float32", (None,)), 0.5, "output 'y': 0.5 is not a list"),
        (TensorSpec("y", "float32", None), 0.5, "output 'y': 0.5 is not a list"),
        (TensorSpec("y", "float32", None), [0.5, [0.5]], "output 'y', row 0: 0.5 is not a list"),
        (TensorSpec("y", "float32", None), [[1], [2, 3]], "output 'y': lists of 1 and of 2 values"),
        (TensorSpec("y", "float32", (None,)), {"z": [1]}, r"the answer lacks output 'y'; it has \['z'\]"),
        (TensorSpec("y", "float32", (None,)), None, "output 'y': null is not a list"),
        (TensorSpec("y", "float32", (None,)), ["x" * 300], f'row 0: "{"x" * 99}\\.\\.\\., and'),
    ],
)
def test_what_is_no_tensor_of_the_signature(spec: TensorSpec, value: Any, text: str) -> None:
    with pytest.raises(BadOutput, match=text):
        decode_one(value, spec)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (answer([1], "results"), "neither 'outputs' nor 'predictions': {\"results\""),
        (b"[1]", "neither"),
        (b"null", "neither"),
        (b"", "not JSON: .*; it begins with b''"),
        (b"<html>Hello", "not JSON: .*; it begins with b'<html>Hello'"),
        (b'{"outputs": {"a": [1], "b": [2]', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (answer([1, 2]), r"one output without a name, and the signature has \['a', 'b'\]: \[1, 2\]"),
        (answer([1, 2], "predictions"), "one output without a name"),
        (answer({"a": [1]}), r"lacks output 'b'; it has \['a'\]"),
        (answer([{"a": 1, "b": 2}, {"a": 1}], "predictions"), "row 1 of the answer lacks output 'b': {\"a\": 1}"),
        (answer([{"a": 1, "b": 2}, 3], "predictions"), "row 1 of the answer lacks output 'a': 3"),
        (answer({"a": [1], "b": [2]}, "predictions"), "one output without a name"),
        (answer([{"a": 1, "b": 2}, {"a": 1, "b": None}], "predictions"), "output 'b', row 1: null"),
        (answer([{"a": [1], "b": 2}, {"a": 1, "b": 2}], "predictions"), r"output 'a', row 0: \[1\]"),
        (b'{"outputs": {"a": [1], "b": [NaN]}}', "output 'b', row 0: NaN, and the signature says int64"),
    ],
)
def test_what_is_no_answer(body: bytes, text: str) -> None:
    specs = (TensorSpec("a", "int64", (None,)), TensorSpec("b", "int64", (None,)))
    with pytest.raises(BadOutput, match=text):
        decode_outputs(body, signature(outputs=specs))


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["outputs", "predictions", "a", "b64"]), inner, max_size=3)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_answer_gives_arrays_or_bad_output(body: bytes) -> None:
    for dtype in ("float32", "int32", "string"):
        for shape in ((None,), (None, 2), None):
            try:
                array = decode_outputs(body, signature(outputs=(TensorSpec("a", dtype, shape),)))["a"]
            except BadOutput:
                continue
            assert array.dtype == numpy_dtype(dtype)
            assert shape is None or array.ndim == len(shape)
