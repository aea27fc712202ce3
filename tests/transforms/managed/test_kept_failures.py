"""Failures kept between two jobs."""

import io

from sluice.models.wording import Message, message
from sluice.transforms.core.failures import Failure, to_record
from sluice.transforms.managed.kept_failures import KeptFormat, read_failures

FAILURES = [
    Failure(
        "decode", "InvalidRow", message("'{}' is no {kind}", "secret", kind="int64"), "a.csv#byte=9", b"\xff\x00,1"
    ),
    Failure("read", "EOFError", "plain text", "b.csv", timestamp=1.25),
    Failure("bind", "InvalidRow", "ä", "m", b"{}", (("name", "value"),), "model", 3, 2),
]


def test_failures_come_back_whole() -> None:
    file = io.BytesIO()
    writer = KeptFormat().open(file)
    assert [writer.write(failure) for failure in FAILURES] == [1, 1, 1]
    writer.close()
    file.seek(0)
    found = list(read_failures(file))
    assert found == FAILURES
    assert isinstance(found[0].error_message, Message)
    for failure, kept in zip(FAILURES, found, strict=True):
        for mode in ("full", "hash", "none"):  # the public text is kept, and a text without one is withheld still
            assert to_record(kept, mode) == to_record(failure, mode)
