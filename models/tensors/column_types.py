"""Decides which Arrow types fit which tensors."""

import pyarrow as pa

from sluice.models.signature import ColumnSpec


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds strings or bytes."""
    return (
        pa.types.is_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def is_list(kind: pa.DataType) -> bool:
    """Whether an Arrow type is one of the list types."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def type_fits(kind: pa.DataType, spec: ColumnSpec) -> bool:
    """Whether a column of this Arrow type can be bound at all. Single rows may still not fit."""
    leaf, depth = leaf_type(kind)
    if is_raw_bytes(kind, spec) or (pa.types.is_null(leaf) and not depth):
        return True
    if depth == 0 and not spec.is_scalar:
        return False
    if depth and depth != len(spec.shape) and spec.size is None:
        return False
    return pa.types.is_null(leaf) or leaf_fits(leaf, spec)


def leaf_type(kind: pa.DataType) -> tuple[pa.DataType, int]:
    """Returns the type inside all lists, and how many lists there are around it."""
    kind, depth = plain_type(kind), 0
    while is_list(kind):
        kind, depth = plain_type(kind.value_type), depth + 1
    return kind, depth


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Returns the type of the values of an extension or dictionary type, or of views; any other type as it is."""
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return pa.large_string() if pa.types.is_string_view(kind) else pa.large_binary()
    return plain_type(kind.value_type) if pa.types.is_dictionary(kind) else kind


def is_raw_bytes(kind: pa.DataType, spec: ColumnSpec) -> bool:
    """Whether a column of this type holds the bytes of uint8 tensors of known size, such as raw images."""
    return spec.dtype == "uint8" and not spec.is_scalar and spec.size is not None and is_text(plain_type(kind))


def leaf_fits(kind: pa.DataType, spec: ColumnSpec) -> bool:
    """Whether single values of this type can be values of the tensor."""
    kind = plain_type(kind)
    if spec.dtype == "string":
        return is_text(kind)
    if spec.dtype == "bool":
        return pa.types.is_boolean(kind)
    if pa.types.is_decimal(kind):
        return spec.dtype.startswith(("float", "bfloat"))
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
