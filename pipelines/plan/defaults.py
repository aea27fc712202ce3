"""--column_defaults as values of the types that the model takes. No Beam here."""

from typing import Any

from sluice.models.errors import UsageError
from sluice.models.signature import ColumnSpec, Signature
from sluice.models.tensors.columns import default_value


def parse_defaults(signature: Signature, pairs: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Returns --column_defaults with values of the columns' types.

    Raises:
      UsageError: a value is not of its column's type.
    """
    specs = {spec.name: spec for spec in signature.columns}
    return {name: _default(specs[name], text) if name in specs else text for name, text in pairs}


def _default(spec: ColumnSpec, text: str) -> Any:
    value: Any = text
    try:
        if spec.dtype == "bool":
            value = {"true": True, "false": False}[text.lower()]
        elif spec.dtype != "string":
            value = float(text) if "float" in spec.dtype else int(text)
        default_value(value, spec)
    except (ValueError, KeyError, UsageError) as error:
        raise UsageError(
            f"--column_defaults {spec.name}={text}: the value does not fit the column's type, {spec}"
        ) from error
    return value
