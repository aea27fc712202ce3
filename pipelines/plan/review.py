"""What a job would do with each column, for `sluice batch --check`."""

import dataclasses
from typing import Any

import pyarrow as pa

from sluice.models.signature import ColumnSpec, Signature
from sluice.pipelines.plan.input_columns import InputPlan
from sluice.transforms.files.find_source import Source

Line = tuple[str, str, str]


@dataclasses.dataclass(frozen=True)
class Review:
    """The columns of a job: (name, type, where it comes from).

    Attributes:
      inputs: of the model.
      outputs: what is written, in order.
    """

    inputs: tuple[Line, ...]
    outputs: tuple[Line, ...]


def review(
    source: Source,
    plan: InputPlan,
    signature: Signature,
    defaults: dict[str, Any],
    written: pa.Schema,
    as_it_is: tuple[str, ...],
) -> Review:
    """Returns what becomes of the columns.

    Args:
      written: the columns of the output; of rows that are written as they are, those that are added.
      as_it_is: the columns of these rows.
    """
    inputs = tuple((spec.name, str(spec), _whence(spec, plan, defaults)) for spec in signature.columns)
    if plan.spec.examples:
        inputs = ((plan.spec.examples, "string", "each record as it is"),)
    carried = {name for name, _ in plan.columns}
    raw = tuple((name, str(source.types.get(name, "")), "as it is in the row") for name in as_it_is)
    columns = ((each.name, str(each.type), "carried" if each.name in carried else "added") for each in written)
    return Review(inputs, (*raw, *columns))


def _whence(spec: ColumnSpec, plan: InputPlan, defaults: dict[str, Any]) -> str:
    """Returns where the values of an input of the model come from."""
    read = plan.spec
    if paths := dict(plan.reads).get(spec.name):
        return f"what is in the file that column '{paths}' names"
    column = read.source_of(spec.name)
    kind = dict(read.fed).get(spec.name) or dict(read.columns).get(column)
    if kind is None:
        return f"{defaults[spec.name]!r} in each row" if spec.name in defaults else "nowhere: the model does without it"
    filled = f", nulls are {defaults[spec.name]!r}" if spec.name in defaults else ""
    return f"column '{column}', read as {kind}{filled}"
