"""TensorProto messages of tensors."""

from __future__ import annotations

from typing import Any

from sluice.models.protos import message_class
from sluice.models.tensors.strings import Tensor
from sluice.models.tensors.tensor_proto import tensor_parts


def tensor_bytes(tensor: Tensor) -> bytes:
    """Returns a serialized TensorProto."""
    return b"".join(tensor_parts([tensor])[0])


def to_tensor(tensor: Tensor, message: Any = None) -> Any:
    """Returns the tensor as a TensorProto; fills `message` if it is given."""
    message = message_class("tensorflow.TensorProto")() if message is None else message
    message.MergeFromString(tensor_bytes(tensor))
    return message
