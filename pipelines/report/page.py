"""A report as one page of HTML: no script, no request, every number to be saved as CSV and JSON."""

import base64
import csv
import dataclasses
import html
import io
import itertools
import json
import re
from collections.abc import Iterator

from sluice.pipelines.report.charts import Chart
from sluice.pipelines.report.data import Cell, Data, shown, to_csv, to_json
from sluice.pipelines.report.draw import draw
from sluice.pipelines.report.style import style

# The widths, in pixels, of drawings: of a third of the page, or of a phone, and of the whole page.
_NARROW, _BROAD = 350, 1000
# Texts of more letters are broken within a cell of a table.
_LONG_TEXT = 24
# A word with a hyphen that fits a phone.
_HYPHENED = re.compile(r"(?<!\S)((?=\S*-)\S{2,32})(?!\S)")
_NUMBER, _LONG = ' class="number"', ' class="long"'

# Nothing may be fetched, whatever stands in the page; links to save numbers hold them, and an icon would be asked for.
_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
"""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A key figure: what it is, its value, and a word on it."""

    label: str
    value: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Section:
    """One thing that a report shows.

    Attributes:
      title: says what is seen.
      text: a paragraph.
      chart: drawn from `data`.
      alt: tells the chart to whoever does not see it.
      wide: it takes the page's whole width.
      table: the numbers are shown as a table; otherwise they are folded. Without a chart they are always shown.
      group: sections of one group that follow each other stand under this heading.
    """

    title: str
    text: str = ""
    data: Data | None = None
    chart: Chart | None = None
    alt: str = ""
    wide: bool = False
    table: bool = False
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
      kind: what it is a report of.
      notes: stand at its end.
    """

    title: str
    kind: str = ""
    subtitle: str = ""
    figures: tuple[Figure, ...] = ()
    sections: tuple[Section, ...] = ()
    notes: tuple[str, ...] = ()


def render_page(page: Page) -> str:
    """Returns the page. Takes about a second, most of it the start of what draws the charts."""
    return "".join(_parts(page))


def _parts(page: Page) -> Iterator[str]:
    yield _HEAD.format(title=_text(page.title), style=style())
    yield f"<header>{_paragraph(page.kind, 'eyebrow')}<h1>{_text(page.title)}</h1>"
    yield f"{_paragraph(page.subtitle, 'subtitle')}{_figures(page.figures)}</header>\n"
    numbered = enumerate(page.sections)
    for group, members in itertools.groupby(numbered, key=lambda each: each[1].group):
        yield f'<h2>{_text(group)}</h2>\n<div class="sections">\n' if group else '<div class="sections">\n'
        for number, section in members:
            yield _section(section, f"c{number}")
        yield "</div>\n"
    name = _file_name(page.title)
    every = _link("JSON", f"{name}.json", _all_json(page)) + " · " + _link("CSV", f"{name}.csv", _all_csv(page))
    yield f'<footer><p class="get">All numbers of this page: {every}</p>'
    yield from (_paragraph(note) for note in page.notes)
    yield "</footer>\n</main>\n</body>\n</html>\n"


def _text(text: str) -> str:
    return html.escape(text)


def _paragraph(text: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{_text(text)}</p>" if text else ""


def _figures(figures: tuple[Figure, ...]) -> str:
    if not figures:
        return ""
    shown_figures = "".join(
        f'<div><dt>{_text(each.label)}</dt><dd class="value">{_text(each.value)}</dd>'
        + (f'<dd class="note">{_text(each.note)}</dd>' if each.note else "")
        + "</div>"
        for each in figures
    )
    return f'<dl class="figures">{shown_figures}</dl>'


def _section(section: Section, name: str) -> str:
    wide = ' class="wide"' if section.wide else ""
    parts = [f"<section{wide}><h3>{_text(section.title)}</h3>"]
    parts.append(_paragraph(section.text))
    if section.chart is not None:
        parts.append(f'<figure class="chart">{_drawings(section, section.chart, name)}</figure>')
    if section.data is not None:
        file = _file_name(section.title)
        links = _link("CSV", f"{file}.csv", to_csv(section.data)), _link("JSON", f"{file}.json", to_json(section.data))
        save = f'<p class="get">{links[0]} · {links[1]}</p>'
        table = _table(section.data)
        if section.chart is not None and not section.table:
            parts += [save, f"<details><summary>Numbers</summary>{table}</details>"]
        else:
            parts += [table, save]
    return "".join(parts) + "</section>\n"


def _drawings(section: Section, chart: Chart, name: str) -> str:
    """Returns the chart; of a wide one a second drawing, for phones, which the style sheet shows in its place."""
    alt = section.alt or section.title
    narrow = draw(chart, _NARROW, alt, f"{name}n")
    if not section.wide:
        return narrow
    return f'<div class="broad">{draw(chart, _BROAD, alt, name)}</div><div class="narrow">{narrow}</div>'


def _table(data: Data) -> str:
    numbers = [_is_numbers(data.column(name)) for name in data.names]
    head = "".join(
        f'<th scope="col"{_NUMBER if is_number else ""}>{_text(column.title)}</th>'
        for column, is_number in zip(data.columns, numbers, strict=True)
    )
    rows = "".join(f"<tr>{''.join(map(_cell, row, numbers))}</tr>" for row in data.rows)
    # A focus for the keyboard, which then scrolls a table that is wider than the page.
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cell(cell: Cell, is_number: bool) -> str:
    text = shown(cell)
    kind = _NUMBER if is_number else _LONG if len(text) > _LONG_TEXT else ""
    return f"<td{kind}>{_text(text) if is_number else _whole_words(text)}</td>"


def _whole_words(text: str) -> str:
    """Returns a text whose dates and flags no line ends within: browsers break lines at hyphens."""
    parts = enumerate(_HYPHENED.split(text))
    return "".join(f'<span class="w">{_text(part)}</span>' if place % 2 else _text(part) for place, part in parts)


def _is_numbers(cells: list[Cell]) -> bool:
    known = [cell for cell in cells if cell is not None]
    return bool(known) and all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in known)


def _link(label: str, file: str, content: str) -> str:
    """Returns a link that saves a file. The file is in the link."""
    kind = "application/json" if file.endswith(".json") else "text/csv;charset=utf-8"
    encoded = base64.b64encode(content.encode()).decode()
    return f'<a download="{html.escape(file)}" href="data:{kind};base64,{encoded}">{label}</a>'


def _file_name(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "report"


def _all_json(page: Page) -> str:
    sections = [
        {"group": each.group, "title": each.title, "rows": each.data.records()} for each in page.sections if each.data
    ]
    figures = [dataclasses.asdict(figure) for figure in page.figures]
    whole = {"kind": page.kind, "title": page.title, "subtitle": page.subtitle, "figures": figures}
    return json.dumps(whole | {"sections": sections}, ensure_ascii=False, indent=1)


def _all_csv(page: Page) -> str:
    """Returns one line for each cell of each section: sections have different columns."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("section", "row", "column", "value"))
    for figure in page.figures:
        writer.writerow(("Key figures", 1, figure.label, figure.value))
    for section in page.sections:
        for number, record in enumerate(section.data.records() if section.data else (), 1):
            writer.writerows((section.title, number, name, cell) for name, cell in record.items())
    return file.getvalue()
