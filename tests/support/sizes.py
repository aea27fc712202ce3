"""How much a test sends: a little at every run, and as much as a soak does with SOAK=1, which `make soak` sets."""

import os

SOAK = os.environ.get("SOAK") == "1"


def size(usual: int, soak: int) -> int:
    """Returns the number of rows or messages of this run. A test that asks is marked `soak`."""
    return soak if SOAK else usual
