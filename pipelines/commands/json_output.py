"""JSON on standard output."""

import io
import sys


def write_json(text: str) -> None:
    """Writes JSON to standard output: in UTF-8 whatever the locale's encoding is, as programs expect it (RFC 8259)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    sys.stdout.write(text)
