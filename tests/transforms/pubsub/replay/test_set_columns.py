"""Columns that are set in JSON objects and tf.Examples, and what is neither."""

from typing import Any

import pytest

from sluice.models.protos import message_class
from sluice.transforms.pubsub.replay.set_columns import set_columns
from tests.support.formats.decode_cases import example


def features(payload: bytes | None) -> dict[str, tuple[str, list[Any]]]:
    found = message_class("tensorflow.Example").FromString(payload)
    kinds = {name: each.WhichOneof("kind") for name, each in found.features.feature.items()}
    return {name: (kind, list(getattr(found.features.feature[name], kind).value)) for name, kind in kinds.items()}


def test_all_else_of_a_json_object_stays() -> None:
    changed = set_columns(b'{"x": "NA", "big": 12345678901234567890123}', {"x": "null", "n": "1"})
    assert changed == b'{"x": null, "big": 12345678901234567890123,"n":1}'


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        ("7", "int64_list", [7]),
        ("true", "int64_list", [1]),
        ("[1, 2]", "int64_list", [1, 2]),
        ("2.5", "float_list", [2.5]),
        ("[1, 2.5]", "float_list", [1.0, 2.5]),
        ('"text"', "bytes_list", [b"text"]),
        ('{"b64": "AP8="}', "bytes_list", [b"\x00\xff"]),
    ],
)
def test_a_feature_has_the_kind_of_its_value(text: str, kind: str, values: list[Any]) -> None:
    found = features(set_columns(example(x=1.5, name="a"), {"new": text}))
    assert found == {"x": ("float_list", [1.5]), "name": ("bytes_list", [b"a"]), "new": (kind, values)}


@pytest.mark.parametrize(
    ("name", "text", "kind", "values"),
    [
        ("x", "7", "float_list", [7.0]),
        ("x", '"Infinity"', "float_list", [float("inf")]),
        ("name", "94110", "bytes_list", [b"94110"]),
        ("n", "2.5", "float_list", [2.5]),
        ("n", '"a"', "bytes_list", [b"a"]),
    ],
)
def test_a_feature_keeps_its_kind_if_that_can_hold_the_value(name: str, text: str, kind: str, values: Any) -> None:
    assert features(set_columns(example(x=1.5, name="a", n=3), {name: text}))[name] == (kind, values)


@pytest.mark.parametrize(
    ("name", "text", "kind", "values"),
    [
        ("new", '"NaN"', "float_list", ["nan"]),
        ("new", '["NaN", 1]', "float_list", ["nan", "1.0"]),
        ("new", "7", "float_list", ["7.0"]),
        ("n", '"-Infinity"', "float_list", ["-inf"]),
        ("n", "7", "int64_list", ["7"]),
        ("name", '"NaN"', "bytes_list", ["b'NaN'"]),
        ("new", '"text"', "bytes_list", ["b'text'"]),
    ],
)
def test_nan_is_a_number_where_the_column_holds_floats(name: str, text: str, kind: str, values: list[str]) -> None:
    found = features(set_columns(example(name="a", n=3), {name: text}, floats={name}))[name]
    assert (found[0], list(map(str, found[1]))) == (kind, values)


def test_null_takes_a_feature_out() -> None:
    assert features(set_columns(example(x=1.5, name="a"), {"name": "null", "more": "null"})) == {
        "x": ("float_list", [1.5])
    }


@pytest.mark.parametrize("text", ['{"a": 1}', "[[1]]", "[null]", "99999999999999999999"])
def test_a_value_that_no_example_holds(text: str) -> None:
    assert set_columns(example(x=1.5), {"n": text}) is None


def test_a_number_that_no_float_holds() -> None:
    assert set_columns(example(x=1.5), {"x": "1" + "0" * 400}) is None


@pytest.mark.parametrize("payload", [b"", b"a,b", b"\xff", b"[1]", b'{"x": 1', b"12", b"\n\x03abc", b"hello world"])
def test_what_is_neither(payload: bytes) -> None:
    assert set_columns(payload, {"x": "1"}) is None
