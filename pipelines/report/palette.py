"""The colours of a page and of its charts, for a light and a dark screen.

A chart is drawn in the light ones. The page's style sheet replaces them, so that one drawing serves both.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Colour:
    """A colour, as #rrggbb."""

    name: str
    light: str
    dark: str


INK = Colour("ink", "#1c2026", "#e8eaed")
MUTED = Colour("muted", "#5b6470", "#a2abb6")
LINE = Colour("line", "#dfe3e8", "#363c45")
PAPER = Colour("paper", "#fefefe", "#15181c")
SHADE = Colour("shade", "#f4f6f8", "#1e2228")

# Told apart by people who see few colours, and by their lightness in print.
SERIES = (
    Colour("s1", "#2463c4", "#7aaaf7"),
    Colour("s2", "#c4560c", "#f0995a"),
    Colour("s3", "#0d7f6a", "#4fc4ab"),
    Colour("s4", "#a8327e", "#e58cc4"),
    Colour("s5", "#6a52c9", "#ab9bf2"),
    Colour("s6", "#7a6a05", "#cdbb4e"),
    Colour("s7", "#5f6b76", "#9fb0bd"),
)
WARNING = SERIES[1]

ALL = (INK, MUTED, LINE, PAPER, SHADE, *SERIES)


def variables(dark: bool) -> str:
    """Returns the colours as variables of CSS."""
    return "".join(f"--{colour.name}:{colour.dark if dark else colour.light};" for colour in ALL)


def chart_rules() -> str:
    """Returns the rules of CSS that give a drawing the colours of the page."""
    return "".join(
        f'.chart [{what}="{colour.light}"]{{{what}:var(--{colour.name})}}'
        for colour in ALL
        for what in ("fill", "stroke")
    )
