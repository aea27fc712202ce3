"""Rows as JSON objects, against the same rows in a file; and the rows at fault."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.reserved import ATTRIBUTES, PAYLOAD
from sluice.transforms.core.batches import ATTEMPT_ATTRIBUTE
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.encode.rows import encode_rows
from tests.support.formats.encode_cases import TEXT, batches, encode_batch

MAP = pa.map_(pa.string(), pa.string())
RAW = OutputSpec("jsonl", pa.schema([("y", pa.int64())]), raw=True)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)


@given(batches())
def test_each_row_is_what_it_is_in_a_file_of_its_own(batch: pa.RecordBatch) -> None:
    texts, rows, failures = encode_rows(batch, OutputSpec("jsonl", batch.schema))
    alone = [encode_batch("jsonl", batch.slice(row, 1)) for row in range(batch.num_rows)]
    assert [text + b"\n" for text in texts] == alone
    assert (rows, failures) == (None, [])


@given(st.lists(st.dictionaries(TEXT, JSON, max_size=3), max_size=6), st.data())
def test_a_raw_row_is_its_source_with_members_added(sources: list[dict[str, object]], data: st.DataObject) -> None:
    space = st.text(alphabet=" \t\r\n", max_size=3)
    indents = st.sampled_from([None, 0, 2, "\t", "\r\n "])
    texts = [
        data.draw(space)
        + json.dumps(source, indent=data.draw(indents), ensure_ascii=data.draw(st.booleans()))
        + data.draw(space)
        for source in sources
    ]
    payloads = pa.array([text.encode() for text in texts], pa.binary())
    batch = pa.record_batch({PAYLOAD: payloads, "y": pa.array(range(len(sources)), pa.int64())})
    encoded, rows, failures = encode_rows(batch, RAW)
    assert (rows, failures) == (None, [])
    assert not any(b"\n" in text or b"\r" in text for text in encoded)
    pairs = [json.loads(text, object_pairs_hook=list) for text in encoded]
    assert pairs == [[*json.loads(text, object_pairs_hook=list), ("y", row)] for row, text in enumerate(texts)]


@pytest.mark.parametrize("bad", [(), (0,), (3,), (0, 1), (2, 3), (0, 1, 2, 3), (1, 2)])
def test_rows_that_cannot_be_encoded_fail_alone(bad: tuple[int, ...]) -> None:
    payloads = [b"[1]" if row in bad else b'{"x": %d}' % row for row in range(4)]
    batch = pa.record_batch(
        {
            PAYLOAD: payloads,
            ATTRIBUTES: pa.array([[("a", str(row)), (ATTEMPT_ATTRIBUTE, "2")] for row in range(4)], MAP),
            "y": [1, 2, 3, 4],
            "_model": ["m"] * 4,
            "_version": [7] * 4,
        }
    )
    texts, rows, failures = encode_rows(batch, RAW)
    good = [row for row in range(4) if row not in bad]
    assert texts == [b'{"x": %d,"y":%d}' % (row, row + 1) for row in good]
    assert (list(range(4)) if rows is None else rows.tolist()) == good
    assert [(failure.stage, failure.error_type, failure.payload) for failure in failures] == [
        ("encode", "SluiceError", b"[1]")
    ] * len(bad)
    assert [failure.attributes for failure in failures] == [(("a", str(row)),) for row in bad]
    assert {(failure.model, failure.version, failure.attempt) for failure in failures} <= {("m", 7, 2)}


def test_a_value_that_does_not_fit_its_column_fails_alone() -> None:
    batch = pa.record_batch({"x": pa.array([1, 300, None], pa.int64())})
    texts, rows, failures = encode_rows(batch, OutputSpec("jsonl", pa.schema([("x", pa.int8())])))
    assert texts == [b'{"x":1}', b'{"x":null}']
    assert rows is not None and rows.dtype == np.int64 and rows.tolist() == [0, 2]
    assert ["300" in failure.error_message for failure in failures] == [True]


def test_a_row_without_its_source_fails() -> None:
    batch = pa.record_batch({PAYLOAD: pa.array([None, b"{}"], pa.binary()), "y": [1, 2]})
    texts, _, failures = encode_rows(batch, RAW)
    assert texts == [b'{"y":2}']
    assert len(failures) == 1


def test_a_large_batch_is_encoded_in_parts() -> None:
    batch = pa.record_batch({"x": np.arange(40_000)})
    texts, rows, failures = encode_rows(batch, OutputSpec("jsonl", batch.schema))
    assert texts == [b'{"x":%d}' % number for number in range(40_000)]
    assert (rows, failures) == (None, [])
