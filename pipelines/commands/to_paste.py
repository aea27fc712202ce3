"""Commands that a person is told to try: they work as pasted, also in a shell that does not find `sluice` yet."""

import os
import shutil
import sys
from collections.abc import Callable


def activation(find: Callable[[str], str | None] = shutil.which, environment: str = sys.prefix) -> str:
    """Returns the command after which this shell finds `sluice`; "" if it does so already.

    Args:
      find: returns the path of a program that the shell finds.
      environment: the directory of this Python's.
    """
    script = os.path.join(environment, "bin", "activate")
    if find("sluice") or not os.path.exists(script):
        return ""
    near = os.path.relpath(script)
    return f". {script if near.startswith(os.pardir) else near}"


def to_paste(*commands: str, first: str | None = None) -> str:
    """Returns commands as lines to be pasted into a shell.

    Args:
      first: what the shell needs before them; None: see `activation`.
    """
    first = activation() if first is None else first
    return "\n".join(f"  {line}" for line in ((first, *commands) if first else commands))
