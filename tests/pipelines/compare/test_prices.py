"""The price table: defaults with dates and sources, and those of users."""

import dataclasses
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from sluice.models.errors import UsageError
from sluice.pipelines.compare.prices import DEFAULTS, read_prices


def test_every_default_has_a_date_and_a_source() -> None:
    found = read_prices()
    assert len(found.sources) == 9 and found.currency == "USD" and found.region
    for name, value, day, source in found.sources:
        assert float(value) == pytest.approx(getattr(found, name))
        assert date.fromisoformat(day) >= date(2026, 1, 1)
        assert source.startswith("https://") or "assumption" in source
    assert found.oldest == min(day for _, _, day, _ in found.sources)
    names = {field.name for field in dataclasses.fields(found)} - {"currency", "region", "sources"}
    assert set(json.loads(Path(DEFAULTS).read_text())["prices"]) == names


def written(tmp_path: Path, value: Any) -> str:
    path = tmp_path / "prices.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def price(value: object = 0.1, day: str = "2030-01-02", source: str = "our contract") -> dict[str, object]:
    return {"value": value, "date": day, "source": source}


def test_a_users_prices_replace_those_that_they_name(tmp_path: Path) -> None:
    path = written(tmp_path, {"region": "r", "prices": {"batch_vcpu_hour": price(0.02)}})
    found, defaults = read_prices(path), read_prices()
    assert found.batch_vcpu_hour == 0.02 and found.currency == defaults.currency and found.region == "r"
    assert found.batch_gb_hour == defaults.batch_gb_hour
    assert ("batch_vcpu_hour", "0.02", "2030-01-02", "our contract") in found.sources


def test_amounts_of_two_currencies_are_not_summed(tmp_path: Path) -> None:
    names = [name for name, *_ in read_prices().sources if name.endswith("_hour")]
    every = {"currency": "EUR", "prices": {name: price() for name in names}}
    assert read_prices(written(tmp_path, every)).currency == "EUR"
    every["prices"] = {name: price() for name in names[1:]}
    with pytest.raises(UsageError, match=f"it is in EUR, so it has to name all prices; it lacks {names[0]}$"):
        read_prices(written(tmp_path, every))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{", "cannot be read"),
        ([], "prices"),
        ({"prices": {"vcpu": price()}}, "'vcpu' is none of batch_vcpu_hour"),
        ({"prices": {"batch_gb_hour": 0.1}}, "has to have value, date, source"),
        ({"prices": {"batch_gb_hour": price(-1)}}, "a price is a number above 0"),
        ({"prices": {"batch_gb_hour": price("1")}}, "a price is a number above 0"),
        ({"prices": {"batch_gb_hour": price(True)}}, "a price is a number above 0"),
        ({"prices": {"batch_gb_hour": price(day="May")}}, "it is YYYY-MM-DD"),
        ({"prices": {"batch_gb_hour": price(source="")}}, "has no source"),
    ],
)
def test_a_table_that_is_none_is_refused(value: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        read_prices(written(tmp_path, value))


def test_a_file_that_is_not_there_is_told() -> None:
    with pytest.raises(UsageError, match="--prices nowhere"):
        read_prices("nowhere")
