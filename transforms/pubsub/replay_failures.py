"""Failures fed back to the topic that a streaming job reads, until they have been tried often enough.

A failure that is sent carries how often it will have been tried in an attribute, which the streaming job writes into a
new failure of it. One that has been tried often enough, or cannot be sent, goes to a final place.
"""

import collections
import dataclasses
import datetime
import logging
import os
from collections.abc import Sequence
from typing import BinaryIO, Protocol

import numpy as np

from sluice.models.errors import UsageError
from sluice.transforms.core.batches import ATTEMPT_ATTRIBUTE
from sluice.transforms.core.beam_files import delete_files
from sluice.transforms.files.write_stream import StreamTarget, check_stream_target, open_file, rename_finished
from sluice.transforms.pubsub.message_attributes import is_carried
from sluice.transforms.pubsub.publish import Messages, Publisher
from sluice.transforms.pubsub.read_failures import FailureSource, StoredFailure

_LOG = logging.getLogger(__name__)

# What becomes of a failure.
SENT, TRIED, ABSENT, REFUSED, SKIPPED = "sent", "tried", "absent", "refused", "skipped"
READ = "read"

_SUFFIX = ".jsonl"
# More than the tags and lengths of a message's fields, and of an attribute's, take in a request.
_MESSAGE_BYTES, _ATTRIBUTE_BYTES = 64, 16


@dataclasses.dataclass(frozen=True)
class ReplayRules:
    """Which failures are fed back.

    Attributes:
      max_attempts: one that has been tried so often is not.
      stages, error_types: others are left where they are; (): none are.
      limit: it ends after so many that are not left; 0: never.
    """

    max_attempts: int
    stages: tuple[str, ...] = ()
    error_types: tuple[str, ...] = ()
    limit: int = 0

    def fate(self, failure: StoredFailure) -> str:
        """Returns SENT, TRIED, ABSENT or SKIPPED."""
        for wanted, found in ((self.stages, failure.stage), (self.error_types, failure.error_type)):
            if wanted and found not in wanted:
                return SKIPPED
        if failure.payload is None:
            return ABSENT
        return TRIED if failure.attempt >= self.max_attempts else SENT


def attributes_of(failure: StoredFailure) -> dict[str, str]:
    """Returns the attributes of the message that feeds a failure back."""
    kept = {name: value for name, value in failure.attributes.items() if is_carried(name)}
    return kept | {ATTEMPT_ATTRIBUTE: str(failure.attempt + 1)}


class FinalSink(Protocol):
    """Where failures go that are not sent."""

    def write(self, failures: Sequence[StoredFailure]) -> None:
        """Returns when they would outlive a crash."""

    def close(self) -> None:
        """Completes it; nothing is left of a place that was not used."""

    @property
    def name(self) -> str: ...


def open_final_sink(path: str, now: datetime.datetime) -> FinalSink:
    """Returns a place that has been found writable.

    Args:
      path: a local file, or an object's name; "": a file in the current directory, named after the time.

    Raises:
      UsageError: it exists, or cannot be written.
    """
    if path.endswith(".gz"):
        raise UsageError(f"--final {path}: it is not written packed; give it a name without .gz")
    if "://" in path:
        return FinalObjects(path.removesuffix(_SUFFIX))
    return FinalFile(path or f"replay-final-{now:%Y%m%dT%H%M%SZ}{_SUFFIX}")


class FinalFile:
    """One local file, to which each chunk is added."""

    def __init__(self, path: str) -> None:
        self.name = path
        if os.path.lexists(path):
            raise UsageError(f"--final {path} exists; give it another name")
        try:
            os.makedirs(os.path.dirname(path) or os.curdir, exist_ok=True)
            self._file: BinaryIO = open(path, "xb")  # noqa: SIM115
        except OSError as error:
            raise UsageError(f"--final {path} cannot be written: {error.strerror}") from error

    def write(self, failures: Sequence[StoredFailure]) -> None:
        if failures:
            self._file.write(_lines(failures))
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        unused = not self._file.tell()
        self._file.close()
        if unused:
            delete_files([self.name])


class FinalObjects:
    """An object for each chunk, named as those of a stream: what is written of an object cannot be added to."""

    def __init__(self, prefix: str) -> None:
        check_stream_target(prefix, _SUFFIX)
        self._target = StreamTarget(prefix, _SUFFIX)
        self.name = f"{prefix}-*{_SUFFIX}"

    def write(self, failures: Sequence[StoredFailure]) -> None:
        if failures:
            file, name = open_file(self._target, _Plain())
            file.write(_lines(failures))
            file.close()
            rename_finished(file.path, name)

    def close(self) -> None:
        pass


class _Plain:
    """Bytes as they are. See transforms.files.write.Format."""

    def open(self, file: BinaryIO) -> "_Plain":
        self._file = file
        return self

    def write(self, data: bytes) -> int:
        self._file.write(data)
        return 1

    def close(self) -> None:
        pass


def _lines(failures: Sequence[StoredFailure]) -> bytes:
    return b"".join(failure.text + b"\n" for failure in failures)


def replay(
    source: FailureSource,
    publisher: Publisher[StoredFailure] | None,
    final: FinalSink | None,
    rules: ReplayRules,
    counts: "collections.Counter[str]",
) -> None:
    """Feeds failures back, chunk by chunk: a source is told that they are settled when they are sent or written.

    Args:
      publisher, final: None: nothing is sent, written or settled.
      counts: is added to while this runs: READ, and by what becomes of the failures.

    Raises:
      SluiceError: failures could not be read, published or acknowledged.
      OSError: the final place could not be written.
    """
    for chunk in source.chunks():
        fates: dict[str, list[StoredFailure]] = {fate: [] for fate in (SENT, TRIED, ABSENT, REFUSED)}
        for failure in chunk:
            if rules.limit and counts[READ] - counts[SKIPPED] >= rules.limit:
                break
            counts[READ] += 1
            fate = rules.fate(failure)
            if fate == SKIPPED:
                counts[SKIPPED] += 1
            else:
                fates[fate].append(failure)
        if publisher is not None and final is not None:
            fates[REFUSED] = _publish(fates[SENT], publisher)
            refused = set(map(id, fates[REFUSED]))
            fates[SENT] = [failure for failure in fates[SENT] if id(failure) not in refused]
            final.write([*fates[TRIED], *fates[ABSENT], *fates[REFUSED]])
            source.settle([failure for each in fates.values() for failure in each])
        counts.update({fate: len(each) for fate, each in fates.items()})
        if rules.limit and counts[READ] - counts[SKIPPED] >= rules.limit:
            return


def _publish(failures: list[StoredFailure], publisher: Publisher[StoredFailure]) -> list[StoredFailure]:
    """Returns when all are published, with those that the service does not take."""
    if not failures:
        return []
    data = [failure.payload or b"" for failure in failures]
    attributes = [attributes_of(failure) for failure in failures]
    sizes = [_size(*each) for each in zip(data, attributes, strict=True)]
    publisher.add(Messages(data, attributes, np.array(sizes, np.int64)), failures)
    refused = publisher.flush()
    for each in refused:
        _LOG.warning("A failure is not sent: %s", each.message)
    return [each.tag for each in refused]


def _size(data: bytes, attributes: dict[str, str]) -> int:
    texts = sum(len(name.encode()) + len(value.encode()) + _ATTRIBUTE_BYTES for name, value in attributes.items())
    return _MESSAGE_BYTES + len(data) + texts
