"""Feeds failures back to the topic that a streaming job reads, until they have been tried often enough.

A failure that is sent has an attribute with the number of its next attempt; if it fails again, the streaming job writes
that number into the new failure. A failure that has been tried often enough, or cannot be sent, goes to a final sink.
"""

import collections
import dataclasses
import itertools
import logging
from collections.abc import Iterator, Mapping

import numpy as np

from sluice.models.errors import SluiceError
from sluice.transforms.core.batches import ATTEMPT_ATTRIBUTE
from sluice.transforms.core.beam_files import is_file_error
from sluice.transforms.core.payload_files import load_payload
from sluice.transforms.pubsub.message_attributes import is_carried
from sluice.transforms.pubsub.publish import Messages, Publisher
from sluice.transforms.pubsub.replay.final_sink import FinalSink
from sluice.transforms.pubsub.replay.set_columns import set_columns
from sluice.transforms.pubsub.replay.stored_failure import FailureSource, StoredFailure

_LOG = logging.getLogger(__name__)

# The fates of a failure.
SENT, TRIED, ABSENT, REFUSED, SKIPPED = "sent", "tried", "absent", "refused", "skipped"
# It is no message in which a column could be set.
UNSET = "unset"
READ = "read"

# More bytes than the tags and lengths of a message's fields, and of an attribute's, take in a request.
_MESSAGE_BYTES, _ATTRIBUTE_BYTES = 64, 16


@dataclasses.dataclass(frozen=True)
class ReplayRules:
    """Which failures are fed back.

    Attributes:
      max_attempts: a failure that has been tried this often is not sent.
      stages, error_types: failures of others are left where they are; (): no failure is left.
      changes: JSON texts, by column: what a message has there instead before it is sent.
      floats: those of these columns that hold floats.
      limit: the replay ends after this many failures that are not left; 0: no limit.
    """

    max_attempts: int
    stages: tuple[str, ...] = ()
    error_types: tuple[str, ...] = ()
    limit: int = 0
    changes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    floats: frozenset[str] = frozenset()

    def fate(self, failure: StoredFailure) -> str:
        """Returns SENT, TRIED, ABSENT or SKIPPED."""
        for wanted, found in ((self.stages, failure.stage), (self.error_types, failure.error_type)):
            if wanted and found not in wanted:
                return SKIPPED
        if failure.payload is None:
            return ABSENT
        return TRIED if failure.attempt >= self.max_attempts else SENT

    def changed(self, failure: StoredFailure) -> StoredFailure | None:
        """Returns a failure with `changes` in its payload; None if that cannot have them: see `set_columns`."""
        if not self.changes:
            return failure
        payload = set_columns(failure.payload or b"", self.changes, self.floats)
        return None if payload is None else dataclasses.replace(failure, payload=payload)


def attributes_of(failure: StoredFailure) -> dict[str, str]:
    """Returns the attributes of the message that feeds a failure back."""
    kept = {name: value for name, value in failure.attributes.items() if is_carried(name)}
    return kept | {ATTEMPT_ATTRIBUTE: str(failure.attempt + 1)}


def replay(
    source: FailureSource,
    publisher: Publisher[StoredFailure] | None,
    final: FinalSink | None,
    rules: ReplayRules,
    counts: "collections.Counter[str]",
) -> None:
    """Feeds failures back, chunk by chunk; settles those of a chunk once they are sent or written.

    Args:
      publisher, final: None: nothing is sent, written or settled.
      counts: counts READ and each fate while this runs.

    Raises:
      SluiceError: failures could not be read, published or acknowledged.
      OSError: the final sink could not be written.
    """
    for chunk in itertools.chain.from_iterable(map(_portions, source.chunks())):
        fates = _sort(chunk, rules, counts)
        if publisher is not None and final is not None:
            fates[REFUSED] = _publish(fates[SENT], publisher)
            refused = set(map(id, fates[REFUSED]))
            fates[SENT] = [failure for failure in fates[SENT] if id(failure) not in refused]
            final.write([*fates[TRIED], *fates[ABSENT], *fates[UNSET], *fates[REFUSED]])
            source.settle([failure for each in fates.values() for failure in each])
        counts.update({fate: len(each) for fate, each in fates.items()})
        if _is_over(rules, counts):
            return


def _portions(chunk: list[StoredFailure]) -> Iterator[list[StoredFailure]]:
    """Yields a chunk's failures with their payloads; one by one where the payload is a large file."""
    held = [failure for failure in chunk if not failure.payload_uri]
    if held:
        yield held
    for failure in chunk:
        if failure.payload_uri:
            yield [_loaded(failure)]


def _loaded(failure: StoredFailure) -> StoredFailure:
    """Returns a failure with its payload; without one if the file has gone.

    Raises:
      SluiceError: the file cannot be read now.
    """
    try:
        return dataclasses.replace(failure, payload=load_payload(failure.payload_uri))
    except Exception as error:
        if not is_file_error(error):
            raise SluiceError(f"{failure.payload_uri} cannot be read: {error}") from error
        _LOG.warning("A failure's payload is lost: %s: %s", failure.payload_uri, error)
        return dataclasses.replace(failure, payload=None)


def _sort(
    chunk: list[StoredFailure], rules: ReplayRules, counts: "collections.Counter[str]"
) -> dict[str, list[StoredFailure]]:
    """Returns the failures of a chunk by fate, up to the limit; counts those that are read and skipped."""
    fates: dict[str, list[StoredFailure]] = {fate: [] for fate in (SENT, TRIED, ABSENT, UNSET, REFUSED)}
    for failure in chunk:
        if _is_over(rules, counts):
            break
        counts[READ] += 1
        fate = rules.fate(failure)
        if fate == SKIPPED:
            counts[SKIPPED] += 1
            continue
        changed = rules.changed(failure) if fate == SENT else failure
        fates[fate if changed else UNSET].append(changed or failure)
    return fates


def _is_over(rules: ReplayRules, counts: "collections.Counter[str]") -> bool:
    return bool(rules.limit) and counts[READ] - counts[SKIPPED] >= rules.limit


def _publish(failures: list[StoredFailure], publisher: Publisher[StoredFailure]) -> list[StoredFailure]:
    """Publishes failures; returns those that the service rejects, when all others are published."""
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
