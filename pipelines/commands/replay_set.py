"""--set of `sluice replay`: values of columns as JSON texts, typed as the stream's input has them."""

import json
from typing import Any, NamedTuple

import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.models.interface import EndpointOptions
from sluice.models.saved_model.signature_reader import pick_signature
from sluice.models.signatures import find_model
from sluice.models.uri import parse_model_uri
from sluice.models.wording import text_of
from sluice.pipelines.options.stream_tools import ReplayOptions
from sluice.pipelines.plan.declared import read_input_schema
from sluice.pipelines.plan.model import launch_errors
from sluice.transforms.core.beam_files import BeamFiles
from sluice.transforms.decode.json_values import coerce, is_text

_TIMEOUT_SECS = 15.0


class Changes(NamedTuple):
    """What --set changes.

    Attributes:
      texts: JSON texts, by column.
      floats: the columns among them that hold floats.
    """

    texts: dict[str, str]
    floats: frozenset[str]


def find_changes(options: ReplayOptions) -> Changes:
    """Returns the values of --set.

    Raises:
      UsageError: a value is not of its column's type, or the types cannot be found.
    """
    if not options.set:
        return Changes({}, frozenset())
    kinds = _kinds(options)
    texts = {name: json_text(name, text, kinds.get(name)) for name, text in options.set}
    return Changes(texts, frozenset(name for name in texts if name in kinds and _holds_floats(kinds[name])))


def _kinds(options: ReplayOptions) -> dict[str, pa.DataType]:
    with launch_errors():
        declared = read_input_schema(options.input_schema)
        kinds = {name: kind for name, kind in declared.types.items() if name not in declared.texts}
        if not options.model:
            return kinds
        found = find_model(parse_model_uri(options.model), BeamFiles(), EndpointOptions(), _TIMEOUT_SECS)
    signature = pick_signature(found.signatures, options.signature)
    return kinds | {spec.name: spec.arrow_type for spec in signature.columns}


def json_text(name: str, text: str, kind: pa.DataType | None) -> str:
    """Returns the JSON text of a value.

    Args:
      kind: of its column; None: unknown. Then the value is what JSON reads it as, or else text.

    Raises:
      UsageError: the value is not of that type.
    """
    value, is_json = _read(text)
    if kind is not None and _is_written_as_text(kind, value, is_json):
        value, is_json = text, False
    if kind is not None:
        try:
            coerce(value if is_json else text, kind)
        except (ValueError, OverflowError) as error:
            raise UsageError(f"--set {name}={text}: it is not {kind}: {text_of(error)}") from error
    if kind is not None and _holds_floats(kind) and _is_whole(value):
        return json.dumps(_as_floats(value))  # a tf.Example has features of floats and of whole numbers
    return text.strip() if is_json else json.dumps(text)


def _holds_floats(kind: pa.DataType) -> bool:
    while pa.types.is_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_floating(kind))


def _is_whole(value: object) -> bool:
    """Whether a value is a whole number, or a list of such."""
    if isinstance(value, list):
        return all(map(_is_whole, value))
    return isinstance(value, int) and not isinstance(value, bool)


def _as_floats(value: Any) -> Any:
    return [_as_floats(each) for each in value] if isinstance(value, list) else float(value)


def _read(text: str) -> tuple[Any, bool]:
    """Returns a JSON value, and whether the text is one. NaN and infinities are texts, which columns of floats take."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        return json.loads(text, parse_constant=refuse), True
    except (ValueError, RecursionError):
        return None, False


def _is_written_as_text(kind: pa.DataType, value: object, is_json: bool) -> bool:
    """Whether JSON has a value of this type as a string, whatever it looks like: 01234, true, null."""
    if is_text(kind):
        return not (isinstance(value, dict) and "b64" in value)
    if pa.types.is_temporal(kind):
        return not (is_json and value is None)
    return False
