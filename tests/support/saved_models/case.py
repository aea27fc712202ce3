"""The type of a SavedModel test case. The cases themselves are in tf1, columns, shapes and keras beside this file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class ModelCase:
    """A small SavedModel like those that users export, with input rows and its answers, computed without TensorFlow.

    Values in `rows` and in the result of `expected` are plain Python: numbers, bools, bytes, and (nested) lists of them
    for each dimension after the batch dimension. A `[None, 1]` tensor therefore has one-element lists.
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
    """Saves a tf.function with an input signature, as the only signature, `serving_default`.

    `tracked` are the variables, tables and assets that it uses: TensorFlow saves only what an attribute leads to.
    """
    import tensorflow as tf

    module = tf.Module()
    module.serve = function
    for name, value in tracked.items():
        setattr(module, name, value)
    tf.saved_model.save(module, directory, signatures={"serving_default": function})


def write_lines(path: str | os.PathLike[str], lines: list[bytes]) -> None:
    """Writes a vocabulary file: one entry per line."""
    with open(path, "wb") as file:
        file.write(b"".join(line + b"\n" for line in lines))
