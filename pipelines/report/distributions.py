"""The sections that show how the numbers of columns are distributed."""

import re
from collections.abc import Iterator

from sluice.pipelines.report.blocks import Blocks, blocks_of
from sluice.pipelines.report.charts import Axis, histogram
from sluice.pipelines.report.data import Cell, Column, Data, shown
from sluice.pipelines.report.page import Section
from sluice.transforms.core.observed import Columns
from sluice.transforms.core.sketch import Sketch

# So many columns have a chart; a table has the rest too. A chart takes some 20 ms.
MAX_CHARTS = 12
# Where the values of rows are private, quantiles are told of columns with values of so many rows.
_LEAST_FOR_QUANTILES = 200
_SHARES = (("p5", 0.05, "5 % below"), ("median", 0.5, "Median"), ("p95", 0.95, "95 % below"))


def distribution_sections(columns: Columns, group: str, private: bool) -> Iterator[Section]:
    """Yields a chart for each of the first columns, and a table of all of them.

    Args:
      private: nothing tells the value of a single row.
    """
    if not columns.sketches:
        return
    for name, sketch in _sorted(columns)[:MAX_CHARTS]:
        yield _chart_section(name, sketch, group, private)
    yield _table_section(columns, group, private)


def _sorted(columns: Columns) -> list[tuple[str, Sketch]]:
    """Returns the columns by name, x2 before x10."""

    def key(item: tuple[str, Sketch]) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", item[0])]

    return sorted(columns.sketches.items(), key=key)


def _chart_section(name: str, sketch: Sketch, group: str, private: bool) -> Section:
    if not private and not sketch.not_finite and sketch.values is not None and len(sketch.values) == 1:
        (value,) = sketch.values
        nulls = f"; {sketch.nulls:,} null" if sketch.nulls else ""
        return Section(name, f"Always {shown(value)}{nulls}.", group=group)
    blocks = blocks_of(sketch, private)
    columns = Column("from", "From"), Column("to", "To"), Column("values", "Values")
    data = Data(columns, blocks.blocks)
    text = _text(sketch, blocks, private)
    if not blocks.blocks:
        return Section(name, text, data if not private else None, group=group)
    chart = histogram(data, "from", "to", Axis("values", "Values"), Axis("", "", log=blocks.log))
    return Section(name, text, data, chart, alt=f"Histogram of column {name}. {text}", group=group)


def _text(sketch: Sketch, blocks: Blocks, private: bool) -> str:
    low, middle, high = (_quantile(sketch, share, private) for _, share, _ in _SHARES)
    parts = [] if middle is None else [f"Median {shown(middle)}; 90 % from {shown(low)} to {shown(high)}"]
    if blocks.log:
        parts.append("logarithmic scale")
    if blocks.left_out:
        parts.append(f"{100 * blocks.left_out / max(1, sketch.count):.2g} % not drawn{_left_out(blocks, private)}")
    if sketch.nulls:
        parts.append(f"{sketch.nulls:,} null")
    if sketch.not_finite:
        parts.append(f"{sketch.not_finite:,} not finite")
    return "; ".join(parts)[:1].upper() + "; ".join(parts)[1:] + "." if parts else ""


def _left_out(blocks: Blocks, private: bool) -> str:
    if private:
        return " (blocks of few rows)"
    return " (zero)" if blocks.log else " (far out)"


def _table_section(columns: Columns, group: str, private: bool) -> Section:
    head = (
        Column("column", "Column"),
        Column("values", "Values"),
        Column("nulls", "Nulls"),
        Column("not_finite", "Not finite"),
        *([] if private else [Column("mean", "Mean"), Column("min", "Least")]),
        *(Column(name, title) for name, _, title in _SHARES),
        *([] if private else [Column("max", "Most")]),
    )
    rows = tuple(_row(name, sketch, private) for name, sketch in _sorted(columns))
    looked = "All rows" if columns.sketched >= columns.rows else f"{columns.sketched:,} of {columns.rows:,} rows"
    lists = "; of long lists, some of them" if columns.shortened else ""
    text = f"{looked} were looked at{lists}. Quantiles are exact to 3 %."
    return Section(f"{group} in numbers", text, Data(head, rows), wide=True, group=group)


def _row(name: str, sketch: Sketch, private: bool) -> tuple[Cell, ...]:
    least, most = (sketch.least, sketch.most) if sketch.count else (None, None)
    quantiles = [_quantile(sketch, share, private) for _, share, _ in _SHARES]
    # Where all but one are zero, the mean tells that one.
    inner: list[Cell] = [*quantiles] if private else [sketch.mean, least, *quantiles, most]
    return (name, sketch.count, sketch.nulls, sketch.not_finite, *inner)


def _quantile(sketch: Sketch, share: float, private: bool) -> float | None:
    too_few = private and sketch.count < _LEAST_FOR_QUANTILES * sketch.width
    return None if too_few else sketch.quantile(share, whole=private)
