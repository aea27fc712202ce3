"""What a SavedModel test case is. The cases themselves are in saved_models_tf1, _columns, _shapes and _keras."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class ModelCase:
    """A small SavedModel as users export them, with rows for it and what it must answer, worked out without TensorFlow.

    Values in `rows` and in what `expected` returns are plain Python: numbers, bools, bytes, and (nested) lists of them
    for every dimension after the batch one. A `[None, 1]` tensor therefore has one-element lists.
    """

    name: str
    build: Callable[[str], None]
    """Writes the SavedModel into this directory, which must not exist yet."""
    signature: str
    rows: list[Row]
    """Keyed by the signature's input names; by feature names where `example_spec` is given."""
    expected: Callable[[list[Row]], Columns]
    """Rows to {output name: one value per row}. Outputs without a batch dimension are left out."""
    poison: Row | None = None
    """A well-typed row for which the model raises InvalidArgumentError, and fails the whole batch it is in."""
    example_spec: dict[str, str] | None = None
    """Feature name to 'int64', 'float' or 'bytes', where the one input takes serialized tf.Examples. A feature's value
    in `rows` is then the list of its values; an empty list is a feature that is absent."""


def save_function(directory: str, function: Any, **tracked: Any) -> None:
    """Saves a tf.function that has an input signature, as the only signature, `serving_default`.

    `tracked` are the variables, tables and assets it uses: what no attribute leads to is not saved.
    """
    import tensorflow as tf

    module = tf.Module()
    module.serve = function
    for name, value in tracked.items():
        setattr(module, name, value)
    tf.saved_model.save(module, directory, signatures={"serving_default": function})


def write_lines(path: str | os.PathLike[str], lines: list[bytes]) -> None:
    """A vocabulary file: one entry a line."""
    with open(path, "wb") as file:
        file.write(b"".join(line + b"\n" for line in lines))
