"""One request to a Pub/Sub topic at a time, until it is through: what is tried again, halved, or given up."""

import dataclasses
import logging
import threading
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from google.api_core.exceptions import GoogleAPICallError, InvalidArgument
from google.pubsub_v1.types import PublishRequest

from sluice.models.errors import Cancelled, SluiceError

_LOG = logging.getLogger(__name__)

Tag = TypeVar("Tag")

# Requests more than one that finding the messages at fault may cost.
_MAX_ISOLATION_CALLS = 256

_FIRST_BACKOFF_SECS = 0.1
_LAST_BACKOFF_SECS = 10.0
# What has passed by then is not worth a line in the log.
_TRIES_BEFORE_WARNING = 6
# An attempt gets at least so long, however little is left of `retry_secs`.
_LEAST_TIMEOUT_SECS = 1.0

# https://cloud.google.com/pubsub/docs/reference/error-codes: what may pass when it is tried again. INTERNAL, UNKNOWN
# and CANCELLED come of connections that break.
_TRANSIENT = frozenset(
    ("ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNKNOWN")
)
_REMEDIES = {
    "NOT_FOUND": "create it with `gcloud pubsub topics create`",
    "PERMISSION_DENIED": "give the account that the job runs as the role roles/pubsub.publisher on it",
    "UNAUTHENTICATED": "the account that the job runs as needs valid credentials",
}


@dataclasses.dataclass(frozen=True)
class PublishOptions:
    """How long the service may be away.

    Attributes:
      retry_secs: a request that does not get through is tried again for so long.
      rpc_timeout_secs: how long one attempt may take.
    """

    retry_secs: float = 60.0
    rpc_timeout_secs: float = 30.0


class Refused(NamedTuple, Generic[Tag]):
    """A message that the service does not take, and what it said."""

    tag: Tag
    message: str


class Sender:
    """Sends requests; where the service refuses one, its halves, until the messages at fault stand alone."""

    def __init__(
        self,
        topic: str,
        client: Any,
        options: PublishOptions,
        clock: Callable[[], float],
        pause: Callable[[threading.Event, float], bool],
        uniform: Callable[[], float],
    ) -> None:
        self._topic = topic
        self._client = client
        self._options = options
        self._clock = clock
        self._pause = pause
        self._uniform = uniform

    def send(self, body: Any, tags: list[Tag], dropped: threading.Event) -> list[Refused[Tag]]:
        """Publishes a PublishRequest; returns what is refused of it.

        Raises:
          SluiceError: it could not be published.
          Cancelled: `dropped` is set.
        """
        refused: list[Refused[Tag]] = []
        calls = _MAX_ISOLATION_CALLS
        left = [(body, tags)]
        while left:
            body, tags = left.pop()
            try:
                self._publish(body, dropped)
            except InvalidArgument as error:
                text = f"{self._topic} does not take the message: {error.message}"
                if len(tags) == 1:
                    refused.append(Refused(tags[0], text))
                elif calls < 2:
                    note = f"not isolated: one or more of {len(tags)} messages sent together; {text}"
                    refused += [Refused(tag, note) for tag in tags]
                else:
                    calls -= 2
                    middle = len(tags) // 2
                    for half in (slice(middle, None), slice(0, middle)):
                        part = PublishRequest.pb()(topic=self._topic, messages=body.messages[half])
                        left.append((part, tags[half]))
        return refused

    def _publish(self, body: Any, dropped: threading.Event) -> None:
        began, backoff_secs, tries = self._clock(), _FIRST_BACKOFF_SECS, 0
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
            self._pause(dropped, min(self._uniform() * backoff_secs, left_secs))
            backoff_secs = min(2 * backoff_secs, _LAST_BACKOFF_SECS)
            timeout_secs = min(timeout_secs, max(left_secs, _LEAST_TIMEOUT_SECS))

    def _final(self, error: GoogleAPICallError, left_secs: float, tries: int) -> SluiceError | None:
        """Returns what to raise, or None where the call is to be tried again."""
        code = error.grpc_status_code.name if error.grpc_status_code else type(error).__name__
        said = f"{self._topic} cannot be published to: {code}: {error.message}"
        if code not in _TRANSIENT:
            remedy = _REMEDIES.get(code)
            return SluiceError(f"{said}; {remedy}" if remedy else said)
        if left_secs > 0:
            _LOG.log(logging.WARNING if tries == _TRIES_BEFORE_WARNING else logging.DEBUG, "%s; trying again", said)
            return None
        return SluiceError(f"{said} (tried {tries} times, for {self._options.retry_secs:g} s)")

    def _check_ids(self, answer: Any, body: Any) -> None:
        if len(answer.message_ids) != len(body.messages):
            raise SluiceError(
                f"{self._topic} took {len(answer.message_ids)} of {len(body.messages)} messages, and does not say which"
            )
