"""Reads the numbers of a report, as a reader of the page would save them."""

import base64
import json
import re
from pathlib import Path
from typing import Any


def all_numbers(path: Path) -> dict[str, Any]:
    """Returns what the last link of the page saves as JSON: all its numbers."""
    links = re.findall(r'href="data:application/json;base64,([^"]*)"', path.read_text())
    found: dict[str, Any] = json.loads(base64.b64decode(links[-1]))
    return found


def figures_of(numbers: dict[str, Any]) -> dict[str, str]:
    """Returns the key figures, by label."""
    return {each["label"]: each["value"] for each in numbers["figures"]}


def rows_of(numbers: dict[str, Any], title: str) -> list[dict[str, Any]]:
    """Returns the rows of the only section whose title begins so."""
    (rows,) = [each["rows"] for each in numbers["sections"] if each["title"].startswith(title)]
    return list(rows)
