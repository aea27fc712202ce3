"""Drawings within a page: each mark has a hint, names are of one drawing only, and no text becomes markup."""

import importlib.util

import pytest

from sluice.models.errors import UsageError
from sluice.pipelines.report.draw import check_drawable, for_page

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" class="marks" width="40" height="20" viewBox="0 0 40 20">'
    '<defs><clipPath id="clip0"><rect x="0"/></clipPath></defs>'
    '<path aria-label="Rows: 3; reason: a <b> &amp; &quot;c&quot;" role="graphics-symbol" d="M0,0h1"/>'
    '<g clip-path="url(#clip0)"><text>id="x"</text></g></svg>'
)


def test_a_drawing_is_as_wide_as_there_is_room_and_tells_what_it_shows() -> None:
    drawn = for_page(SVG, 'A "chart" <of> rows', "c1")
    root = drawn.partition(">")[0]
    assert 'viewBox="0 0 40 20"' in root and "width" not in root
    assert 'aria-label="A &quot;chart&quot; &lt;of&gt; rows"' in root


def test_names_are_of_one_drawing_only() -> None:
    drawn = for_page(SVG, "", "c1")
    assert '<clipPath id="c1-clip0">' in drawn and "url(#c1-clip0)" in drawn
    assert '<text>id="x"</text>' in drawn


def test_a_mark_has_a_hint_which_is_text() -> None:
    drawn = for_page(SVG, "", "c1")
    assert 'd="M0,0h1"><title>Rows: 3; reason: a &lt;b&gt; &amp; &quot;c&quot;</title></path>' in drawn


def test_what_is_no_drawing_is_refused() -> None:
    with pytest.raises(ValueError, match="no drawing"):
        for_page("<p>", "", "c1")


def test_what_is_missing_is_named_at_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    check_drawable("--report_file")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"--report_file draws charts.*pip install 'sluice\[report\]'"):
        check_drawable("--report_file")
