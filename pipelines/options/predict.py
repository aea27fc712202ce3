"""The flags of `sluice predict`."""

import dataclasses

from sluice.pipelines.options.flags import flag, parse_pairs
from sluice.pipelines.options.model import ModelFlags


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions(ModelFlags):
    """A few rows, and the model that scores them."""

    json: str | None = flag(
        "The rows: a JSON object, or an array of them; default: standard input, with one object a line, or an array",
        None,
        group="Input",
        metavar="ROWS",
    )
    column_defaults: tuple[tuple[str, str], ...] = flag(
        "Values for nulls in columns of the model; may be repeated", (), parse_pairs, group="Input", metavar="A=0,B=x",
        repeated=True,
    )  # fmt: skip
    output_prefix: str = flag("Prefix for the names of the model's outputs", "", group="Output", metavar="TEXT")
