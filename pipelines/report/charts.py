"""Charts, as specifications of Vega-Lite: https://vega.github.io/vega-lite/docs/.

A chart has its numbers in it, and no width: pipelines.report.draw draws it as wide as a page has room.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from sluice.pipelines.report.data import Cell, Data, shown
from sluice.pipelines.report.palette import INK, LINE, MUTED, PAPER, SERIES, Colour

Spec: TypeAlias = dict[str, object]

_HEIGHT = 180
_BAR_HEIGHT = 26
_FONT_SIZE = 11
# Large numbers as 5k and 2M, all else as it is: d3's own "s" makes milli of a fraction.
_LARGE, _LARGE_FORMAT, _FORMAT = 10_000, "~s", ",~r"
# Pixels beside the plot for the numbers of the upright axis, and for what of a number on the level axis juts out.
_LEFT, _RIGHT = 40, 16
# About how wide a letter of a category is.
_LETTER = 6.3
_LABEL = "report_label"
_DASH = [4, 3]


@dataclasses.dataclass(frozen=True)
class Axis:
    """What an axis shows.

    Attributes:
      name: of the column; "" where the function names it otherwise.
      title: with the unit.
      log: a logarithmic scale, whose values must be above 0.
    """

    name: str
    title: str
    log: bool = False


@dataclasses.dataclass(frozen=True)
class Rule:
    """A dashed line across the chart, at x or at y, with a word."""

    label: str
    x: float | None = None
    y: float | None = None


@dataclasses.dataclass(frozen=True)
class Chart:
    """A specification without its width.

    Attributes:
      title: stands above it.
      left: pixels for the texts of the upright axis, if the chart is wide enough.
    """

    spec: Mapping[str, object]
    title: Mapping[str, object]
    left: int = _LEFT


def lines(
    data: Data,
    x: Axis,
    y: Axis,
    series: str = "",
    low: str = "",
    high: str = "",
    rules: Sequence[Rule] = (),
    points: bool = True,
    area: bool = False,
) -> Chart:
    """Returns a line for each series. Cells without a number leave a gap.

    Args:
      series: the column whose values are the series; "": there is one.
      low, high: the columns of a band about the line; "": none.
      points: a mark for each row.
      area: the line's lower side is filled.
    """
    at_x = _scaled(x, grid=False, zero=False, cells=data.column(x.name))
    at_y = _upright(y, [cell for name in filter(None, (y.name, low, high)) for cell in data.column(name)])
    common = {"x": at_x} | _by_series(data, series)
    layers: list[Spec] = []
    if low and high:
        band = {"y": at_y | {"field": low}}
        encoding = common | band | {"y2": {"field": high}}
        layers.append({"mark": _mark("area", opacity=0.18, series=series), "encoding": encoding})
    layers.append({"mark": _line(area, series), "encoding": common | {"y": at_y}})
    if points:
        shape = {"shape": _nominal(data, series)} if series else {}
        mark = {"type": "point", "filled": True, "size": 38, "opacity": 1} | ({} if series else _colour(SERIES[0]))
        layers.append({"mark": mark, "encoding": common | {"y": at_y} | shape})
    places = {rule: place for place, rule in enumerate(rule for rule in rules if rule.x is not None)}
    layers += [layer for rule in rules for layer in _rule_layers(rule, places.get(rule, 0))]
    return _chart(data, y.title, {"height": _HEIGHT, "layer": layers})


def bars(data: Data, category: Axis, value: Axis, series: str = "") -> Chart:
    """Returns horizontal bars in the order of the rows, stacked by series; without series, each with its number."""
    categories = {str(cell) for cell in data.column(category.name)}
    height, left = _BAR_HEIGHT * max(1, len(categories)), 14 + int(_LETTER * max(map(len, categories), default=0))
    axis = {"title": None, "ticks": False, "domain": False, "grid": False, "labelColor": INK.light, "labelPadding": 8}
    at_y: Spec = {"field": category.name, "type": "nominal", "sort": None, "axis": axis, "title": category.title}
    if series:
        at_x = _scaled(value, grid=True, zero=True, cells=data.column(value.name))
        order: Spec = {"order": {"field": _LABEL, "type": "quantitative"}}
        encoding = {"x": at_x, "y": at_y} | order | _by_series(data, series)
        mark: Spec = {"type": "bar", "height": {"band": 0.7}, "stroke": PAPER.light, "strokeWidth": 1}
        spec: Spec = {"height": height + 30, "mark": mark, "encoding": encoding}
        places = [_values(data, series).index(cell) for cell in data.column(series)]
        return _chart(data, value.title, spec, {_LABEL: places}, left)
    most = max((cell for cell in data.column(value.name) if isinstance(cell, int | float)), default=0) or 1
    numbered: Spec = {"field": value.name, "type": "quantitative", "axis": None, "title": value.title}
    at_x = numbered | {"scale": {"domain": [0, 1.2 * most], "nice": False}}
    bar = {"mark": {"type": "bar", "height": {"band": 0.62}} | _colour(SERIES[0]), "encoding": {"x": at_x, "y": at_y}}
    text: Spec = {"type": "text", "align": "left", "dx": 5, "fontSize": _FONT_SIZE, "aria": False} | _colour(INK)
    label = {"mark": text, "encoding": {"x": at_x, "y": at_y, "text": {"field": _LABEL, "type": "nominal"}}}
    shown_values = [shown(cell) for cell in data.column(value.name)]
    return _chart(data, value.title, {"height": height, "layer": [bar, label]}, {_LABEL: shown_values}, left)


def histogram(data: Data, start: str, end: str, count: Axis, x: Axis) -> Chart:
    """Returns a block for each row, from `start` to `end`, as high as its count."""
    at_x = _scaled(dataclasses.replace(x, name=start), False, False, [*data.column(start), *data.column(end)])
    at_y = _upright(count, data.column(count.name))
    mark: Spec = {"type": "rect", "stroke": PAPER.light, "strokeWidth": 0.5} | _colour(SERIES[0])
    encoding = {"x": at_x, "x2": {"field": end}, "y": at_y, "y2": {"datum": 0}}
    return _chart(data, count.title, {"height": _HEIGHT - 40, "mark": mark, "encoding": encoding})


def _chart(
    data: Data, title: str, spec: Spec, more: Mapping[str, Sequence[object]] | None = None, left: int = _LEFT
) -> Chart:
    """Returns a chart of the records, with further fields. What is on its upright axis stands above it, level."""
    records: list[Spec] = [dict(record) for record in data.records()]
    for name, values in (more or {}).items():
        for record, value in zip(records, values, strict=True):
            record[name] = value
    above: Spec = {"text": title, "anchor": "start", "frame": "group", "offset": 10, "fontSize": _FONT_SIZE}
    above |= {"fontWeight": "normal", "color": MUTED.light}
    return Chart({"data": {"values": records}} | spec, above, left)


def _scaled(axis: Axis, grid: bool, zero: bool, cells: Sequence[Cell] = ()) -> Spec:
    """Returns the encoding of a number; `cells` are all that a logarithmic axis shows."""
    scale: Spec = {"type": "log"} if axis.log else {"zero": zero}
    if not zero and not axis.log:
        scale |= {"nice": False}
    return {
        "field": axis.name,
        "type": "quantitative",
        "title": axis.title,
        "scale": scale,
        "axis": _axis(axis.title, grid, cells) | ({"values": _decades(cells)} if axis.log else {}),
    }


def _upright(axis: Axis, cells: Sequence[Cell] = ()) -> Spec:
    """Returns the encoding of a number on the upright axis, whose title stands above the chart."""
    encoding = _scaled(dataclasses.replace(axis, title=""), grid=True, zero=not axis.log, cells=cells)
    return encoding | {"title": axis.title}


def _decades(cells: Sequence[Cell]) -> list[float]:
    """Returns the ticks of a logarithmic axis: powers of 10, and between a few of them 2 and 5 too."""
    numbers = [cell for cell in cells if isinstance(cell, int | float) and 0 < cell < math.inf]
    if not numbers:
        return []
    first, last = math.floor(math.log10(min(numbers))), math.ceil(math.log10(max(numbers)))
    step = max(1, (last - first) // 6)
    parts = (1, 2, 5) if last - first <= 2 else (1,)
    return [part * 10.0**power for power in range(first, last + 1, step) for part in parts]


def _axis(title: str, grid: bool, cells: Sequence[Cell]) -> Spec:
    most = max((abs(cell) for cell in cells if isinstance(cell, int | float)), default=0)
    form = _LARGE_FORMAT if most >= _LARGE else _FORMAT
    axis: Spec = {"title": title or None, "grid": grid, "format": form, "labelOverlap": "greedy", "tickCount": 5}
    return axis | ({"domain": False, "ticks": False} if grid else {})


def _line(area: bool, series: str) -> Spec:
    if area:
        line: Spec = {"strokeWidth": 1.5} | ({} if series else _colour(SERIES[0]))
        return _mark("area", opacity=0.85, series=series) | {"line": line, "fillOpacity": 0.15}
    return _mark("line", opacity=1, series=series) | {"strokeWidth": 2}


def _mark(kind: str, opacity: float, series: str) -> Spec:
    """Returns a mark of several rows, which points name one by one."""
    mark: Spec = {"type": kind, "opacity": opacity, "aria": False}
    return mark | ({} if series else _colour(SERIES[0]))


def _colour(colour: Colour) -> Spec:
    return {"color": colour.light}


def _by_series(data: Data, series: str) -> Spec:
    if not series:
        return {}
    colours = [SERIES[place % len(SERIES)].light for place, _ in enumerate(_values(data, series))]
    nominal = _nominal(data, series)
    scale = {"domain": _values(data, series), "range": colours}
    return {"color": nominal | {"scale": scale}}


def _nominal(data: Data, series: str) -> Spec:
    scale = {"domain": _values(data, series)}
    return {"field": series, "type": "nominal", "sort": None, "title": None, "scale": scale}


def _values(data: Data, name: str) -> list[object]:
    return list(dict.fromkeys(data.column(name)))


def _rule_layers(rule: Rule, place: int) -> list[Spec]:
    """Returns the line, and its word at the upper or the right end of it.

    Args:
      place: of an upright line among these. Each word stands a line below the one before, as lines may be near.
    """
    values = {"values": [{"at": rule.y if rule.x is None else rule.x, _LABEL: rule.label}]}
    line: Spec = {"type": "rule", "strokeDash": _DASH, "strokeWidth": 1, "aria": False} | _colour(MUTED)
    text: Spec = {"type": "text", "fontSize": _FONT_SIZE, "aria": False} | _colour(MUTED)
    at: Spec = {"field": "at", "type": "quantitative"}
    if rule.x is None:
        text |= {"align": "right", "baseline": "bottom", "dy": -3}
        line_at: Spec = {"y": at}
        text_at: Spec = {"y": at, "x": {"value": "width"}}
    else:
        text |= {"align": "left", "baseline": "top", "dx": 4, "dy": place * (_FONT_SIZE + 2)}
        line_at = {"x": at}
        text_at = {"x": at, "y": {"value": 0}}
    text_at |= {"text": {"field": _LABEL, "type": "nominal"}}
    return [{"data": values, "mark": line, "encoding": line_at}, {"data": values, "mark": text, "encoding": text_at}]


def sized(chart: Chart, width: int) -> Spec:
    """Returns the whole specification of a chart that is so many pixels wide, with its axes.

    The room for the texts of the upright axis is given: to fit a chart into its width, Vega draws it several times.
    """
    left = min(chart.left, int(0.45 * width))
    axis = {
        "labelColor": MUTED.light,
        "titleColor": MUTED.light,
        "gridColor": LINE.light,
        "domainColor": MUTED.light,
        "tickColor": MUTED.light,
        "labelFontSize": _FONT_SIZE,
        "titleFontSize": _FONT_SIZE,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelPadding": 5,
        "tickSize": 4,
    }
    legend = {
        "orient": "top",
        "title": None,
        "labelFontSize": 12,
        "labelColor": INK.light,
        "symbolStrokeWidth": 2,
        "symbolOpacity": 1,
    }
    legend |= {"labelLimit": int(0.8 * width), "columns": 2 if width < 500 else 4, "offset": 8, "columnPadding": 16}
    upright = {"minExtent": left, "maxExtent": left, "labelLimit": left - 4}
    config = {"font": "sans-serif", "axis": axis, "axisY": upright, "legend": legend, "view": {"stroke": None}}
    title = dict(chart.title) | {"dx": -left}
    padding = {"left": 0, "right": _RIGHT, "top": 2, "bottom": 2}
    whole: Spec = {"width": width - left - _RIGHT, "title": title, "padding": padding, "background": "transparent"}
    return whole | {"config": config, **chart.spec}
