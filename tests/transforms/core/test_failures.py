import base64
import hashlib
import json

import pytest

from sluice.transforms.core.failures import FIELDS, Failure, to_json, to_record

FAILURE = Failure(
    stage="decode",
    error_type="InvalidRow",
    error_message="column 'age': 'é' is not int64",
    origin="gs://b/data.csv#byte=1234",
    payload=b"\xff,1\n",
    attributes=(("k", "v"),),
    model="gs://m",
    version=3,
    attempt=2,
    timestamp=1_700_000_000.123456,
)


def test_the_fields_of_a_failure() -> None:
    """The names are an interface: readers of failure files rely on them."""
    assert FIELDS == (
        "timestamp",
        "stage",
        "error_type",
        "error_message",
        "origin",
        "payload",
        "attributes",
        "model",
        "version",
        "attempt",
    )


def test_a_line_of_a_failures_file() -> None:
    assert to_json(FAILURE).decode() == (
        '{"timestamp":"2023-11-14T22:13:20.123456Z","stage":"decode","error_type":"InvalidRow",'
        '"error_message":"column \'age\': \'é\' is not int64","origin":"gs://b/data.csv#byte=1234",'
        '"payload":"/ywxCg==","attributes":{"k":"v"},"model":"gs://m","version":3,"attempt":2}'
    )


def test_what_is_not_known() -> None:
    record = json.loads(to_json(Failure("read", "EOFError", "cut off", "f.gz#byte=7", timestamp=0.0)))
    assert record == {
        "timestamp": "1970-01-01T00:00:00.000000Z",
        "stage": "read",
        "error_type": "EOFError",
        "error_message": "cut off",
        "origin": "f.gz#byte=7",
        "payload": "",
        "attributes": {},
        "model": None,
        "version": None,
        "attempt": 1,
    }


@pytest.mark.parametrize(
    ("mode", "shown"),
    [
        ("full", base64.b64encode(FAILURE.payload).decode()),
        ("hash", "sha256:" + hashlib.sha256(FAILURE.payload).hexdigest()),
        ("none", None),
    ],
)
def test_a_private_payload(mode: str, shown: str | None) -> None:
    record = to_record(FAILURE, mode)
    assert record["payload"] == shown
    assert list(record) == list(FIELDS)
    rows_own = ("payload", "error_message", "attributes")
    assert {name: value for name, value in record.items() if name not in rows_own} == {
        name: value for name, value in to_record(FAILURE).items() if name not in rows_own
    }
