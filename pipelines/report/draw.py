"""Draws charts as SVG: by Vega-Lite itself, in the JavaScript engine that vl-convert-python brings.

The page then needs no script, and each bar and point is an element with a text of its own.
"""

import html
import importlib.util
import re

from sluice.models.errors import UsageError
from sluice.pipelines.report.charts import Chart, sized

_LIBRARY = "vl_convert"

_ROOT = re.compile(r"<svg\b[^>]*?\bviewBox=\"(?P<box>[^\"]*)\"[^>]*>")
_ID = re.compile(r"(<(?:clipPath|linearGradient|radialGradient)\b[^>]*? id=\")")
_REFERENCE = re.compile(r"url\(#(?P<id>[^)]+)\)")
# Zero as d3 writes it on an axis of thousands.
_ZERO = re.compile(r">0[kMGT]<")
# A mark with a text, and no children.
_TOLD = re.compile(r"<(?P<tag>path|line|rect)[^>]*? aria-label=\"(?P<text>[^\"]*)\"[^>]*?/>")


def check_drawable(flag: str) -> None:
    """Checks that charts can be drawn here.

    Raises:
      UsageError: what draws them is not installed. The text names the flag.
    """
    if importlib.util.find_spec(_LIBRARY) is None:
        raise UsageError(
            f"{flag} draws charts, which needs vl-convert-python: pip install 'sluice[report]', or leave the flag out"
        )


def draw(chart: Chart, width: int, alt: str, name: str) -> str:
    """Returns a chart as an element of HTML.

    Args:
      width: pixels, at which its texts have the size of a page's small print.
      alt: tells what the chart shows to whoever does not see it.
      name: of this drawing, unlike that of any other on the page.
    """
    import vl_convert  # 90 MB, for the few who ask for a report

    # In two steps: `vegalite_to_svg` takes half as long again.
    compiled = vl_convert.vegalite_to_vega(sized(chart, width))
    return for_page(vl_convert.vega_to_svg(compiled), alt, name)


def for_page(svg: str, alt: str, name: str) -> str:
    """Returns a drawing for use within a page: as wide as there is room, and with a hint for the mouse on each mark."""
    found = _ROOT.search(svg)
    if found is None:
        raise ValueError(f"no drawing: {svg[:100]}")
    label = html.escape(alt)
    kind = 'role="graphics-document" aria-roledescription="chart"'
    root = f'<svg viewBox="{found["box"]}" {kind} aria-label="{label}">'
    inner = svg[found.end() :]
    inner = _ID.sub(rf"\g<1>{name}-", inner)
    inner = _REFERENCE.sub(lambda each: f"url(#{name}-{each['id']})", inner)
    return root + _TOLD.sub(_with_hint, _ZERO.sub(">0<", inner))


def _with_hint(mark: re.Match[str]) -> str:
    hint = mark["text"].replace("<", "&lt;").replace(">", "&gt;")  # Vega escapes it as an attribute only
    return f"{mark[0].removesuffix('/>')}><title>{hint}</title></{mark['tag']}>"
