"""Objects of JSON in columns that are closed to other keys."""

import dataclasses
import json

import pyarrow as pa
import pytest

from sluice.transforms.core.formats import JSONL
from sluice.transforms.decode.json import decode_json
from sluice.transforms.decode.lines import line_block
from sluice.transforms.decode.spec import Decoded, InputSpec
from tests.support.formats.decode_cases import rows_of

WHO = pa.struct([("name", pa.string()), ("home", pa.struct([("city", pa.string())]))])
SPEC = InputSpec(JSONL, (("id", pa.int64()), ("who", WHO), ("all", pa.list_(WHO))), closed=("who", "all"))
KNOWN = [{"id": 1, "who": {"name": "Ann", "home": {"city": "Bonn"}}, "all": [{"name": "Bo"}, {}]}, {"id": 2}]


def decode(rows: list[dict], spec: InputSpec = SPEC) -> Decoded:
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    return decode_json(line_block(data, 0), spec, "f.jsonl#byte=")


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ({"who": {"name": "Cy", "age": 5}}, "age"),
        ({"who": {"home": {"zip": [1]}}}, "zip"),
        ({"who": [{"age": 5}]}, "age"),
        ({"all": [{}, {"age": {}}]}, "age"),
        ({"who": {"": 1}}, ""),
    ],
)
@pytest.mark.parametrize("other", [[], [{"more": 1}, {"more": "x"}]], ids=["alone", "among keys of several types"])
def test_a_row_with_another_key_fails_alone(row: dict, key: str, other: list[dict]) -> None:
    """The key would be dropped, and the row would pass for whole."""
    decoded = decode([*KNOWN, row, *other, KNOWN[0]])
    (failure,) = decoded.failures
    column = next(iter(row))
    told = f"column '{column}': no object of the first rows has the key {key!r}; declare it in --input_schema FILE"
    assert failure.error_message == told
    assert [each["id"] for each in rows_of(decoded)] == [1, 2, *(None for _ in other), 1]


@pytest.mark.parametrize("other", [[], [{"more": 1}, {"more": "x"}]], ids=["alone", "among keys of several types"])
def test_all_other_rows_pass(other: list[dict]) -> None:
    rows = [*KNOWN, {"id": 3, "new": {"a": 1}, "who": {"age": None}}, *other]
    closed, opened = decode(rows), decode(rows, dataclasses.replace(SPEC, closed=()))
    assert not closed.failures
    assert rows_of(closed) == rows_of(opened)
