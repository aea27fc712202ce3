"""Renders the description of a model by `sluice inspect` as text for a terminal."""

import json
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from sluice.pipelines.progress.table import align

# How many entries of a list in the sample row the text shows; --json shows all.
_SHOWN_ENTRIES = 4

Description = dict[str, Any]


def render(description: Description) -> str:
    """Returns a description of `pipelines.commands.inspect_model.describe` as sections of aligned columns."""
    sections = [
        align(_head(description)),
        _section("Versions", [(str(each["version"]), _status(each)) for each in description["versions"]]),
        *(_signature(signature, description) for signature in description["signatures"]),
        *_rows(description),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _head(description: Description) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = [("Model", description["uri"])]
    if description["version"] is not None:
        where = f", in {description['directory']}" if description["directory"] else ", served now"
        lines.append(("Version", f"{description['version']}{where}"))
    if description["directory"]:
        lines.append(("Trust", "a SavedModel is a program: load it only if you trust its maker (docs/security.md)"))
    if description["missing_assets"]:
        names = ", ".join(description["missing_assets"])
        lines.append(("Lacks", f"{names}; TensorFlow loads the model without, unless its graph reads it"))
    return lines


def _status(version: Description) -> str:
    if version["missing"]:
        return f"incomplete: {version['missing']}"
    return "complete, used" if version["used"] else "complete"


def _signature(signature: Description, description: Description) -> list[str]:
    tensors = [(role, spec["name"], *_tensor(spec)) for role in ("input", "output") for spec in signature[f"{role}s"]]
    lines = _section(f"Signature {signature['name']}  {signature['method']}", tensors)
    if signature["problem"]:
        lines.append(f"  cannot be served whole: {signature['problem']}")
    dtypes = {spec["name"]: spec["dtype"] for spec in signature["outputs"]}
    lines += [f"  output '{name}' is left out: a {dtypes[name]} has no values" for name in signature["left_out"]]
    if signature["takes_examples"] and signature["name"] != description["signature"]:
        lines.append(f"  takes tf.Examples; their features: --signature {shlex.quote(signature['name'])}")
    elif signature["takes_examples"] and not description["columns"]:
        lines.append("  takes tf.Examples; neither its graph nor its server shows which features it reads")
    elif signature["takes_examples"]:
        lines += ["", *_section(f"Features of {signature['name']}, each a column of the input", _features(description))]
    return lines


def _features(description: Description) -> list[tuple[str, ...]]:
    return [
        (spec["name"], spec["type"], "required" if spec["required"] else "optional") for spec in description["columns"]
    ]


def _tensor(spec: Description) -> tuple[str, str]:
    dtype = spec["dtype"] if spec["kind"] == "dense" else f"{spec['kind']} {spec['dtype']}"
    if spec["shape"] is None:
        return dtype, "of unknown rank"
    sizes = ["?" if size is None else str(size) for size in spec["shape"]]
    if spec["shape"] and spec["shape"][0] is None:
        sizes[0] = "batch"
    return dtype, f"[{', '.join(sizes)}]"


def _rows(description: Description) -> Iterator[list[str]]:
    name = description["signature"]
    if name is None:
        yield ["No signature has the name serving_default: choose one with --signature to see its rows"]
    if not description["command"]:
        return
    if description["sample_row"]:
        text = _shorten(description["sample_row"])
        whole = "" if text == json.dumps(description["sample_row"]) else " (shortened; whole with --json)"
        yield [f"Sample row for {name}, a line of a .jsonl file{whole}", f"  {text}"]
    yield _section("Output columns", [(field["name"], field["type"]) for field in description["output_columns"]])
    yield ["BigQuery schema of predictions", *_table_schema(description)]
    if name := _takes_files(description):
        yield [
            f"If '{name}' takes the bytes of files, such as images",
            "  each file a row:   --input 'DIR/*.jpg' --input_format files",
            f"  paths in a column: --read_paths {shlex.quote(name)}=COLUMN",
        ]
    yield ["Try", f"  {description['command']}"]


def _takes_files(description: Description) -> str:
    """Returns the model's only input, if the bytes of files may be its values; "": there is none."""
    columns = description["columns"]
    one_string = (
        len(columns) == 1 and columns[0]["dtype"] == "string" and all(size == 1 for size in columns[0]["shape"])
    )
    return str(columns[0]["name"]) if one_string else ""


def _table_schema(description: Description) -> list[str]:
    if description["bigquery_schema"] is None:
        return [f"  none: {description['bigquery_problem']}"]
    fields = [json.dumps(field) for field in description["bigquery_schema"]]
    return ("  [" + ",\n   ".join(fields) + "]").split("\n")


def _shorten(value: object) -> str:
    """Returns a JSON value as text with long lists cut, which is no longer JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {_shorten(entry)}" for key, entry in value.items()) + "}"
    if not isinstance(value, list):
        return json.dumps(value)
    if len(value) <= _SHOWN_ENTRIES:
        return "[" + ", ".join(map(_shorten, value)) + "]"
    return f"[{_shorten(value[0])}, ... {len(value) - 1} more]"


def _section(title: str, rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [title, *align(rows, indent="  ")] if rows else []
