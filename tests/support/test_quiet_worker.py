"""What a worker tells of its tests."""

from typing import Any

import pytest

from tests.support.quiet_worker import _less


def report(when: str, outcome: str) -> dict[str, Any]:
    return {"data": {"when": when, "outcome": outcome, "keywords": {"test": 1}}}


@pytest.mark.parametrize(
    ("name", "arguments", "is_sent"),
    [
        ("logstart", {"nodeid": "test"}, False),
        ("testreport", report("setup", "passed"), False),
        ("testreport", report("setup", "skipped"), True),
        ("testreport", report("setup", "failed"), True),
        ("testreport", report("call", "passed"), True),
        ("testreport", report("call", "failed"), True),
        ("testreport", report("teardown", "failed"), True),
        ("testreport", report("teardown", "passed"), False),
        ("logfinish", {"nodeid": "test"}, False),
        ("runtest_protocol_complete", {"item_index": 1}, True),
        ("workerfinished", {}, True),
    ],
)
def test_failures_and_results_are_sent(name: str, arguments: dict[str, Any], is_sent: bool) -> None:
    sent: list[str] = []
    _less(lambda name, **arguments: sent.append(name))(name, **arguments)
    assert sent == [name] * is_sent
