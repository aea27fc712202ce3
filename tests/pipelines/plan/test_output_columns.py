"""Names of columns that clash, as when a table of predictions is scored again."""

import pyarrow as pa
import pytest

from sluice.models.errors import UsageError
from sluice.models.signature import Signature, TensorSpec
from sluice.pipelines.plan.input_columns import InputPlan
from sluice.pipelines.plan.output_columns import added_columns, plan_output, table_columns
from sluice.transforms.core.formats import BIGQUERY, JSONL
from sluice.transforms.decode.spec import InputSpec
from sluice.transforms.files.find_source import Source

MODEL = Signature("serving_default", "", (TensorSpec("x", "int64", (None,)),), (TensorSpec("y", "int64", (None,)),))
OURS = ("_model", "_version", "_predicted_at")


def plan(*names: str) -> InputPlan:
    return InputPlan(InputSpec(BIGQUERY, ()), tuple((name, pa.int64()) for name in names))


@pytest.mark.parametrize(
    ("names", "prefix", "text"),
    [
        (("y",), "", r"model's outputs \(y\): give --output_prefix TEXT to rename .*, or --exclude_columns y to leave"),
        (
            OURS,
            "",
            r"\(_model, _version, _predicted_at\): give --exclude_columns _model,_version,_predicted_at to leave",
        ),
        (
            OURS,
            "p_",
            r"\(_model, _version, _predicted_at\): give --exclude_columns _model,_version,_predicted_at to leave",
        ),
        (
            ("y", *OURS),
            "",
            r"\(y\) and of columns that Sluice adds \(_model, _version, _predicted_at\): give --exclude_columns "
            r"y,_model,_version,_predicted_at to leave the input's columns out; or --exclude_columns "
            r"_model,_version,_predicted_at, and --output_prefix TEXT to rename the outputs$",
        ),
    ],
)
def test_names_that_clash_are_all_named(names: tuple[str, ...], prefix: str, text: str) -> None:
    with pytest.raises(UsageError, match=text) as raised:
        table_columns(plan("x", *names), MODEL, prefix)
    assert ("--output_prefix" in str(raised.value)) == ("y" in names)


def test_files_have_no_time_of_writing_and_names_only_if_they_are_asked_for() -> None:
    assert [field.name for field in added_columns(MODEL, "", False, OURS)] == ["y"]
    assert [field.name for field in added_columns(MODEL, "p_", True, ["y", "_predicted_at"])] == [
        "p_y",
        "_model",
        "_version",
    ]
    with pytest.raises(UsageError, match="give --exclude_columns _model,_version to leave"):
        added_columns(MODEL, "", True, OURS)


@pytest.mark.parametrize("names", [("_model",), ("_version",)])
def test_rows_that_are_decoded_cannot_bring_the_names_that_scored_rows_have(names: tuple[str, ...]) -> None:
    source = Source(JSONL, "rows.jsonl", 1, 1, ("x", *names))

    def planned(raw: bool) -> list[str]:
        spec = plan_output(
            source, plan("x", *names), MODEL, JSONL, raw=raw, prefix="", model_columns=False, flatten=False
        )
        return spec.schema.names

    assert planned(raw=True) == ["y"], "the text of a row is no column"
    with pytest.raises(UsageError, match=f"Sluice adds .{names[0]}.: give --exclude_columns {names[0]} to leave"):
        planned(raw=False)
