"""Which Arrow types fit which tensors."""

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
    """Whether a column of this Arrow type can be bound at all; single rows may still be out of range."""
    kind = plain_type(kind)
    if pa.types.is_null(kind) or is_raw_bytes(kind, spec):
        return True
    depth = 0
    while is_list(kind):
        kind, depth = plain_type(kind.value_type), depth + 1
    if depth == 0 and not spec.is_scalar:
        return False
    if depth and depth != len(spec.shape) and None in spec.shape:
        return False
    return pa.types.is_null(kind) or leaf_fits(kind, spec)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values that an extension or dictionary type stands for."""
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    return plain_type(kind.value_type) if pa.types.is_dictionary(kind) else kind


def is_raw_bytes(kind: pa.DataType, spec: ColumnSpec) -> bool:
    """Whether bytes of this type stand for a tensor of known size, such as a raw image."""
    return spec.dtype == "uint8" and not spec.is_scalar and None not in spec.shape and is_text(plain_type(kind))


def leaf_fits(kind: pa.DataType, spec: ColumnSpec) -> bool:
    """Whether single values of this type can be values of the tensor."""
    kind = plain_type(kind)
    if spec.dtype == "string":
        return is_text(kind)
    if spec.dtype == "bool":
        return pa.types.is_boolean(kind)
    if pa.types.is_decimal(kind):
        return spec.dtype.startswith(("float", "bfloat"))
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)
