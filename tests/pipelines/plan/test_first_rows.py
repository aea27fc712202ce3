"""What the first rows show before a job starts."""

import pyarrow as pa
import pytest

from sluice.models.signature import Signature, TensorSpec
from sluice.pipelines.plan.first_rows import check_rows
from sluice.transforms.core.formats import CSV
from sluice.transforms.decode.spec import Decoded
from sluice.transforms.files.find_source import Source

NAMES = ("a", "b", "c", "text")
MODEL = Signature(
    "serving_default",
    "",
    (*(TensorSpec(name, "float32", (None,)) for name in NAMES[:3]), TensorSpec("text", "string", (None,))),
    (TensorSpec("y", "float32", (None,)),),
)
SOURCE = Source(CSV, "rows.csv", 1, 100, NAMES)


def rows(**columns: list[float | str | None]) -> pa.RecordBatch:
    whole: dict[str, list[float | str | None]] = {"a": [1.0, 2.0], "b": [1.0, 2.0], "c": [1.0, 2.0], "text": ["x", ""]}
    return pa.RecordBatch.from_pydict(whole | columns)


@pytest.mark.parametrize(
    ("batches", "defaults", "told"),
    [
        ([rows()], {}, ""),
        ([rows(b=[None, 2.0])], {}, "1 of the first 2 rows of rows.csv lack a value in column 'b', and such rows fail"),
        ([rows(b=[None, 2.0])], {}, "--column_defaults b=VALUE gives them one"),
        ([rows(b=[None, 2.0])], {"b": 0.0}, ""),
        ([rows(b=[None, 2.0]), rows(c=[None, None])], {}, "3 of the first 4 rows of rows.csv lack a value in 2 c"),
        ([rows(b=[None, 2.0]), rows(c=[None, None])], {}, "--column_defaults b=VALUE,c=VALUE gives them one"),
        ([rows(b=[None, 2.0], text=[None, "x"])], {"b": 0.0}, "--column_defaults text=VALUE gives"),
    ],
)
def test_all_columns_that_lack_values_are_named_at_once(
    batches: list[pa.RecordBatch], defaults: dict[str, float], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure names one column of its row: one job for each would be needed to learn of all."""
    assert "fit" in check_rows(Decoded(batches), SOURCE, MODEL, defaults)
    assert told in caplog.text
    assert bool(caplog.records) == bool(told)
