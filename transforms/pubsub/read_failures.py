"""Failures as they were written, for `sluice replay`: from files of JSON Lines, or from a Pub/Sub subscription.

Either source gives them in chunks, and is told which of them need not come again.
"""

import base64
import binascii
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import orjson
from google.api_core.exceptions import Cancelled, DeadlineExceeded, GoogleAPIError, NotFound, PermissionDenied
from google.auth.exceptions import GoogleAuthError
from google.pubsub_v1.types import PullResponse

from sluice.models.errors import CorruptFile, SluiceError, UsageError
from sluice.transforms.core.beam_files import match_files, open_text
from sluice.transforms.core.failures import READ, TOO_MANY_DELIVERIES, Failure, to_json
from sluice.transforms.decode.lines import read_blocks
from sluice.transforms.files.ranges import DAMAGE
from sluice.transforms.pubsub import clients as pubsub_clients

_LOG = logging.getLogger(__name__)

# What `transforms.core.failures.to_record` puts before the hash of a payload that is private.
_HASHED = "sha256:"
# The most that one request may pull, and that one may acknowledge with its ids below 512 KB.
# https://cloud.google.com/pubsub/quotas#resource_limits
_MAX_MESSAGES = 1000
_CALL_SECS = 20.0


@dataclasses.dataclass(frozen=True)
class StoredFailure:
    """A failure that was written.

    Attributes:
      text: its JSON object, on one line.
      payload: None where it was not kept (--failure_payload), or where the failure is of a file and not of a row.
      message_id: of the message that it came in; "" from a file.
    """

    text: bytes
    stage: str
    error_type: str
    payload: bytes | None
    attributes: dict[str, str]
    attempt: int
    message_id: str = ""


def parse_failure(text: bytes, message_id: str = "") -> StoredFailure:
    """Returns a failure as `transforms.core.failures.to_json` wrote it.

    Raises:
      SluiceError: it is not one.
    """
    try:
        record = orjson.loads(text)
        payload = _payload(record["stage"], record.get("error_type"), record["payload"])
        attributes, attempt = dict(record.get("attributes") or {}), record.get("attempt", 1)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SluiceError(f"{_shown(text)} is not a failure: {type(error).__name__}: {error}") from error
    names = (record["stage"], record.get("error_type", ""), *attributes, *attributes.values())
    if not all(isinstance(name, str) for name in names) or not isinstance(attempt, int):
        raise SluiceError(f"{_shown(text)} is not a failure: its fields are not of a failure's types")
    return StoredFailure(
        orjson.dumps(record), record["stage"], record.get("error_type", ""), payload, attributes, attempt, message_id
    )


def _payload(stage: str, error_type: str | None, shown: str | None) -> bytes | None:
    is_row = stage != READ or error_type == TOO_MANY_DELIVERIES  # other failures to read are of files
    if shown is None or not is_row or shown.startswith(_HASHED):
        return None
    try:
        return base64.b64decode(shown, validate=True)
    except binascii.Error as error:
        raise ValueError(f"its payload is not base64: {error}") from error


def _shown(text: bytes) -> str:
    return repr(text[:40])[1:] + ("..." if len(text) > 40 else "")


class FailureSource(Protocol):
    """Where failures are read."""

    def chunks(self) -> Iterator[list[StoredFailure]]:
        """Yields failures, at most some MB of them at a time."""

    def settle(self, failures: Sequence[StoredFailure]) -> None:
        """Is told that these are published, or written elsewhere: they need not come again."""

    def close(self) -> None:
        """Gives back what is not settled."""


class FailureFiles:
    """Files of JSON Lines, which stay as they are.

    A line that is no failure comes as a failure of the file, with the line for its payload.

    Attributes:
      size: bytes.
      damaged: why files could not be read to their end.

    Raises:
      UsageError: no file matches, or what does holds something else.
    """

    def __init__(self, pattern: str) -> None:
        try:
            files = match_files(pattern)
        except OSError as error:
            raise UsageError(f"--failures {error}") from error
        if not files:
            raise UsageError(f"--failures {pattern}: no file matches")
        self.paths = [file.path for file in files]
        self.size = sum(file.size_in_bytes for file in files)
        self.damaged: list[str] = []
        self._check_first()

    def chunks(self) -> Iterator[list[StoredFailure]]:
        for path in self.paths:
            try:
                for block in _blocks(path):
                    yield [_parse_line(line, f"{path}#byte={at}") for at, line in block]
            except (OSError, *DAMAGE) as error:
                self.damaged.append(f"{path} cannot be read on: {type(error).__name__}: {error}")

    def settle(self, failures: Sequence[StoredFailure]) -> None:
        pass

    def close(self) -> None:
        pass

    def _check_first(self) -> None:
        """One line tells a file of something else, before any of it is sent."""
        for path in self.paths:
            try:
                first = next(iter(_blocks(path)), [])
            except (OSError, *DAMAGE) as error:
                raise UsageError(f"--failures {path} cannot be read: {type(error).__name__}: {error}") from error
            if first:
                try:
                    parse_failure(first[0][1])
                except SluiceError as error:
                    raise UsageError(f"--failures {path} is not a file of failures as JSON Lines: {error}") from error
                return


def _blocks(path: str) -> Iterator[list[tuple[int, bytes]]]:
    """Yields the lines of a file that are not blank, each with its place."""
    with open_text(path) as file:
        for block in read_blocks(file):
            lines = [(at, block.line(number)) for number, at in enumerate(block.positions.tolist())]
            if full := [(at, line) for at, line in lines if line.strip()]:
                yield full


def _parse_line(line: bytes, origin: str) -> StoredFailure:
    try:
        return parse_failure(line)
    except SluiceError as error:
        return parse_failure(to_json(Failure(READ, CorruptFile.__name__, str(error), origin, line)))


class FailureMessages:
    """A subscription of the topic that `--failures_topic` published to.

    Args:
      client: google.pubsub_v1.SubscriberClient.
      until_us: microseconds since the epoch: what was published later is left for another time, so that failures of
        what is fed back do not come round and round.
      idle_secs: it ends when nothing has come for so long.
      clock: seconds, monotonic.

    Attributes:
      newer: how many messages were left for that reason.
      strangers: how many messages were no failures, and were left.
    """

    def __init__(
        self,
        client: Any,
        subscription: str,
        until_us: int,
        idle_secs: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._name = subscription
        self._until_us = until_us
        self._idle_secs = idle_secs
        self._clock = clock
        self._held: dict[str, str] = {}  # message ids to the latest ids for acknowledging them
        self._settled: set[str] = set()
        self._found = False  # a failure
        self.newer = self.strangers = 0

    def chunks(self) -> Iterator[list[StoredFailure]]:
        """
        Raises:
          UsageError: the first message is no failure: it is another's subscription.
          SluiceError: Pub/Sub does not answer.
        """
        last = self._clock()
        while (left_secs := self._idle_secs - (self._clock() - last)) > 0:
            failures = list(self._new_failures(left_secs))
            if failures:
                yield failures
                last = self._clock()

    def settle(self, failures: Sequence[StoredFailure]) -> None:
        self._settled.update(failure.message_id for failure in failures)
        self._acknowledge([self._held.pop(failure.message_id) for failure in failures])

    def close(self) -> None:
        """Gives back what is held, so that it comes again at once, and closes the connection."""
        ids, self._held = list(self._held.values()), {}
        try:
            for start in range(0, len(ids), _MAX_MESSAGES):
                part = ids[start : start + _MAX_MESSAGES]
                self._call("modify_ack_deadline", ack_ids=part, ack_deadline_seconds=0)
        except SluiceError as error:
            _LOG.debug("What is left comes again only when its deadline is over: %s", error)
        pubsub_clients.close(self._client)

    def _new_failures(self, secs: float) -> Iterator[StoredFailure]:
        new, again = [], []
        for received in self._pull(secs):
            message = received.message
            if message.message_id in self._settled:  # its acknowledgement came too late, or was lost
                again.append(received.ack_id)
            else:
                new += [] if message.message_id in self._held else [message]
                self._held[message.message_id] = received.ack_id
        self._acknowledge(again)
        for message in new:
            if message.publish_time.ToMicroseconds() > self._until_us:
                self.newer += 1
                continue
            try:
                failure = parse_failure(message.data, message.message_id)
            except SluiceError as error:
                if not self._found:
                    raise UsageError(f"--failures {self._name} holds something else than failures: {error}") from error
                self.strangers += 1
            else:
                self._found = True
                yield failure

    def _pull(self, secs: float) -> Sequence[Any]:
        try:
            response = self._client.pull(
                subscription=self._name, max_messages=_MAX_MESSAGES, timeout=min(secs, _CALL_SECS)
            )
        except (DeadlineExceeded, Cancelled):  # a call that is cut off can end as a reset of its stream
            return []
        except GoogleAPIError as error:
            raise SluiceError(f"{self._name} cannot be read: {type(error).__name__}: {error}") from error
        return list(PullResponse.pb(response).received_messages)

    def _acknowledge(self, ack_ids: list[str]) -> None:
        for start in range(0, len(ack_ids), _MAX_MESSAGES):
            self._call("acknowledge", ack_ids=ack_ids[start : start + _MAX_MESSAGES])

    def _call(self, name: str, **arguments: Any) -> None:
        try:
            getattr(self._client, name)(request={"subscription": self._name, **arguments}, timeout=_CALL_SECS)
        except GoogleAPIError as error:
            raise SluiceError(f"{self._name}: {name}: {type(error).__name__}: {error}") from error


def open_messages(subscription: str, topic: str, idle_secs: float) -> FailureMessages:
    """Returns the failures of a subscription that were published before now.

    Args:
      topic: where they will be sent.

    Raises:
      UsageError: there is no such subscription, it cannot be looked up, or it is one of that topic.
    """
    try:
        client = pubsub_clients.subscriber()
        found = client.get_subscription(subscription=subscription, retry=None, timeout=_CALL_SECS)
    except NotFound as error:
        raise UsageError(f"--failures {subscription} does not exist") from error
    except PermissionDenied as error:
        _LOG.debug("%s cannot be looked at, which reading it does not need: %s", subscription, error.message)
    except (GoogleAPIError, GoogleAuthError) as error:
        raise UsageError(f"--failures {subscription} cannot be looked up: {error}") from error
    else:
        if found.topic == topic:
            raise UsageError(f"--failures {subscription} subscribes to --to {topic}: what is sent would come back")
    return FailureMessages(client, subscription, time.time_ns() // 1000, idle_secs)
