import base64
import datetime
import decimal
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.transforms.decode.convert import convert_or_mark, parse_texts, text_converter

UTC = datetime.UTC
NAN = math.nan

# text -> value; ValueError if the text is no value of the type.
CASES: dict[pa.DataType, dict[str, Any]] = {
    pa.int64(): {
        "7": 7,
        " -7\t": -7,
        "": None,
        "  ": None,
        "9223372036854775807": 2**63 - 1,
        "9223372036854775808": ValueError,
        "1.0": 1,
        "1e3": 1000,
        "1.5": ValueError,
        "1_000": ValueError,
        "x": ValueError,
        "é": ValueError,
    },
    pa.int8(): {"-128": -128, "128": ValueError},
    pa.uint8(): {"255": 255, "-1": ValueError, "256": ValueError},
    pa.float32(): {
        "0.1": float(np.float32(0.1)),
        " 1e3 ": 1000.0,
        "": None,
        "nan": NAN,
        "inf": math.inf,
        "-Infinity": -math.inf,
        "1e39": ValueError,
        "-1e39": ValueError,
        "1,5": ValueError,
        "infinite": ValueError,
    },
    pa.float64(): {"1e39": 1e39, "1e309": ValueError, "-0": -0.0},
    pa.bool_(): {"true": True, "FALSE": False, "1": True, "0": False, "": None, "yes": ValueError},
    pa.string(): {"": "", " a ": " a ", "é": "é"},
    pa.binary(): {"": b"", "AP8=": b"\x00\xff", "AP8": ValueError, "A P8=": ValueError, "é": ValueError},
    pa.decimal128(5, 2): {"1.5": decimal.Decimal("1.50"), "": None, "1.555": ValueError, "1000000": ValueError},
    pa.decimal256(76, 3): {"1.5": decimal.Decimal("1.500")},
    pa.date32(): {"2024-02-29": datetime.date(2024, 2, 29), "": None, "2024-02-30": ValueError, "x": ValueError},
    pa.time64("us"): {
        "01:02:03.5": datetime.time(1, 2, 3, 500_000),
        "01:02": datetime.time(1, 2),
        "": None,
        "24:00:00": ValueError,
        "x": ValueError,
    },
    pa.time32("s"): {"01:02:03": datetime.time(1, 2, 3)},
    pa.timestamp("us"): {
        "2024-02-29T01:02:03.5": datetime.datetime(2024, 2, 29, 1, 2, 3, 500_000),
        "2024-02-29 01:02:03": datetime.datetime(2024, 2, 29, 1, 2, 3),
        "2024-02-29": datetime.datetime(2024, 2, 29),
        "2024-02-29T01:02:03Z": datetime.datetime(2024, 2, 29, 1, 2, 3),
        "": None,
        "2024-02-29T01:02:03+02:00": ValueError,
        "x": ValueError,
    },
    pa.timestamp("us", "UTC"): {
        "2024-02-29T01:02:03Z": datetime.datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC),
        "2024-02-29 01:02:03+02:00": datetime.datetime(2024, 2, 28, 23, 2, 3, tzinfo=UTC),
        "2024-02-29 01:02:03 UTC": datetime.datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC),  # as BigQuery exports it
        "2024-02-29 01:02:03": datetime.datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC),
        "x": ValueError,
    },
}


@pytest.mark.parametrize(
    ("kind", "text", "value"), [(kind, text, value) for kind in CASES for text, value in CASES[kind].items()], ids=str
)
@pytest.mark.parametrize("given_as", [pa.string(), pa.binary()], ids=str)
def test_what_a_text_means(kind: pa.DataType, text: str, value: Any, given_as: pa.DataType) -> None:
    array = pa.array([text.encode()], pa.binary()).cast(given_as)
    if value is ValueError:
        with pytest.raises(ValueError):
            text_converter(kind)(array)
    else:
        found = text_converter(kind)(array)
        assert found.type == kind
        assert repr(plain(found[0].as_py())) == repr(value)


def plain(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime.datetime) and value.tzinfo else value


@pytest.mark.parametrize("kind", list(CASES), ids=str)
@given(data=st.data())
def test_a_text_means_the_same_among_others(kind: pa.DataType, data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.sampled_from([*CASES[kind], "\udcff"]), max_size=20))
    array = pa.array([text.encode(errors="surrogateescape") for text in texts], pa.binary())
    values, misfits = parse_texts(array, kind)
    expected = [CASES[kind].get(text, ValueError) for text in texts]
    assert (misfits if misfits is not None else np.zeros(len(texts), bool)).tolist() == [
        value is ValueError for value in expected
    ]
    assert [repr(plain(value)) for value in values.to_pylist()] == [
        repr(None if value is ValueError else value) for value in expected
    ]
    assert values.type == kind


def test_text_that_is_not_utf8_does_not_fit() -> None:
    values, misfits = parse_texts(pa.array([b"a", b"\xff", None, b"b"], pa.binary()), pa.string())
    assert values.to_pylist() == ["a", None, None, "b"]
    assert misfits is not None
    assert misfits.tolist() == [False, True, False, False]


@given(st.lists(st.binary(max_size=8), max_size=9))
def test_base64_reads_back(values: list[bytes]) -> None:
    found, misfits = parse_texts(pa.array([base64.b64encode(value) for value in values], pa.binary()), pa.binary())
    assert (found.to_pylist(), misfits) == (values, None)


@given(st.lists(st.integers(-9, 9), max_size=70))
def test_misfits_are_marked_each_and_cost_little(values: list[int]) -> None:
    calls = []

    def root(array: pa.Array) -> pa.Array:
        calls.append(len(array))
        if pc.any(pc.less(array, 0)).as_py():
            raise ValueError("a negative number")
        return pc.sqrt(array)

    found, misfits = convert_or_mark(pa.array(values, pa.int64()), root, pa.float64())
    bad = [value < 0 for value in values]
    assert (misfits if misfits is not None else np.zeros(len(values), bool)).tolist() == bad
    assert found.to_pylist() == [None if value < 0 else math.sqrt(value) for value in values]
    assert len(calls) <= 1 + 2 * sum(bad) * math.ceil(math.log2(len(values) + 1))
