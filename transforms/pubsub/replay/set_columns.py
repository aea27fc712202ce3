"""Columns that get a value in the payload of a message before it is sent again: in a JSON object, or a tf.Example."""

import base64
import json
from collections.abc import Collection, Mapping
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from sluice.models.protos import message_class
from sluice.transforms.core.json_members import set_members
from sluice.transforms.decode.json_values import NOT_FINITE

_BYTES, _FLOATS, _WHOLE = "bytes_list", "float_list", "int64_list"


def set_columns(payload: bytes, changes: Mapping[str, str], floats: Collection[str] = ()) -> bytes | None:
    """Returns a payload with columns set; None if it is neither a JSON object nor a tf.Example that can hold them.

    Of a JSON object, all else stays as it is written.

    Args:
      changes: JSON texts, by column. In a tf.Example null takes the feature out, and a feature keeps its kind if that
        can hold the value.
      floats: columns that hold floats: of a tf.Example that has no such feature, NaN is one there, and not a text.
    """
    try:
        return set_members(payload.decode(), changes).encode()
    except ValueError:
        example = _parsed(payload)
    if example is None:
        return None
    try:
        for name, text in changes.items():
            _set_feature(example.features.feature, name, json.loads(text), name in floats)
    except (ValueError, TypeError, OverflowError):  # an object, a list of lists, a number beyond 64 bits
        return None
    data: bytes = example.SerializeToString(deterministic=True)
    return data


def _parsed(payload: bytes) -> Any:
    """Returns a tf.Example; None if the payload is not clearly one: some texts parse as messages, with other fields."""
    example = message_class("tensorflow.Example")()
    try:
        example.ParseFromString(payload)
    except DecodeError:
        return None
    strange = len(UnknownFieldSet(example)) or len(UnknownFieldSet(example.features))
    return example if example.features.feature and not strange else None


def _set_feature(features: Any, name: str, value: Any, is_float: bool) -> None:
    kind = features[name].WhichOneof("kind") if name in features else None
    if name in features:
        del features[name]
    if value is None:
        return
    values = value if isinstance(value, list) else [value]
    if kind == _FLOATS or (is_float and kind != _BYTES):
        values = [NOT_FINITE.get(each, each) if isinstance(each, str) else each for each in values]
    if kind == _BYTES or not all(isinstance(each, int | float) for each in values):
        kind, values = _BYTES, [_as_bytes(each) for each in values]
    elif kind == _FLOATS or (is_float and kind is None) or not all(isinstance(each, int) for each in values):
        kind, values = _FLOATS, [float(each) for each in values]
    else:
        kind, values = _WHOLE, [int(each) for each in values]
    getattr(features[name], kind).value.extend(values)


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, dict) and value.keys() == {"b64"}:
        return base64.b64decode(value["b64"], validate=True)
    if isinstance(value, dict | list) or value is None:
        raise TypeError(f"a tf.Example has no {type(value).__name__}")
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()
