"""The price table: what a vCPU, a GB and a node cost, each with its date and its source."""

import dataclasses
import json
import math
import os
from datetime import date
from pathlib import Path
from typing import Any

from sluice.models.errors import UsageError

DEFAULTS = os.path.join(os.path.dirname(__file__), "prices.json")
HOURS_A_MONTH = 730
_KEYS = ("value", "date", "source")


@dataclasses.dataclass(frozen=True)
class Prices:
    """Prices in one currency. Hours are of one vCPU, one GB of memory, or one node.

    Attributes:
      batch_*, stream_*: of a worker; server_*: of the machine that serves the model.
      vertex_node_*: of an endpoint's or a batch prediction job's node on Vertex AI.
      sources: by name: the value as text, its date, and where it is from.
    """

    batch_vcpu_hour: float
    batch_gb_hour: float
    stream_vcpu_hour: float
    stream_gb_hour: float
    server_vcpu_hour: float
    server_gb_hour: float
    vertex_node_hour: float
    vertex_node_vcpus: float
    vertex_job_start_minutes: float
    currency: str = "USD"
    region: str = ""
    sources: tuple[tuple[str, str, str, str], ...] = ()

    @property
    def oldest(self) -> str:
        """The oldest date of a price."""
        return min((day for _, _, day, _ in self.sources), default="")


_NAMES = tuple(field.name for field in dataclasses.fields(Prices) if field.default is dataclasses.MISSING)
# Those of them that are no amounts of money.
_NO_MONEY = ("vertex_node_vcpus", "vertex_job_start_minutes")


def read_prices(path: str = "") -> Prices:
    """Returns the prices of a file; those that it lacks are the defaults, if it is in their currency.

    Args:
      path: JSON in the form of prices.json; "": the defaults.

    Raises:
      UsageError: the file cannot be read, or is not of that form.
    """
    table = _read(DEFAULTS)
    if path:
        own = _read(path)
        _check_currency(path, own, table["currency"])
        table |= own | {"prices": table["prices"] | own["prices"]}
    values = {name: table["prices"][name]["value"] for name in _NAMES}
    sources = tuple((name, f"{values[name]:g}", *_text(table["prices"][name])) for name in _NAMES)
    return Prices(**values, currency=table["currency"], region=table["region"], sources=sources)


def _text(price: dict[str, str]) -> tuple[str, str]:
    return price["date"], price["source"]


def _read(path: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--prices {path} cannot be read: {error}") from error
    prices = found.get("prices") if isinstance(found, dict) else None
    if not isinstance(prices, dict):
        raise UsageError(f'--prices {path}: it is {{"currency": ..., "region": ..., "prices": {{NAME: ...}}}}')
    for name, price in prices.items():
        if problem := _problem(name, price):
            raise UsageError(f"--prices {path}: {name!r} {problem}")
    return found


def _check_currency(path: str, own: dict[str, Any], currency: str) -> None:
    """Checks that no amounts of two currencies will be summed."""
    missing = [name for name in _NAMES if name not in own["prices"] and name not in _NO_MONEY]
    if own.get("currency", currency) != currency and missing:
        raise UsageError(
            f"--prices {path}: it is in {own['currency']}, so it has to name all prices; it lacks {', '.join(missing)}"
        )


def _problem(name: str, price: object) -> str:
    """Returns what is wrong with an entry; "": nothing."""
    if name not in _NAMES:
        return f"is none of {', '.join(_NAMES)}"
    if not isinstance(price, dict) or set(price) != set(_KEYS):
        return f"has to have {', '.join(_KEYS)}"
    value = price["value"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        return f"is {value!r}; a price is a number above 0"
    try:
        date.fromisoformat(price["date"])
    except (TypeError, ValueError):
        return f"has the date {price['date']!r}; it is YYYY-MM-DD"
    return "" if isinstance(price["source"], str) and price["source"] else "has no source"
