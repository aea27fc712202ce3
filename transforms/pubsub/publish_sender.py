"""Sends one request at a time to a Pub/Sub topic: retries it, isolates the messages at fault, or gives it up."""

import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from google.api_core.exceptions import GoogleAPICallError, InvalidArgument
from google.api_core.retry import exponential_sleep_generator
from google.protobuf.message import Message
from google.pubsub_v1 import PublisherClient
from google.pubsub_v1.types import PublishRequest, PublishResponse

from sluice.models.errors import Cancelled, SluiceError
from sluice.models.isolate import isolate
from sluice.transforms.core.transient import TRANSIENT_ERRORS

_LOG = logging.getLogger(__name__)

Tag = TypeVar("Tag")

# How many requests more than one may be spent on finding the messages at fault.
_MAX_ISOLATION_CALLS = 256

_FIRST_PAUSE_SECS, _LAST_PAUSE_SECS = 0.1, 10.0
# A failure that passes within this many attempts is not worth a line in the log.
_TRIES_BEFORE_WARNING = 6
# An attempt gets at least this long, however little is left of `retry_secs`.
_LEAST_TIMEOUT_SECS = 1.0

_REMEDIES = {
    "NOT_FOUND": "create it with `gcloud pubsub topics create`",
    "PERMISSION_DENIED": "give the account that the job runs as the role roles/pubsub.publisher on it",
    "UNAUTHENTICATED": "the account that the job runs as needs valid credentials",
}


@dataclasses.dataclass(frozen=True)
class PublishOptions:
    """How long the service may be away.

    Attributes:
      retry_secs: how long a request that fails is retried.
      rpc_timeout_secs: how long one attempt may take.
    """

    retry_secs: float = 60.0
    rpc_timeout_secs: float = 30.0


class Refused(NamedTuple, Generic[Tag]):
    """A message that the service rejects, and the reason."""

    tag: Tag
    message: str


def publish_backoff() -> Iterator[float]:
    """Yields the seconds to wait between attempts at one request."""
    return exponential_sleep_generator(_FIRST_PAUSE_SECS, _LAST_PAUSE_SECS)


class Sender:
    """Sends requests. If the service rejects one, sends its halves, until each message at fault stands alone."""

    def __init__(
        self,
        topic: str,
        client: PublisherClient,
        options: PublishOptions,
        clock: Callable[[], float],
        pause: Callable[[threading.Event, float], bool],
        backoff: Callable[[], Iterator[float]],
    ) -> None:
        self._topic = topic
        self._client = client
        self._options = options
        self._clock = clock
        self._pause = pause
        self._backoff = backoff

    def send(self, body: Message, tags: Sequence[Tag], dropped: threading.Event) -> list[Refused[Tag]]:
        """Publishes a request; returns the messages that the service rejects.

        Args:
          body: a PublishRequest, as its plain protocol buffer.

        Raises:
          SluiceError: the request could not be published.
          Cancelled: `dropped` is set.
        """

        def attempt(start: int, stop: int) -> None:
            whole = stop - start == len(tags)
            part = body if whole else PublishRequest.pb()(topic=self._topic, messages=body.messages[start:stop])
            self._publish(part, dropped)

        refused: list[Refused[Tag]] = []
        for start, stop, _, error in isolate(len(tags), attempt, InvalidArgument, _MAX_ISOLATION_CALLS):
            if isinstance(error, InvalidArgument):
                text = f"{self._topic} does not take the message: {error.message}"
                if stop - start > 1:
                    text = f"not isolated: one or more of {stop - start} messages sent together; {text}"
                refused += [Refused(tag, text) for tag in tags[start:stop]]
        return refused

    def _publish(self, body: Message, dropped: threading.Event) -> None:
        began, pauses, tries = self._clock(), self._backoff(), 0
        timeout_secs = self._options.rpc_timeout_secs
        while True:
            if dropped.is_set():
                raise Cancelled(f"{self._topic}: the bundle of these messages has failed")
            tries += 1
            try:
                answer = self._client.publish(request=PublishRequest.wrap(body), retry=None, timeout=timeout_secs)
            except InvalidArgument:
                raise
            except GoogleAPICallError as error:
                left_secs = self._options.retry_secs - (self._clock() - began)
                if (final := self._final(error, left_secs, tries)) is not None:
                    raise final from error
            else:
                self._check_ids(answer, body)
                return
            self._pause(dropped, min(next(pauses), left_secs))
            timeout_secs = min(timeout_secs, max(left_secs, _LEAST_TIMEOUT_SECS))

    def _final(self, error: GoogleAPICallError, left_secs: float, tries: int) -> SluiceError | None:
        """Returns the error to raise, or None if the call is to be retried."""
        code = error.grpc_status_code.name if error.grpc_status_code else type(error).__name__
        text = f"{self._topic} cannot be published to: {code}: {error.message}"
        if not isinstance(error, TRANSIENT_ERRORS):
            remedy = _REMEDIES.get(code)
            return SluiceError(f"{text}; {remedy}" if remedy else text)
        if left_secs > 0:
            _LOG.log(logging.WARNING if tries == _TRIES_BEFORE_WARNING else logging.DEBUG, "%s; trying again", text)
            return None
        return SluiceError(f"{text} (tried {tries} times, for {self._options.retry_secs:g} s)")

    def _check_ids(self, answer: PublishResponse, body: Message) -> None:
        if len(answer.message_ids) != len(body.messages):
            raise SluiceError(
                f"{self._topic} took {len(answer.message_ids)} of {len(body.messages)} messages, and does not say which"
            )
