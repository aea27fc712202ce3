"""`sluice replay` on a Pub/Sub emulator: what arrives, what does not come back, and that nothing is lost."""

import base64
import dataclasses
import gzip
import hashlib
import json
import os
import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sluice.pipelines.cli import main
from sluice.transforms.bigquery import write_failures
from sluice.transforms.bigquery.write_failures import ensure_failure_table, failure_row
from sluice.transforms.core.batches import ATTEMPT_ATTRIBUTE
from sluice.transforms.core.beam_files import match_files, write_text
from sluice.transforms.core.failures import FIELDS, Failure, show_payload, to_json
from sluice.transforms.pubsub.clients import EMULATOR_VARIABLE
from sluice.transforms.pubsub.replay.failure_messages import FailureMessages
from sluice.transforms.pubsub.replay.final_sink import FinalFile
from tests.support.docs import fence, paste
from tests.support.fakes import PATIENCE_SECS
from tests.support.processes import Forked
from tests.support.pubsub.proxy import PubsubProxy
from tests.support.pubsub.service import TOPIC, aborts, refuses_poison, service
from tests.support.servers import BigQuery, Gcs, Pubsub

FAILURE = Failure("predict", "Unavailable", "gone", "s#message_id=1", b"{}", (("k", "v"),))


def failures(count: int, attempt: int = 1, **changes: Any) -> list[Failure]:
    return [dataclasses.replace(FAILURE, payload=b'{"n":%d}' % n, attempt=attempt, **changes) for n in range(count)]


def write(path: Path, *found: Failure, mode: str = "full") -> str:
    path.write_bytes(b"".join(to_json(each, mode) + b"\n" for each in found))
    return str(path)


def replay(source: str, topic: str, final: Path, *flags: str) -> int:
    return main(
        [
            "replay",
            "--failures",
            source,
            "--to",
            topic,
            "--final",
            str(final),
            "--progress=none",
            f"--idle_secs={PATIENCE_SECS}",  # a replay of a subscription ends by its --limit
            *flags,
        ]
    )


def numbers(pubsub: Pubsub, subscription: str, count: int) -> Counter[bytes]:
    """How often each message is there."""
    return Counter(each.message.data for each in pubsub.pull_all(subscription, count))


def is_empty(pubsub: Pubsub, subscription: str) -> bool:
    return not pubsub.pull_all(subscription, 1, secs=0.3)


@pytest.fixture
def topic(pubsub: Pubsub) -> str:
    return pubsub.make_topic()


@pytest.fixture
def out(pubsub: Pubsub, topic: str) -> str:
    """A subscription of the topic that failures are sent to."""
    return pubsub.make_subscription(topic)


@pytest.fixture
def dead(pubsub: Pubsub) -> str:
    """A topic of failures."""
    return pubsub.make_topic()


def test_a_file_is_sent(pubsub: Pubsub, topic: str, out: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = write(tmp_path / "f.jsonl", *failures(2500, attempt=2))
    assert replay(source, topic, tmp_path / "final.jsonl") == 0
    received = pubsub.pull_all(out, 2500)
    assert sorted(json.loads(each.message.data)["n"] for each in received) == list(range(2500))
    assert {tuple(sorted(each.message.attributes.items())) for each in received} == {
        (("k", "v"), (ATTEMPT_ATTRIBUTE, "3"))
    }
    shown = capsys.readouterr().err
    assert "Sent  2,500  to projects/" in shown and "Delete " in shown
    assert [path.name for path in tmp_path.iterdir()] == ["f.jsonl"], "nothing was final"


def test_the_loop_of_the_docs_as_pasted(
    pubsub: Pubsub,
    topic: str,
    out: str,
    cases: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """Export, edit, replay: of a file as older versions wrote it, with base64 only."""
    monkeypatch.chdir(tmp_path)
    message = "column 'age': int64 is expected, found 'NA'"
    rows = (b'{"age": "NA", "x": 12345678901234567890123}', b"age,x", b'{"age": 1}')
    made = [dataclasses.replace(FAILURE, payload=row, error_message=message) for row in rows]
    made[2] = dataclasses.replace(made[2], error_message="something else")
    records = [json.loads(to_json(each)) | {"payload": base64.b64encode(each.payload).decode()} for each in made]
    (tmp_path / "out").mkdir()
    with open("out/failed-1.jsonl", "w") as file:
        file.writelines(json.dumps({k: v for k, v in each.items() if k != "payload_text"}) + "\n" for each in records)
    block = fence("docs/streaming.md", "--export mend.jsonl").replace("projects/P/topics/messages", topic)
    block = block.replace("path/to/model", cases("picky"))
    for line in block.splitlines():
        paste(line)
    said = capsys.readouterr()
    assert "2 failures, 1 reason\n" in said.out and "2 failures are in mend.jsonl\n" in said.err
    assert re.search(r"Read +2 .*\nSent +1 .*\nNot set +1  neither JSON objects nor .*; in replay-final-", said.err)
    assert numbers(pubsub, out, 1) == {b'{"age": null, "x": 12345678901234567890123,"country":"DE"}': 1}
    (final,) = tmp_path.glob("replay-final-*.jsonl")
    assert json.loads(final.read_text())["payload_text"] == "age,x"


def test_a_subscription_is_sent_and_acknowledged(
    pubsub: Pubsub, topic: str, out: str, dead: str, tmp_path: Path
) -> None:
    source = pubsub.make_subscription(dead, ack_deadline_seconds=10)
    pubsub.publish(dead, [to_json(each) for each in failures(1500)])
    assert replay(source, topic, tmp_path / "final.jsonl", "--limit=1500") == 0
    assert numbers(pubsub, out, 1500) == {each.payload: 1 for each in failures(1500)}
    assert is_empty(pubsub, source)


def test_what_cannot_be_sent_goes_to_the_final_place(
    pubsub: Pubsub, topic: str, out: str, dead: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (good,), (tried,), (file,) = failures(1), failures(1, attempt=3), failures(1, stage="read")
    lines = [to_json(good), to_json(tried), to_json(file), to_json(good, "hash"), to_json(good, "none")]
    source = pubsub.make_subscription(dead)
    pubsub.publish(dead, lines)
    assert replay(source, topic, tmp_path / "final.jsonl", "--max_attempts=3", "--limit=5") == 0
    assert numbers(pubsub, out, 1) == {good.payload: 1}
    assert is_empty(pubsub, out) and is_empty(pubsub, source)
    assert sorted((tmp_path / "final.jsonl").read_bytes().splitlines()) == sorted(lines[1:])
    shown = capsys.readouterr().err
    assert "Tried too often  1" in shown and "Not replayable   3" in shown and "final.jsonl" in shown


def test_a_message_that_fails_every_time_ends_in_the_final_place(
    pubsub: Pubsub, topic: str, out: str, dead: str, tmp_path: Path
) -> None:
    """What a streaming job does with a poison message is done by hand here; a replay does not run away with it."""
    source = pubsub.make_subscription(dead)
    pubsub.publish(dead, [to_json(FAILURE)])
    final = tmp_path / "final.jsonl"
    for attempt in (2, 3, 4):
        assert replay(source, topic, final, "--max_attempts=4", "--limit=1") == 0
        (again,) = pubsub.pull_all(out, 1)
        assert again.message.attributes[ATTEMPT_ATTRIBUTE] == str(attempt)
        pubsub.publish(dead, [to_json(dataclasses.replace(FAILURE, attempt=attempt))])
    assert not final.exists()
    assert replay(source, topic, final, "--max_attempts=4", "--limit=1") == 0
    assert json.loads(final.read_text())["attempt"] == 4
    assert is_empty(pubsub, source) and is_empty(pubsub, out)


def test_only_the_failures_that_are_asked_for(pubsub: Pubsub, topic: str, out: str, dead: str, tmp_path: Path) -> None:
    source = pubsub.make_subscription(dead)
    wanted = failures(3, error_type="TimedOut")
    left = [*failures(2), *failures(2, stage="decode", error_type="TimedOut")]
    pubsub.publish(dead, [to_json(each) for each in left + wanted])
    flags = ("--stages=predict,write", "--error_types=TimedOut", "--limit=3")
    assert replay(source, topic, tmp_path / "final.jsonl", *flags) == 0
    assert numbers(pubsub, out, 3) == {each.payload: 1 for each in wanted}
    assert numbers(pubsub, source, 4) == Counter(map(to_json, left)), "they are there again at once"


def test_a_dry_run_changes_nothing(
    pubsub: Pubsub, topic: str, out: str, dead: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = pubsub.make_subscription(dead)
    pubsub.publish(dead, [to_json(each) for each in [*failures(3), *failures(2, attempt=5)]])
    assert replay(source, topic, tmp_path / "final.jsonl", "--dry_run", "--limit=5") == 0
    shown = capsys.readouterr().err
    assert "Would be sent    3" in shown and "Tried too often  2" in shown
    assert is_empty(pubsub, out) and list(tmp_path.iterdir()) == []
    assert sum(numbers(pubsub, source, 5).values()) == 5


def test_a_subscription_that_is_empty_ends_it(pubsub: Pubsub, topic: str, out: str, dead: str, tmp_path: Path) -> None:
    source = pubsub.make_subscription(dead)
    assert replay(source, topic, tmp_path / "final.jsonl", "--idle_secs=0.5") == 0
    assert is_empty(pubsub, out) and list(tmp_path.iterdir()) == []


def test_a_limit(pubsub: Pubsub, topic: str, out: str, dead: str, tmp_path: Path) -> None:
    source = pubsub.make_subscription(dead)
    pubsub.publish(dead, [to_json(each) for each in failures(10)])
    assert replay(source, topic, tmp_path / "final.jsonl", "--limit=4") == 0
    sent = numbers(pubsub, out, 4)
    left = numbers(pubsub, source, 6)
    assert sum(sent.values()) == 4 and sum(left.values()) == 6
    assert {json.loads(each)["payload_text"].encode() for each in left}.isdisjoint(sent)


def test_a_message_that_the_topic_does_not_take_is_final(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bad = dataclasses.replace(FAILURE, payload=b"poison")
    source = write(tmp_path / "f.jsonl", *failures(3), bad, *failures(3))
    with service(refuses_poison) as server:
        assert replay(source, TOPIC, tmp_path / "final.jsonl") == 0
    assert server.data == sorted(each.payload for each in 2 * failures(3))
    assert (tmp_path / "final.jsonl").read_bytes() == to_json(bad) + b"\n"
    assert "Refused  1" in capsys.readouterr().err


def test_a_topic_that_takes_nothing_fails_the_replay(
    pubsub: Pubsub, dead: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with service(aborts("PERMISSION_DENIED")):
        source = write(tmp_path / "f.jsonl", *failures(3), *failures(3, attempt=9))
        assert replay(source, TOPIC, tmp_path / "final.jsonl") == 1
    shown = capsys.readouterr().err
    assert "Sent  0" in shown and "roles/pubsub.publisher" in shown and "Delete" not in shown
    assert [path.name for path in tmp_path.iterdir()] == ["f.jsonl"], "what is final is written with the rest"


def test_an_interrupt_ends_it_with_what_was_done(
    pubsub: Pubsub, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FinalFile, "write", interrupt)
    assert replay(write(tmp_path / "f.jsonl", FAILURE), topic, tmp_path / "final.jsonl") == 130
    assert (
        "interrupted; failures that were not sent or written yet are still where they were" in capsys.readouterr().err
    )


def test_files_on_gcs(gcs: Gcs, pubsub: Pubsub, topic: str, out: str) -> None:
    lines = [to_json(each).decode() for each in [*failures(3), *failures(2, attempt=9)]]
    write_text(gcs.path("replay/in/f.jsonl"), "\n".join(lines) + "\n")
    flags = ["--to", topic, "--final", gcs.path("replay/final/f.jsonl"), "--progress=none"]
    assert main(["replay", "--failures", gcs.path("replay/in/*.jsonl"), *flags]) == 0
    assert sum(numbers(pubsub, out, 3).values()) == 3
    (final,) = match_files(gcs.path("replay/final/*"))
    assert final.size_in_bytes == len("\n".join(lines[3:])) + 1


def test_a_damaged_file_fails_the_replay_after_the_others(
    pubsub: Pubsub, topic: str, out: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    packed = gzip.compress(b"".join(to_json(each) + b"\n" for each in failures(9)))
    (tmp_path / "a.jsonl.gz").write_bytes(packed[:-9])
    write(tmp_path / "b.jsonl", *failures(5))
    assert replay(f"{tmp_path}/*", topic, tmp_path / "final" / "f.jsonl") == 1
    received = pubsub.pull_all(out, 5)  # of b.jsonl, or some of those that can be read of the other
    assert len(received) == 5
    assert "a.jsonl.gz cannot be read on" in capsys.readouterr().err


def test_what_does_not_fit_is_refused_before_anything_is_sent(
    pubsub: Pubsub, topic: str, out: str, dead: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = write(tmp_path / "f.jsonl", FAILURE)
    (tmp_path / "there.jsonl").write_text("")
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    final = tmp_path / "final.jsonl"
    cases: list[tuple[Any, str]] = [
        ((source, "my-topic", final), "projects/P/topics/T"),
        ((source, pubsub.topic("none"), final), "does not exist"),
        ((pubsub.subscription("none"), topic, final), "does not exist"),
        ((dead, topic, final), "a subscription is projects/P/subscriptions/S"),
        ((out, topic, final), "what is sent would come back"),
        ((f"{tmp_path}/none-*", topic, final), "no file matches"),
        ((f"{tmp_path}/rows.csv", topic, final), "is not a file of failures"),
        ((source, topic, tmp_path / "there.jsonl"), "exists"),
        ((source, topic, tmp_path / "f.jsonl" / "x"), "cannot be written"),
        ((source, topic, final, "--stages=score"), "--stages score"),
        ((source, topic, final, "--max_attempts=0"), "--max_attempts"),
    ]
    for arguments, text in cases:
        assert replay(*arguments) == 2
        assert text in capsys.readouterr().err
    assert is_empty(pubsub, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.jsonl", "rows.csv", "there.jsonl"]


def test_the_subscription_of_something_else_is_left_alone(
    pubsub: Pubsub, topic: str, out: str, dead: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = pubsub.make_subscription(dead)
    pubsub.publish(dead, [b'{"x": 1}'] * 3)
    assert replay(source, topic, tmp_path / "final.jsonl") == 2
    assert "holds something else than failures" in capsys.readouterr().err
    assert is_empty(pubsub, out)
    assert sum(numbers(pubsub, source, 3).values()) == 3


def replay_and_die(where: str, arguments: list[str]) -> int:
    """Replays, and is killed once the first messages are sent and not yet acknowledged, or written."""

    def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if where == "settle":
        FailureMessages.settle = die  # type: ignore[method-assign]
    else:
        FinalFile.write = die  # type: ignore[method-assign]
    return main(["replay", *arguments, "--progress=none"])


def test_killed_half_way_loses_nothing(pubsub: Pubsub, tmp_path: Path) -> None:
    good, tried = failures(50), failures(20, attempt=5, origin="tried")
    runs, killed = [], []
    proxy = PubsubProxy(pubsub)
    through_it = os.environ | {EMULATOR_VARIABLE: proxy.host}
    for where in ("settle", "final"):
        topic, dead = pubsub.make_topic(), pubsub.make_topic()
        out, source = pubsub.make_subscription(topic), pubsub.make_subscription(dead, ack_deadline_seconds=10)
        pubsub.publish(dead, [to_json(each) for each in good + tried])
        flags = ["--failures", source, "--to", topic, "--final", f"{tmp_path}/killed-{where}.jsonl"]
        killed.append(Forked(replay_and_die, where, flags, environment=through_it))
        runs.append((source, topic, out, tmp_path / f"{where}.jsonl"))
    assert [each.wait() for each in killed] == [-signal.SIGKILL] * 2
    for source, *_ in runs:
        proxy.give_back(source)
    proxy.close()
    for source, topic, out, final in runs:
        assert replay(source, topic, final, "--limit=70") == 0
        assert set(numbers(pubsub, out, 100)) == {each.payload for each in good}
        assert sorted(final.read_bytes().splitlines()) == sorted(map(to_json, tried))
        assert is_empty(pubsub, source)


# Tables --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(bigquery: BigQuery) -> str:
    name = f"{bigquery.make_dataset()}.failed"
    ensure_failure_table(name)
    return name


def test_a_table_is_sent_with_payloads_that_are_files(
    bigquery: BigQuery,
    pubsub: Pubsub,
    topic: str,
    out: str,
    table: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(write_failures, "MAX_ROW_BYTES", 1_000)
    small, large, lost = (
        dataclasses.replace(FAILURE, payload=payload, attempt=2) for payload in (b"\xff", b"l" * 2_000, b"m" * 2_000)
    )
    cut, hidden = (dataclasses.replace(FAILURE, payload=payload) for payload in (b"c" * 2_000, b"secret"))
    rows = [failure_row(each, payload_dir=str(tmp_path / "payloads")) for each in (small, large, lost)]
    rows += [failure_row(cut), failure_row(hidden, "hash"), failure_row(hidden, "none")]
    assert bigquery.client.insert_rows_json(table, rows) == []
    (tmp_path / "payloads" / hashlib.sha256(lost.payload).hexdigest()).unlink()
    final = tmp_path / "final.jsonl"
    source = ["replay", "--failures_table", table, "--to", topic, "--final", str(final), "--progress=none"]
    assert main(source) == 0
    received = pubsub.pull_all(out, 2)
    assert sorted(each.message.data for each in received) == [b"l" * 2_000, b"\xff"]
    assert {tuple(sorted(each.message.attributes.items())) for each in received} == {
        (("k", "v"), (ATTEMPT_ATTRIBUTE, "3"))
    }
    assert is_empty(pubsub, out)
    records = [json.loads(line) for line in final.read_text().splitlines()]
    shown = {record["payload"] for record in records}
    assert len(records) == 4
    assert {show_payload(cut.payload, "hash"), show_payload(hidden.payload, "hash"), None} < shown
    assert records[0].keys() == set(FIELDS)
    assert re.search("Not replayable +4 ", capsys.readouterr().err)


def test_rows_of_a_table_are_chosen(
    bigquery: BigQuery, pubsub: Pubsub, topic: str, out: str, table: str, tmp_path: Path
) -> None:
    rows = [failure_row(dataclasses.replace(each, timestamp=1e9 + n)) for n, each in enumerate(failures(4))]
    assert bigquery.client.insert_rows_json(table, rows) == []
    source = ["replay", "--failures_table", table, "--to", topic, "--final", str(tmp_path / "f"), "--progress=none"]
    assert main([*source, "--row_restriction", "timestamp > TIMESTAMP '2001-09-09 01:46:41'"]) == 0
    assert numbers(pubsub, out, 2) == {b'{"n":2}': 1, b'{"n":3}': 1}
    assert is_empty(pubsub, out)


def test_another_table_is_refused(bigquery: BigQuery, topic: str, capsys: pytest.CaptureFixture) -> None:
    other = bigquery.make_table([{"name": "x", "type": "INTEGER"}])
    assert main(["replay", "--failures_table", other, "--to", topic]) == 2
    assert "is not a table of failures: it has no column 'timestamp'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ([], "either --failures or --failures_table"),
        (["--failures", "f.jsonl", "--failures_table", "p.d.t"], "either --failures or --failures_table"),
        (["--failures", "f.jsonl", "--row_restriction", "x"], "--row_restriction applies to --failures_table"),
    ],
)
def test_there_is_one_source(flags: list[str], problem: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["replay", *flags, "--to", "projects/p/topics/t"]) == 2
    assert problem in capsys.readouterr().err
