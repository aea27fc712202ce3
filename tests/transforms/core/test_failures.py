import base64
import dataclasses
import hashlib
import json

import pytest

from sluice.transforms.core.failures import FIELDS, Failure, to_json, to_record
from sluice.transforms.pubsub.replay.stored_failure import parse_failure

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
        "payload_text",
        "attributes",
        "model",
        "version",
        "attempt",
    )


def test_a_line_of_a_failures_file() -> None:
    assert to_json(FAILURE).decode() == (
        '{"timestamp":"2023-11-14T22:13:20.123456Z","stage":"decode","error_type":"InvalidRow",'
        '"error_message":"column \'age\': \'é\' is not int64","origin":"gs://b/data.csv#byte=1234",'
        '"payload":"/ywxCg==","payload_text":null,"attributes":{"k":"v"},"model":"gs://m","version":3,"attempt":2}'
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
        "payload_text": None,
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
    assert (record["payload"], record["payload_text"]) == (shown, None)
    assert list(record) == list(FIELDS)
    rows_own = ("payload", "error_message", "attributes")
    assert {name: value for name, value in record.items() if name not in rows_own} == {
        name: value for name, value in to_record(FAILURE).items() if name not in rows_own
    }


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"5.1,NA,0.2", "5.1,NA,0.2"),
        (b'{"x": "\xc3\xa9"}\r\n', '{"x": "\u00e9"}\r\n'),
        (b"a\tb", "a\tb"),
        (b"\xef\xbb\xbfa", "\ufeffa"),
        (b"sha256:00", "sha256:00"),
        (b"gs://b/x", "gs://b/x"),
        (b"\xff,1", None),
        (b"a\x00", None),
        (b"\n\x0e\n\x0c\n\x01x\x12\x07\x1a\x05\n\x03\x01\x02\x03", None),  # a tf.Example may be valid UTF-8
        (b"\xed\xa0\x80", None),
    ],
)
def test_a_payload_that_is_text_is_readable_and_comes_back(payload: bytes, text: str | None) -> None:
    made = dataclasses.replace(FAILURE, payload=payload)
    record = json.loads(to_json(made))
    assert (record["payload"], record["payload_text"]) == (
        (None, text) if text is not None else (base64.b64encode(payload).decode(), None)
    )
    assert parse_failure(to_json(made)).payload == payload
    for mode in ("hash", "none"):
        assert to_record(made, mode)["payload_text"] is None
