"""How much a test sends or draws: little in a normal run, much in a soak (SOAK=1, which `make soak` sets).

`make test-fast` sets FAST=1, and draws a quarter of the hypothesis examples.
"""

import os

from hypothesis import settings

SOAK = os.environ.get("SOAK") == "1"
FAST = os.environ.get("FAST") == "1"
# With fewer, hypothesis hardly leaves the simplest examples.
_MIN_EXAMPLES = 8


def size(usual: int, soak: int) -> int:
    """Returns the number of rows or messages in this run. A test that calls this is marked `soak`."""
    return soak if SOAK else usual


def example_count(count: int) -> int:
    """Returns the number of hypothesis examples in this run: a quarter in a fast one, ten times as many in a soak."""
    return min(count, max(_MIN_EXAMPLES, count // 4)) if FAST else size(count, soak=10 * count)


def examples(count: int) -> settings:
    """Returns a decorator that sets the number of hypothesis examples."""
    return settings(max_examples=example_count(count))
