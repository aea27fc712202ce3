"""Failures as older files have them, as they are exported, and as people have edited them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.errors import SluiceError
from sluice.transforms.core.failures import PAYLOAD_MODES, Failure, to_json
from sluice.transforms.pubsub.replay.stored_failure import editable_line, parse_failure

# A line as version 0.1 wrote it before payloads were text.
OLD = (
    b'{"timestamp":"2026-01-31T00:00:00.000000Z","stage":"decode","error_type":"InvalidRow","error_message":"no",'
    b'"origin":"s#message_id=1","payload":"%s","attributes":{"k":"v"},"model":null,"version":null,"attempt":2}'
)


def stored(payload: bytes, mode: str = "full", stage: str = "predict") -> bytes:
    return to_json(Failure(stage, "BadInput", "no", "s#message_id=1", payload, (("k", "v"),)), mode)


@pytest.mark.parametrize(
    ("shown", "payload"),
    [(b"eyJ4IjogMX0=", b'{"x": 1}'), (b"/ywxCg==", b"\xff,1\n"), (b"", b""), (b"sha256:00", None)],
)
def test_failures_of_older_files_are_read(shown: bytes, payload: bytes | None) -> None:
    found = parse_failure(OLD % shown)
    assert (found.payload, found.attributes, found.attempt) == (payload, {"k": "v"}, 2)
    assert found.text == OLD % shown, "what is not sent stays as it is"
    assert (found.error_message, found.origin) == ("no", "s#message_id=1")
    assert parse_failure(OLD % b"file:///tmp/x").payload_uri == "file:///tmp/x"


def test_an_older_failure_is_exported_as_text() -> None:
    line = editable_line(parse_failure(OLD % b"eyJ4IjogMX0="))
    assert line.endswith(b',"attempt":2,"payload_text":null,"payload_json":{"x": 1}}')
    assert parse_failure(line).payload == b'{"x": 1}'


@given(
    st.binary().filter(lambda data: b"{" not in data)
    | st.text().filter(lambda text: "{" not in text).map(str.encode)
    | st.dictionaries(st.text(), st.integers() | st.text() | st.floats()).map(lambda row: json.dumps(row).encode())
)
def test_what_is_exported_comes_back(payload: bytes) -> None:
    before = parse_failure(stored(payload))
    line = editable_line(before)
    after = parse_failure(line)
    assert b"\n" not in line
    assert after.payload == payload
    assert (after.stage, after.attributes, after.attempt) == (before.stage, before.attributes, before.attempt)


@pytest.mark.parametrize("mode", PAYLOAD_MODES)
def test_what_was_not_kept_is_not_exported(mode: str) -> None:
    found = parse_failure(editable_line(parse_failure(stored(b'{"x": 1}', mode))))
    assert found.payload == (b'{"x": 1}' if mode == "full" else None)


def test_a_row_of_several_lines_is_one_line() -> None:
    line = editable_line(parse_failure(stored(b'{\r\n  "x": "a\\nb"\r\n}')))
    assert line.endswith(b'"payload_json":{   "x": "a\\nb" }}')
    assert json.loads(parse_failure(line).payload or b"") == {"x": "a\nb"}


def test_what_people_have_edited_is_what_is_sent() -> None:
    line = editable_line(parse_failure(stored(b'{"x": "NA", "n": 12345678901234567890123}')))
    edited = line.replace(b'"NA"', b"null")
    found = parse_failure(edited)
    assert found.payload == b'{"x": null, "n": 12345678901234567890123}'
    assert b"payload_json" not in found.text and parse_failure(found.text).payload == found.payload
    by_hand = b'{"stage": "decode", "payload_text": "a,b"}'
    assert parse_failure(by_hand).payload == b"a,b"
    both = b'{"stage": "decode", "payload": "AA==", "payload_text": "a", "payload_json": {"a": 1}}'
    assert parse_failure(both).payload == b'{"a": 1}'


@pytest.mark.parametrize(
    "text",
    [
        b'{"stage": "decode", "payload_text": 1}',
        b'{"stage": "decode", "payload_text": null}',
        b'{"stage": "decode", "payload_json": {"a": }}',
        b'{"payload_json": {"a": 1}}',
    ],
)
def test_an_edit_that_breaks_a_line_is_told(text: bytes) -> None:
    with pytest.raises(SluiceError, match="is not a failure"):
        parse_failure(text)


def test_a_failure_of_a_file_has_no_row_to_send() -> None:
    assert parse_failure(stored(b"text", stage="read")).payload is None
