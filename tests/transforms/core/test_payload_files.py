"""Payloads that are too large for their failure: whole in a file, and read back from there."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from sluice.models.errors import SluiceError
from sluice.transforms.bigquery.write_failures import failure_columns, failure_row
from sluice.transforms.core.failures import Failure, to_json
from sluice.transforms.core.payload_files import is_payload_uri, load_payload, store_payload
from sluice.transforms.pubsub.message_attributes import failure_message
from sluice.transforms.pubsub.publish import MAX_REQUEST_BYTES
from sluice.transforms.pubsub.replay.replay import _loaded
from sluice.transforms.pubsub.replay.stored_failure import parse_failure

LARGE = b"\xff payload" * 900_000  # 8 MB
FAILURE = Failure("predict", "BadInput", "x", "subscription#message_id=1", LARGE, (("k", "v"),))


@pytest.mark.parametrize("name", ["dir", "a b%20é"])
def test_a_payload_comes_back(name: str, tmp_path: Path) -> None:
    directory = str(tmp_path / name / "failure-payloads")
    uri = store_payload(directory, b"abc")
    assert (uri, load_payload(uri)) == (store_payload(directory, b"abc"), b"abc")
    assert uri.startswith("file:///") and is_payload_uri(uri)
    (file,) = Path(directory).iterdir()  # once, and nothing unfinished beside it
    file.write_bytes(b"abd")
    with pytest.raises(SluiceError, match="does not hold the payload that it is named after"):
        load_payload(uri)


def test_no_payload_is_taken_for_a_uri() -> None:
    assert not any(map(is_payload_uri, ("", "sha256:00", base64.b64encode(b"file:///x").decode())))


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SluiceError, match="a payload of 3 bytes cannot be written to"):
        store_payload(str(tmp_path / "file"), b"abc")


def test_a_message_of_a_large_payload_leads_to_it(tmp_path: Path) -> None:
    """8 MB became a SHA-256 of 274 bytes."""
    data, attributes, size = failure_message(FAILURE, "full", str(tmp_path))
    assert size < MAX_REQUEST_BYTES
    assert attributes["k"] == "v"
    stored = parse_failure(data, "7")
    assert stored.payload_uri.endswith(hashlib.sha256(LARGE).hexdigest())
    found = _loaded(stored)
    assert (found.payload, found.message_id) == (LARGE, "7")
    for mode in ("hash", "none"):  # private: nothing is written
        (tmp_path / mode).mkdir()
        assert parse_failure(failure_message(FAILURE, mode, str(tmp_path / mode))[0]).payload is None
        assert not list((tmp_path / mode).iterdir())


def test_a_row_of_a_large_payload_leads_to_it(tmp_path: Path) -> None:
    row = failure_row(FAILURE, "full", str(tmp_path))
    assert "payloadBytes" not in row
    assert load_payload(row["payloadString"]) == LARGE
    assert row["errorMessage"] == "x"
    shown: dict[str, Any] = failure_columns([FAILURE], "full", str(tmp_path)).to_pylist()[0]
    assert (shown["payloadString"], shown["payloadBytes"]) == (row["payloadString"], None)


def test_a_payload_that_has_gone_is_absent(tmp_path: Path) -> None:
    stored = parse_failure(to_json(FAILURE, "full", store_payload(str(tmp_path), b"abc")))
    assert stored.payload == b""
    next(tmp_path.iterdir()).unlink()
    assert _loaded(stored).payload is None


def test_a_failure_with_room_needs_no_file(tmp_path: Path) -> None:
    small = Failure("predict", "BadInput", "x", "s", b"abc")
    data, _, _ = failure_message(small, "full", str(tmp_path))
    assert json.loads(data)["payload_text"] == "abc"
    assert "payloadBytes" in failure_row(small, "full", str(tmp_path))
    assert not list(tmp_path.iterdir())
