"""The sections on columns: what they say of the values, and what they keep back where rows are private."""

import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from sluice.pipelines.report.data import Cell
from sluice.pipelines.report.distributions import distribution_sections
from sluice.pipelines.report.page import Section
from sluice.transforms.core.observed import Columns


def sections_of(columns: Mapping[str, pa.Array], rows: int, private: bool = False) -> dict[str, Section]:
    seen = Columns(rows=rows)
    seen.add(columns.items(), rows)
    return {section.title: section for section in distribution_sections(seen, "Inputs", private)}


def told(columns: Mapping[str, pa.Array], rows: int, private: bool) -> dict[str, Cell]:
    """What the table says of the only column."""
    table = sections_of(columns, rows, private)["Inputs in numbers"].data
    assert table is not None
    (record,) = table.records()
    return record


def test_private_quantiles_are_not_the_extremes() -> None:
    """All values are in the bin from 96 to 100, and above its middle."""
    pay = {"pay": pa.array(np.linspace(98.5, 99.9, 1000))}
    assert told(pay, 1000, private=False)["p5"] == 98.5
    assert told(pay, 1000, private=True) == {
        "column": "pay", "values": 1000, "nulls": 0, "not_finite": 0, "p5": 98.0, "median": 98.0, "p95": 98.0
    }  # fmt: skip


def test_a_mean_does_not_tell_the_only_private_value_that_is_not_zero() -> None:
    pay = {"pay": pa.array([0.0] * 999 + [91234.5])}
    assert told(pay, 1000, private=False)["mean"] == 91.2345
    assert "mean" not in told(pay, 1000, private=True)


def test_private_quantiles_need_many_rows_and_not_many_values() -> None:
    lists = {"x": pa.array([[float(number) for number in range(50)]] * 20)}
    assert told(lists, 20, private=False)["median"] is not None
    assert told(lists, 20, private=True)["median"] is None


def test_a_column_with_numbers_that_are_not_finite_is_not_always_the_same() -> None:
    assert sections_of({"x": pa.array([5.0] * 3)}, 3)["x"].text == "Always 5."
    mixed = sections_of({"x": pa.array([5.0] * 3 + [math.nan] * 2)}, 5)["x"].text
    assert "Always" not in mixed and "2 not finite" in mixed


def test_rows_of_long_lists_that_were_left_out_are_told() -> None:
    whole, part = pa.array([[1.0]] * 10), pa.array([[1.0]] * 4)
    assert sections_of({"x": whole}, 10)["Inputs in numbers"].text.startswith("All rows were looked at. ")
    text = sections_of({"x": part}, 10)["Inputs in numbers"].text
    assert text.startswith("All rows were looked at; of long lists, some of them. ")
