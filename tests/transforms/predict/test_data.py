"""`predict` on DataFrames, Arrow data and rows."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import sluice
from sluice.models.errors import CallError, FailedRow, Refused, RowsFailed, UsageError
from sluice.models.interface import ModelOptions, Outputs
from sluice.models.opened import OPENED
from sluice.models.tensors.binding import Bound, Feeds
from sluice.transforms.predict.data import predict
from tests.support.fakes import FakeModel, refusing

# The model doubles x, and writes it as text.
ROWS = [{"k": "a", "x": 1}, {"k": "b", "x": 2}, {"k": "c", "x": 3}]
SCORED = [row | {"text": str(row["x"]), "y": 2 * row["x"]} for row in ROWS]  # type: ignore[operator]


class Point(NamedTuple):
    k: str
    x: int


def test_dicts() -> None:
    assert predict(FakeModel(), ROWS) == SCORED
    assert predict(FakeModel(), [Point("a", 1)]) == SCORED[:1]  # type: ignore[comparison-overlap]
    assert predict(FakeModel(), []) == []


def test_arrow_data() -> None:
    table = pa.Table.from_pylist(ROWS)
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    for data in (table, chunked):
        found = predict(FakeModel(), data)
        assert isinstance(found, pa.Table) and found.to_pylist() == SCORED
    (batch,) = table.to_batches()
    scored = predict(FakeModel(), batch)
    assert isinstance(scored, pa.RecordBatch) and scored.to_pylist() == SCORED
    empty = predict(FakeModel(), batch.slice(0, 0))
    assert empty.num_rows == 0 and empty.schema == scored.schema


def test_a_data_frame_keeps_its_index_its_types_and_its_order() -> None:
    frame = pd.DataFrame(
        {
            "x": pd.Series([3, 1, 2], dtype="int8"),
            "c": pd.Categorical(["u", "v", "u"]),
            "t": pd.to_datetime(["2020", "2021", "2022"]),
            "o": [{"any": "thing"}, 1, None],
        },
    ).set_index(pd.Index(["r", "s", "r"], name="label"))
    found = predict(FakeModel(), frame)
    pd.testing.assert_frame_equal(found[["x", "c", "t", "o"]], frame)
    assert found["y"].tolist() == [6, 2, 4] and found["text"].tolist() == ["3", "1", "2"]
    assert "y" not in frame, "what was given stays as it was"


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([1.0, np.nan, 3.0], [2, None, 6]),
        ([1, None, "3"], [2, None, None]),
        ([1.5, 2.0, 1e30], [None, 4, None]),
        ([True, False, True], [2, 0, 2]),
        (pd.array([1, None, 3], dtype="Int64"), [2, None, 6]),
        (pd.to_datetime(["2020", "2021", "2022"]), [None, None, None]),
    ],
    ids=["NaN", "objects", "fractions", "booleans", "Int64", "times"],
)
def test_columns_of_a_data_frame(values: Any, wanted: list[int | None]) -> None:
    frame = pd.DataFrame({"x": values}, index=[10, 20, 30])
    found = predict(FakeModel(), frame, on_failure="return")
    assert [found.rows["y"].get(label) for label in frame.index] == wanted
    assert sorted([*found.rows.index, *found.failures.index]) == [10, 20, 30], "each row is once in one of the two"


def test_rows_that_fail_are_an_error_that_names_them() -> None:
    rows: list[Any] = [{"x": 1}, {"x": "one"}, {}, {"x": 13}, 5, {"x": 6}]
    with pytest.raises(
        RowsFailed, match=r"3 of 6 rows cannot be predicted: 1, 2, 3. The first is row 1: Inv"
    ) as caught:
        predict(FakeModel(refusing(frozenset([13]))), rows)
    assert [failure[:3] for failure in caught.value.failures] == [
        (1, "bind", "InvalidRow"),
        (2, "bind", "InvalidRow"),
        (3, "predict", "BadInput"),
    ]
    assert isinstance(caught.value, CallError)


def test_or_they_are_returned_beside_the_others() -> None:
    model = FakeModel(refusing(frozenset([13])))
    rows = [{"x": 1}, {"x": 13}, {"x": None}, {"x": 4}]
    found = predict(model, rows, on_failure="return")
    assert [row["y"] for row in found.rows] == [2, 8]
    assert [(each["row"], each["stage"]) for each in found.failures] == [(1, "predict"), (2, "bind")]
    table = predict(model, pa.Table.from_pylist(rows), on_failure="return")
    assert table.rows["y"].to_pylist() == [2, 8]
    assert table.failures["row"].to_pylist() == [1, 2] and table.failures.column_names == [*FailedRow._fields]
    whole = predict(model, pd.DataFrame({"x": [1]}), on_failure="return")
    assert (len(whole.rows), len(whole.failures)) == (1, 0)


def test_many_rows_stay_in_order_and_fail_alone() -> None:
    bad = frozenset([0, 16_383, 16_384, 39_999])
    model = FakeModel(refusing(bad))
    found = predict(model, pa.table({"x": np.arange(40_000)}), on_failure="return")
    kept = np.array([x for x in range(40_000) if x not in bad])
    assert (found.rows["x"].to_numpy() == kept).all() and (found.rows["y"].to_numpy() == 2 * kept).all()
    assert found.failures["row"].to_pylist() == sorted(bad)


@pytest.mark.parametrize("form", [list, pd.DataFrame])
@pytest.mark.parametrize(("values", "most"), [(1 << 17, 16), (1, 40)], ids=["large", "small"])
def test_large_rows_become_columns_a_few_at_a_time(values: int, most: int, form: Callable[[Any], Any]) -> None:
    """The numbers of their arrays are objects on the way."""
    bound: list[int] = []

    class Seen(FakeModel):
        def bind(self, batch: pa.RecordBatch) -> Bound:
            bound.append(batch.num_rows)
            return super().bind(batch)

    array = np.zeros(values)
    found = predict(Seen(), form([{"x": x, "more": array} for x in range(40)]))
    doubled = found["y"].tolist() if isinstance(found, pd.DataFrame) else [row["y"] for row in found]
    assert doubled == [2 * x for x in range(40)]
    assert sum(bound) == 40 and most - 1 <= max(bound) <= most


def test_a_model_that_is_away_is_no_fault_of_rows() -> None:
    def away(feeds: Feeds) -> Outputs:
        raise Refused("no entry")

    with pytest.raises(CallError, match="no entry"):
        predict(FakeModel(away), ROWS, on_failure="return")


def test_a_model_that_was_given_open_stays_open() -> None:
    model = FakeModel()
    predict(model, ROWS)
    assert not model.closed and predict(model, ROWS) == SCORED


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"x": [1]}, "a list of dicts; found dict"),
        ("x", "found str"),
        (7, "found int"),
        (np.zeros(3), "found ndarray"),
        (pa.table([[1], [2]], names=["x", "x"]), "two columns of the data are named 'x'"),
        (pa.table({"x": [1], "y": [2]}), r"names of the model's outputs \(y\): give output_prefix"),
        ([{"x": 1, "y": 2}], r"names of the model's outputs \(y\)"),
    ],
    ids=["dict", "text", "number", "array", "twice", "taken", "taken by a row"],
)
def test_data_that_cannot_be(data: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        predict(FakeModel(), data)


def test_a_prefix_tells_outputs_from_columns() -> None:
    assert predict(FakeModel(), [{"x": 1, "y": 5}], output_prefix="p_") == [{"x": 1, "y": 5, "p_text": "1", "p_y": 2}]


def test_arguments_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="on_failure is 'ignore'"):
        predict(FakeModel(), ROWS, on_failure="ignore")  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="this one is open"):
        predict(FakeModel(), ROWS, options=ModelOptions())
    with pytest.raises(UsageError, match="found int"):
        predict(3, ROWS)  # type: ignore[call-overload]


def test_a_model_by_its_path(cases: Callable[[str], str], tmp_path: Path) -> None:
    directory = tmp_path / "model"
    shutil.copytree(cases("picky"), directory)
    try:
        (found,) = sluice.predict(directory, [{"x": 4.0}])
        assert found == sluice.predict(str(directory), [{"x": 4.0}])[0]
        with pytest.raises(UsageError, match=r"takes column 'x' \(float32\), and the data has only: z, X"):
            sluice.predict(directory, pd.DataFrame({"z": [1.0], "X": [2.0]}))
        filled = sluice.predict(
            directory, pd.DataFrame({"z": [1.0]}), options=ModelOptions(defaults=(("x", 4.0),))
        ).to_dict("records")
        assert filled == [{"z": 1.0} | {name: value for name, value in found.items() if name != "x"}]
        shutil.rmtree(directory)
        shutil.copytree(cases("no_variables"), directory)
        with pytest.raises(RowsFailed, match="column 'celsius'"):
            sluice.predict(directory, [{"x": 4.0}])
    finally:
        OPENED.close()
