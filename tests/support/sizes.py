"""How much a test sends or draws: little in a normal run, much in a soak (SOAK=1, which `make soak` sets)."""

import os

from hypothesis import settings

SOAK = os.environ.get("SOAK") == "1"


def size(usual: int, soak: int) -> int:
    """Returns the number of rows or messages in this run. A test that calls this is marked `soak`."""
    return soak if SOAK else usual


def examples(count: int) -> settings:
    """Returns a decorator that sets the number of hypothesis examples; ten times as many in a soak."""
    return settings(max_examples=size(count, soak=10 * count))
