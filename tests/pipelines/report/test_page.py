"""A page as it is written: every number can be saved, nothing is fetched, no text becomes markup."""

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser
from typing import cast

import pytest

from sluice.pipelines.report.charts import Axis, Rule, bars, histogram, lines
from sluice.pipelines.report.data import Column, Data
from sluice.pipelines.report.machine import machine_section
from sluice.pipelines.report.page import Figure, Page, Section, render_page
from sluice.pipelines.report.palette import SERIES

HOSTILE = "</title><script>alert(1)</script> & \"'"
RATES = Data(
    (
        Column("rate", "Rate"),
        Column("p99_ms", "p99"),
        Column("low", "Low"),
        Column("high", "High"),
        Column("way", "Way"),
    ),
    tuple(
        (rate, float(rate) / share, rate / 9, rate / 2.0, way)
        for way, share in (("a", 3), (HOSTILE, 5))
        for rate in (10, 100, 900)
    ),
)
STAGES = Data(
    (Column("way", "Way"), Column("stage", "Stage"), Column("us", "us")),
    tuple((way, stage, us) for way in ("worker", HOSTILE) for stage, us in (("read", 1.5), ("call", 2.0))),
)
COUNTS = Data((Column("from", "From"), Column("to", "To"), Column("rows", "Rows")), ((1.0, 2.0, 5), (2.0, 4.0, 7)))


def page() -> Page:
    latency, way = Axis("p99_ms", "p99 latency (ms)", log=True), Axis("way", "Way")
    rules = Rule("knee", x=500.0), Rule("target", y=50.0)
    by_rate = lines(RATES, Axis("rate", "Messages per second", log=True), latency, "way", "low", "high", rules)
    by_stage = bars(STAGES, way, Axis("us", "Microseconds a row"), "stage")
    by_way = bars(STAGES, way, Axis("us", "Microseconds a row"))
    blocks = histogram(COUNTS, "from", "to", Axis("rows", "Rows"), Axis("", "Value", log=True))
    return Page(
        f"All {HOSTILE}",
        "kind",
        "subtitle",
        (Figure("Rows", "12", HOSTILE),),
        (
            Section("Latency by rate", HOSTILE, RATES, by_rate, alt=f"Lines {HOSTILE}", wide=True, group="Streams"),
            Section("Cost by stage", "", STAGES, by_stage, table=True, group="Cost"),
            Section("Cost", "", STAGES, by_way, group="Cost"),
            Section("Values", "", COUNTS, blocks, group=HOSTILE),
            Section("A table", "", STAGES, group=HOSTILE),
            machine_section(),
        ),
        (HOSTILE,),
    )


class Elements(HTMLParser):
    """The elements of a page with their attributes, and what is not closed."""

    _VOID = ("meta", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def files(self) -> dict[str, str]:
        """What the links save, by the names of files."""
        links = {attributes["download"]: attributes["href"] for tag, attributes in self.found if tag == "a"}
        return {name: base64.b64decode(href.partition("base64,")[2]).decode() for name, href in links.items()}


@pytest.fixture(scope="module")
def html() -> str:
    return render_page(page())


@pytest.fixture(scope="module")
def elements(html: str) -> Elements:
    return Elements(html)


def test_it_has_no_script_and_asks_for_nothing(html: str, elements: Elements) -> None:
    assert elements.open == []
    assert {tag for tag, _ in elements.found} & {"script", "img", "iframe", "object", "embed", "base", "form"} == set()
    for tag, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "xlink:href", "srcset")], (
            tag
        )
        assert attributes.get("href", "data:").startswith("data:")
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    assert len(html) < 400_000


def test_every_number_can_be_saved(elements: Elements) -> None:
    files = elements.files()
    assert json.loads(files["latency-by-rate.json"]) == RATES.records()
    assert len(list(csv.DictReader(io.StringIO(files["cost-by-stage.csv"])))) == len(STAGES.rows)
    whole = json.loads(next(text for name, text in files.items() if name.startswith("all-") and name.endswith(".json")))
    assert [each["rows"] for each in whole["sections"]][:4] == [
        RATES.records(),
        STAGES.records(),
        STAGES.records(),
        COUNTS.records(),
    ]
    assert whole["figures"] == [{"label": "Rows", "value": "12", "note": HOSTILE}]
    cells = list(
        csv.DictReader(
            io.StringIO(next(text for name, text in files.items() if name.startswith("all-") and name.endswith(".csv")))
        )
    )
    assert {"section": "Values", "row": "2", "column": "to", "value": "4.0"} in cells


def test_each_chart_has_its_marks_and_an_alternative_text(html: str, elements: Elements) -> None:
    drawings = [attributes for tag, attributes in elements.found if tag == "svg"]
    assert len(drawings) == 5, "a wide chart is drawn twice"
    assert all(attributes["aria-label"] for attributes in drawings)
    figures = re.findall(r'<figure class="chart">(.*?)</figure>', html, re.DOTALL)
    labels = [
        re.findall(r'aria-label="([^"]*)"[^>]*aria-roledescription="(?:point|bar|rect)', each) for each in figures
    ]
    assert [len(found) for found in labels] == [12, 4, 4, 2]
    assert any("p99 latency (ms): 300" in each for each in labels[0])


def test_the_colours_of_charts_are_those_of_the_screen(html: str) -> None:
    used = set(re.findall(r'(?:fill|stroke)="(#[0-9a-fA-F]{3,6})"', html))
    replaced = set(re.findall(r'\.chart \[(?:fill|stroke)="(#[0-9a-f]{6})"\]', html))
    assert used and used <= replaced


def test_groups_have_a_heading_each(html: str) -> None:
    assert html.count("<h2>") == 3 and html.count('class="sections"') == 4


def test_a_page_may_be_empty() -> None:
    assert Elements(render_page(Page("Nothing"))).open == []


def test_no_line_ends_within_a_date_or_a_flag() -> None:
    columns = Column("a", "A"), Column("n", "N")
    cells = (("as of 2026-11-30, by --max_batch_size=64 a-<b", 1), ("x" * 40 + "-y", 2))
    html = render_page(Page("P", sections=(Section("S", data=Data(columns, cells)),)))
    assert '<span class="w">2026-11-30,</span> by <span class="w">--max_batch_size=64</span>' in html
    assert '<span class="w">a-&lt;b</span>' in html and f"{'x' * 40}-y</td>" in html


def test_many_series_have_a_colour_each() -> None:
    """A comparison has seven: the stages of a row, what else its job takes, and the server."""
    assert len({colour.light for colour in SERIES}) == len({colour.dark for colour in SERIES}) == 7


def test_words_of_upright_rules_do_not_lie_on_each_other() -> None:
    chart = lines(RATES, Axis("rate", "Rate"), Axis("p99_ms", "p99"), rules=(Rule("one", x=1.0), Rule("two", x=1.1)))
    layers = cast(list[dict[str, dict[str, object]]], chart.spec["layer"])
    assert len({layer["mark"]["dy"] for layer in layers if layer["mark"]["type"] == "text"}) == 2
