"""--set of `sluice replay`: the JSON text of a value, by the type of its column."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from sluice.models.errors import UsageError
from sluice.pipelines.commands.replay_set import find_changes, json_text
from sluice.pipelines.options.stream_tools import ReplayOptions

TO = "projects/p/topics/t"


@pytest.mark.parametrize(
    ("text", "kind", "written"),
    [
        ("30", None, "30"),
        (" 30 ", None, "30"),
        ("30", pa.int64(), "30"),
        ("2.0", pa.int64(), "2.0"),
        ("30", pa.float32(), "30.0"),
        ("0.1", pa.float32(), "0.1"),
        ("30", pa.string(), '"30"'),
        ("01234", None, '"01234"'),
        ("01234", pa.string(), '"01234"'),
        ("Jane", None, '"Jane"'),
        ("a,b=c", None, '"a,b=c"'),
        ("", None, '""'),
        ("null", None, "null"),
        ("null", pa.int64(), "null"),
        ("null", pa.string(), '"null"'),
        ("true", pa.bool_(), "true"),
        ("true", pa.string(), '"true"'),
        ("NaN", None, '"NaN"'),
        ("NaN", pa.float32(), '"NaN"'),
        ("[1, 2]", pa.list_(pa.int64()), "[1, 2]"),
        ("[1, 2]", pa.list_(pa.float32()), "[1.0, 2.0]"),
        ("[1, 0.10]", pa.list_(pa.float32()), "[1, 0.10]"),
        ('{"a": 1}', None, '{"a": 1}'),
        ('{"b64": "AA=="}', pa.string(), '{"b64": "AA=="}'),
        ("2024-01-31T00:00:00", pa.timestamp("us"), '"2024-01-31T00:00:00"'),
        ("12345678901234567890123", None, "12345678901234567890123"),
    ],
)
def test_a_value_is_written_as_its_column_has_it(text: str, kind: pa.DataType | None, written: str) -> None:
    assert json_text("c", text, kind) == written


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("abc", pa.int64()),
        ("2.5", pa.int64()),
        ("300", pa.int8()),
        ("1", pa.bool_()),
        ("1", pa.list_(pa.int64())),
        ("abc", pa.timestamp("us")),
        ("1e39", pa.float32()),
    ],
)
def test_a_value_of_another_type_is_refused(text: str, kind: pa.DataType) -> None:
    with pytest.raises(UsageError, match=f"--set c={text}: it is not "):
        json_text("c", text, kind)


def test_types_come_from_the_model_and_the_schema(cases: Callable[[str], str], tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps([{"name": "zip", "type": "STRING"}, {"name": "n", "type": "INTEGER"}]))
    settings = (("x", "7"), ("zip", "94110"), ("n", "3"), ("more", "94110"))
    options = ReplayOptions(failures="f", to=TO, set=settings, model=cases("picky"), input_schema=str(schema))
    assert find_changes(options) == ({"x": "7.0", "zip": '"94110"', "n": "3", "more": "94110"}, {"x"})
    with pytest.raises(UsageError, match="--set x=abc: it is not float"):
        find_changes(ReplayOptions(failures="f", to=TO, set=(("x", "abc"),), model=cases("picky")))
    with pytest.raises(UsageError):
        find_changes(ReplayOptions(failures="f", to=TO, set=(("x", "1"),), model=str(tmp_path / "none")))


def test_without_values_there_is_no_model() -> None:
    assert find_changes(ReplayOptions(failures="f", to=TO)) == ({}, set())
    with pytest.raises(UsageError, match="are for --set, which is not given"):
        ReplayOptions(failures="f", to=TO, model="m")
