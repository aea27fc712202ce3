"""Failures are read as they were written, and the right ones are fed back."""

import dataclasses
import datetime
import gzip
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.api_core.exceptions import Cancelled, DeadlineExceeded, ServiceUnavailable
from google.pubsub_v1.types import PubsubMessage, PullResponse, ReceivedMessage
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.errors import SluiceError, UsageError
from sluice.transforms.core.batches import ATTEMPT_ATTRIBUTE
from sluice.transforms.core.beam_files import match_files, open_binary
from sluice.transforms.core.failures import PAYLOAD_MODES, Failure, to_json, to_record
from sluice.transforms.pubsub.replay.failure_files import FailureFiles
from sluice.transforms.pubsub.replay.failure_messages import FailureMessages
from sluice.transforms.pubsub.replay.final_sink import open_final_sink
from sluice.transforms.pubsub.replay.replay import ABSENT, SENT, SKIPPED, TRIED, ReplayRules, attributes_of, replay
from sluice.transforms.pubsub.replay.stored_failure import StoredFailure, parse_failure
from tests.support.fakes import FakeClock
from tests.support.servers import Gcs

FAILURE = Failure("predict", "Unavailable", "gone", "s#message_id=1", b"\xff{}", (("k", "v"),), "m", 3, attempt=2)
NOW = datetime.datetime(2026, 1, 31, 23, 59, 58, tzinfo=datetime.UTC)


def line_of(**changes: Any) -> bytes:
    return to_json(dataclasses.replace(FAILURE, **changes))


def read(source: FailureFiles) -> list[StoredFailure]:
    return [failure for chunk in source.chunks() for failure in chunk]


@given(
    st.builds(
        Failure,
        st.sampled_from(["decode", "bind", "predict", "encode", "write"]),
        st.text(),
        st.text(),
        st.text(),
        st.binary(),
        st.dictionaries(st.text(), st.text()).map(lambda pairs: tuple(pairs.items())),
        attempt=st.integers(1, 99),
    )
)
def test_a_failure_comes_back_as_it_was_written(failure: Failure) -> None:
    found = parse_failure(to_json(failure))
    assert found == StoredFailure(
        to_json(failure),
        failure.stage,
        failure.error_type,
        failure.payload,
        dict(failure.attributes),
        failure.attempt,
    )


@pytest.mark.parametrize("mode", PAYLOAD_MODES)
def test_a_payload_is_there_if_it_was_kept(mode: str) -> None:
    assert parse_failure(to_json(FAILURE, mode)).payload == (b"\xff{}" if mode == "full" else None)


def test_a_message_that_was_delivered_too_often_is_a_row() -> None:
    line = line_of(stage="read", error_type="TooManyDeliveries", payload=b"killer")
    assert parse_failure(line).payload == b"killer"


def test_a_file_that_could_not_be_read_is_no_row() -> None:
    assert parse_failure(line_of(stage="read", payload=b"")).payload is None
    assert parse_failure(line_of(payload=b"")).payload == b"", "a message may be empty"


def test_what_is_not_given_has_its_default() -> None:
    found = parse_failure(b'{"stage": "decode",\n "payload": "cA=="}')
    assert found == StoredFailure(b'{"stage":"decode","payload":"cA=="}', "decode", "", b"p", {}, 1)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"a,b,c",
        b"1",
        b"[]",
        b"{}",
        b'{"stage": "decode"}',
        b'{"payload": "cA=="}',
        b'{"stage": "decode", "payload": "c"}',
        b'{"stage": "decode", "payload": "c\xc3\xa4"}',
        b'{"stage": "decode", "payload": 1}',
        b'{"stage": 1, "payload": "cA=="}',
        b'{"stage": "decode", "payload": "cA==", "attempt": "2"}',
        b'{"stage": "decode", "payload": "cA==", "attributes": {"a": 1}}',
        b'{"stage": "decode", "payload": "cA==", "attributes": [1]}',
        b'{"stage": "decode", "payload": "cA==", "attributes": "a"}',
        to_json(FAILURE)[:-5],
    ],
)
def test_anything_else_is_no_failure(text: bytes) -> None:
    with pytest.raises(SluiceError, match="is not a failure"):
        parse_failure(text)


@pytest.mark.parametrize(
    ("changes", "rules", "fate"),
    [
        ({}, ReplayRules(5), SENT),
        ({"attempt": 4}, ReplayRules(5), SENT),
        ({"attempt": 5}, ReplayRules(5), TRIED),
        ({"attempt": 6}, ReplayRules(5), TRIED),
        ({}, ReplayRules(1), TRIED),
        ({"stage": "read"}, ReplayRules(5), ABSENT),
        ({}, ReplayRules(5, stages=("decode", "predict")), SENT),
        ({}, ReplayRules(5, stages=("decode",)), SKIPPED),
        ({"attempt": 9}, ReplayRules(5, stages=("decode",)), SKIPPED),
        ({}, ReplayRules(5, error_types=("Unavailable",)), SENT),
        ({}, ReplayRules(5, stages=("predict",), error_types=("TimedOut",)), SKIPPED),
    ],
)
def test_what_becomes_of_a_failure(changes: dict[str, Any], rules: ReplayRules, fate: str) -> None:
    assert rules.fate(parse_failure(line_of(**changes))) == fate


def test_a_message_says_how_often_it_will_have_been_tried() -> None:
    failure = parse_failure(line_of(attributes=(("k", "v"), ("googclient_schemaencoding", "JSON"))))
    assert attributes_of(failure) == {"k": "v", ATTEMPT_ATTRIBUTE: "3"}


def test_columns_are_set_before_a_message_is_sent() -> None:
    rules = ReplayRules(5, changes={"x": "null", "n": "1"})
    changed = rules.changed(parse_failure(line_of(payload=b'{"x": "NA", "big": 12345678901234567890123}')))
    assert changed is not None
    assert changed.payload == b'{"x": null, "big": 12345678901234567890123,"n":1}'
    for payload in (b"a,b", b"\xff", b"", b"[1]"):
        assert rules.changed(parse_failure(line_of(payload=payload))) is None
    same = parse_failure(line_of(payload=b"a,b"))
    assert ReplayRules(5).changed(same) is same


def test_a_directory_means_its_files_of_failures(tmp_path: Path) -> None:
    (tmp_path / "predictions.jsonl").write_text('{"x": 1}\n')
    (tmp_path / "rows.csv").write_text("x\n1\n")
    with pytest.raises(UsageError, match="none of its 1 files of JSON Lines holds failures"):
        FailureFiles(str(tmp_path))
    (tmp_path / "b.jsonl").write_bytes(line_of(attempt=1))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line_of(attempt=2)))
    assert [failure.attempt for failure in read(FailureFiles(f"{tmp_path}/"))] == [2, 1]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no file matches"):
        FailureFiles(f"{tmp_path}/empty")


def test_files_are_read_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(line_of(attempt=1) + b"\n\n" + line_of(attempt=2))
    (tmp_path / "b.jsonl").write_bytes(b"")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(line_of(attempt=3) + b"\r\n"))
    source = FailureFiles(f"{tmp_path}/*")
    assert [failure.attempt for failure in read(source)] == [1, 2, 3]
    assert (len(source.paths), source.damaged) == (3, [])


def test_a_line_that_is_no_failure_comes_as_one(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(line_of() + b"\nnonsense\n" + line_of())
    first, middle, last = read(FailureFiles(f"{tmp_path}/a.jsonl"))
    assert first == last == parse_failure(line_of())
    record = json.loads(middle.text)
    assert (record["stage"], record["error_type"]) == ("read", "CorruptFile")
    assert record["origin"] == f"{tmp_path}/a.jsonl#byte={len(line_of()) + 1}"
    assert record["payload_text"] == "nonsense"
    assert middle.payload is None, "it is not fed back"


def test_a_file_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    packed = gzip.compress(b"".join(line_of(origin=str(n)) + b"\n" for n in range(10_000)))
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "b.jsonl").write_bytes(line_of(attempt=7))
    source = FailureFiles(f"{tmp_path}/*")
    found = read(source)
    assert 1000 < len(found) < 10_000
    assert found[-1].attempt == 7, "other files are read"
    assert len(source.damaged) == 1 and "a.jsonl.gz" in source.damaged[0]


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"PAR1\x00\x01", b"\x1f\x8bnot gzip"])
def test_a_file_of_something_else_is_refused_at_once(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n")
    (tmp_path / "b.jsonl").write_bytes(content)
    with pytest.raises(UsageError, match=r"b\.jsonl is not a file of failures"):
        FailureFiles(f"{tmp_path}/*.jsonl")


def test_no_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file matches"):
        FailureFiles(f"{tmp_path}/*.jsonl")


class FakeSubscriber:
    """A client that returns a given list of messages for each pull, and records acknowledgements.

    Args:
      secs: how long each pull takes.
    """

    def __init__(self, clock: FakeClock, pulls: list[list[PubsubMessage]], secs: float = 1.0) -> None:
        self._clock, self._pulls, self._secs = clock, pulls, secs
        self._acks = 0
        self.acknowledged: list[str] = []
        self.given_back: list[str] = []
        self.transport = SimpleNamespace(close=lambda: None)

    def pull(self, subscription: str, max_messages: int, timeout: float) -> PullResponse:
        self._clock.advance(min(self._secs, timeout))
        if not self._pulls:
            raise DeadlineExceeded("empty")
        messages = []
        for message in self._pulls.pop(0):
            self._acks += 1
            messages.append(ReceivedMessage(ack_id=f"{message.message_id}/{self._acks}", message=message))
        return PullResponse(received_messages=messages)

    def acknowledge(self, request: dict[str, Any], timeout: float) -> None:
        self.acknowledged += request["ack_ids"]

    def modify_ack_deadline(self, request: dict[str, Any], timeout: float) -> None:
        assert request["ack_deadline_seconds"] == 0
        self.given_back += request["ack_ids"]


def message(id_: str, secs: float = 0.0, data: bytes | None = None) -> PubsubMessage:
    time = datetime.datetime.fromtimestamp(1000 + secs, datetime.UTC)
    return PubsubMessage(data=line_of() if data is None else data, message_id=id_, publish_time=time)


def messages_of(pulls: list[list[PubsubMessage]]) -> tuple[FailureMessages, FakeSubscriber]:
    clock = FakeClock()
    client = FakeSubscriber(clock, pulls)
    return FailureMessages(client, "projects/p/subscriptions/s", 1000 * 1_000_000, 5, clock), client


def test_a_message_is_acknowledged_once_it_is_settled() -> None:
    source, client = messages_of([[message("a"), message("b")], [], [message("c")]])
    for chunk in source.chunks():
        assert not {failure.message_id for failure in chunk} & {each[0] for each in client.acknowledged}
        source.settle(chunk)
    assert client.acknowledged == ["a/1", "b/2", "c/3"]
    source.close()
    assert client.given_back == []


def test_what_is_not_settled_is_given_back() -> None:
    source, client = messages_of([[message("a"), message("b")], [message("b")]])
    for chunk in source.chunks():
        source.settle(chunk[:1])
    source.close()
    assert (client.acknowledged, client.given_back) == (["a/1"], ["b/3"])


def test_a_message_that_comes_again_is_acknowledged_and_not_given_again() -> None:
    source, client = messages_of([[message("a")], [message("a"), message("b")], [message("b")]])
    given = []
    for chunk in source.chunks():
        given += [failure.message_id for failure in chunk]
        source.settle(chunk)
    assert given == ["a", "b"]
    assert client.acknowledged == ["a/1", "a/2", "b/3", "b/4"]


@pytest.mark.parametrize("error", [DeadlineExceeded, Cancelled])
def test_a_pull_that_is_cut_off_has_found_nothing(error: type[Exception]) -> None:
    source, client = messages_of([])
    client.pull = lambda **_: (_ for _ in ()).throw(error("cut off"))  # type: ignore[method-assign]
    assert source._pull(0.001) == []


def test_what_was_published_after_the_start_is_left_and_does_not_keep_it_going() -> None:
    source, client = messages_of([[message("a")], *([message(f"n{n}", 1)] for n in range(100))])
    assert [failure.message_id for chunk in source.chunks() for failure in chunk] == ["a"]
    assert source.newer == 5, "it ends 5 s after the last that is not newer"
    source.close()
    assert len(client.given_back) == 6


def test_a_message_that_is_no_failure_is_left() -> None:
    source, client = messages_of([[message("a"), message("x", data=b"nonsense")], [message("x", data=b"nonsense")]])
    for chunk in source.chunks():
        source.settle(chunk)
    source.close()
    assert (client.acknowledged, client.given_back, source.strangers) == (["a/1"], ["x/3"], 1)


def test_the_subscription_of_something_else_is_refused() -> None:
    source, client = messages_of([[message("x", data=b"nonsense"), message("a")]])
    with pytest.raises(UsageError, match="something else than failures: 'nonsense' is not a failure"):
        list(source.chunks())
    source.close()
    assert client.acknowledged == []


def test_a_service_that_is_away_is_an_error() -> None:
    source, client = messages_of([])
    client.pull = lambda **_: (_ for _ in ()).throw(ServiceUnavailable("away"))  # type: ignore[method-assign]
    with pytest.raises(SluiceError, match="cannot be read: ServiceUnavailable"):
        list(source.chunks())


def test_the_final_place_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = open_final_sink("", NOW)
    assert place.name == "replay-final-20260131T235958Z.jsonl"
    failures = [parse_failure(line_of(attempt=n)) for n in (1, 2, 3)]
    place.write(failures[:1])
    place.write([])
    place.write(failures[1:])
    assert read(FailureFiles(place.name)) == failures, "it is there before it is closed"
    place.close()
    with pytest.raises(UsageError, match="exists"):
        open_final_sink(place.name, NOW)


def test_a_final_place_that_was_not_needed_is_not_there(tmp_path: Path) -> None:
    open_final_sink(f"{tmp_path}/new/final.jsonl", NOW).close()
    assert list((tmp_path / "new").iterdir()) == []


def test_a_final_place_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (f"{tmp_path}/file/final.jsonl", f"{tmp_path}", f"{tmp_path}/final.jsonl.gz"):
        with pytest.raises(UsageError, match="--final"):
            open_final_sink(path, NOW)


def test_a_final_place_of_objects(gcs: Gcs) -> None:
    place = open_final_sink(gcs.path("final/f.jsonl"), NOW)
    assert match_files(gcs.path("final/*")) == []
    failures = [parse_failure(line_of(attempt=n)) for n in (1, 2, 3)]
    for part in (failures[:2], [], failures[2:]):
        place.write(part)
    place.close()
    found = [file.path for file in match_files(gcs.path("final/*"))]
    assert len(found) == 2 and all(path.startswith(gcs.path("final/f-20")) for path in found)
    with open_binary(found[0]) as file:
        assert file.read() == failures[0].text + b"\n" + failures[1].text + b"\n"
    assert read(FailureFiles(place.name)) == failures


def test_the_limit_counts_what_is_not_skipped() -> None:
    source, client = messages_of(
        [[message("a"), message("s", data=line_of(stage="bind"))], [message("b"), message("c")]]
    )
    counts: Counter[str] = Counter()
    replay(source, None, None, ReplayRules(5, stages=("predict",), limit=2), counts)
    assert +counts == {"read": 3, SENT: 2, SKIPPED: 1}
    assert client.acknowledged == []


def test_a_record_of_every_failure_can_be_read_back() -> None:
    """Records of a BigQuery table, or of another program, are another matter."""
    assert json.loads(parse_failure(to_json(FAILURE)).text) == to_record(FAILURE)
