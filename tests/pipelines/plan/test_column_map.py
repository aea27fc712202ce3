"""--map, and what is said of inputs without a column."""

from typing import Any

import pyarrow as pa
import pytest

from sluice.models.errors import UsageError
from sluice.models.signature import ColumnSpec
from sluice.transforms.core.formats import CSV, JSONL, PARQUET, TFRECORD
from tests.pipelines.plan.test_input_columns import FEATURES, MODEL, example_signature, plan, signature, source

MAPPED = (("age", "Age"), ("name", "Full Name"))


def test_inputs_take_columns_of_other_names() -> None:
    found = plan(source(CSV, "Age", "height", "Full Name", "age"), mapped=MAPPED)
    assert dict(found.spec.columns) == {
        "Age": pa.int64(),
        "height": pa.float64(),
        "Full Name": pa.string(),
        "age": pa.string(),
    }
    assert found.spec.mapped == MAPPED
    typed = plan(source(PARQUET, Age=pa.int32(), height=pa.float32(), name=pa.string()), mapped=(("age", "Age"),))
    assert (dict(typed.spec.columns)["Age"], typed.spec.mapped) == (pa.int32(), (("age", "Age"),))
    json = plan(source(JSONL, "Age", "height", "name"), mapped=(("age", "Age"),), raw=True)
    assert dict(json.spec.columns)["Age"] == pa.int64()


def test_text_that_is_carried_is_fed_to_the_input_of_the_other_name() -> None:
    found = plan(source(CSV, "Age", "height", "Full Name"), mapped=MAPPED, output=CSV)
    assert set(found.spec.columns) == {("Age", pa.string()), ("height", pa.string()), ("Full Name", pa.string())}
    assert found.spec.fed == (("age", pa.int64()), ("height", pa.float32()))
    assert found.spec.aliases == [("name", "Full Name")]


def test_two_inputs_take_one_column() -> None:
    model = signature(a="float32", b="float32", c="int64")
    found = plan(source(CSV, "x", "c"), model, mapped=(("a", "x"), ("b", "x")))
    assert found.spec.mapped == (("a", "x"), ("b", "x"))
    with pytest.raises(UsageError, match=r"inputs 'a' and 'c' take column 'x', one as float and the other as int64"):
        plan(source(CSV, "x"), model, mapped=(("a", "x"), ("b", "x"), ("c", "x")))


def test_bytes_stay_bytes_under_another_name() -> None:
    found = plan(source(CSV, "picture"), signature(image_bytes="string"), mapped=(("image_bytes", "picture"),))
    assert found.spec.columns == (("picture", pa.binary()),)


CASES: list[tuple[dict[str, Any], str]] = [
    ({"mapped": (("agee", "Age"),)}, "--map agee=Age: the model takes no 'agee' (did you mean 'age'?)"),
    ({"mapped": (("age", "Aged"),)}, "--map age=Aged: the input has no column 'Aged' (did you mean 'Age'?); it has"),
    ({"mapped": (("age", "Age"), ("age", "Name"))}, "--map age=Name: --map names a column for 'age' before; give one"),
    ({}, "the model takes 'age', 'height', 'name', which the input data has under other names: give --map age=Age "
         "--map height=Height --map name=Name"),
    ({"columns_of": ("Age", "tall", "name")}, "the model takes column 'height' (float32), and the input data"),
    ({"columns_of": ("Age", "tall", "name")}, "The others are there under other names: give --map age=Age"),
]  # fmt: skip


@pytest.mark.parametrize(("wanted", "text"), CASES)
def test_what_does_not_fit(wanted: dict[str, Any], text: str) -> None:
    wanted = dict(wanted)
    with pytest.raises(UsageError) as caught:
        plan(source(CSV, *wanted.pop("columns_of", ("Age", "Height", "Name"))), MODEL, **wanted)
    assert text in str(caught.value)


def test_records_that_the_model_reads_itself_have_no_columns_to_map() -> None:
    with pytest.raises(UsageError, match=r"the model gets the tf\.Examples as they are"):
        plan(source(TFRECORD, age=pa.int64()), FEATURES, mapped=(("age", "Age"),))


def test_a_column_that_may_be_missing_is_named_if_it_seems_to_be_there(caplog: pytest.LogCaptureFixture) -> None:
    model = example_signature(ColumnSpec("age", "int64"), ColumnSpec("home_town", "string", (), required=False))
    plan(source(CSV, "age", "Home Town"), model)
    assert "The model does without home_town, but the input may have it: --map 'home_town=Home Town'" in caplog.text
    caplog.clear()
    plan(source(CSV, "age", "town"), model)
    assert not caplog.text
