"""The contract of a subscription that the local streaming source reads, whichever service it belongs to."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from sluice.models.errors import SluiceError

# The most messages that one request may pull, and the most that one may acknowledge: the service accepts requests of up
# to 512 KiB, and an ack id has at most some 200 bytes. https://cloud.google.com/pubsub/quotas#resource_limits
MAX_REQUEST_IDS = 1000


class Received(NamedTuple):
    """A message that was pulled.

    Attributes:
      publish_time: microseconds since the epoch.
      delivery_attempt: from 1; 0 if the subscription does not count.
    """

    ack_id: str
    payload: bytes
    id: str
    publish_time: int
    attributes: Mapping[str, str]
    ordering_key: str = ""
    delivery_attempt: int = 0


class SubscriptionLost(SluiceError):
    """The subscription does not exist, or this account may not read it."""


class Subscription(Protocol):
    """A subscription of a service that leases messages. Thread-safe."""

    name: str

    def pull(self, max_messages: int) -> Sequence[Received]:
        """Returns the messages that are there. Waits for some if there are none, but may return none.

        Raises:
          SubscriptionLost: trying again soon is of no use.
        """

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Acknowledges messages: they are done, and do not come again."""

    def extend(self, ack_ids: Sequence[str], secs: int) -> None:
        """Holds messages for this long from now; 0 gives them back."""

    def interrupt(self) -> None:
        """Makes pulls that are under way, and all later ones, return at once with no messages."""

    def close(self, left: int = 0) -> None:
        """Closes connections; deletes the subscription if it was made for this job and no message is left in it.

        Args:
          left: how many messages were pulled and given back.
        """


def in_requests(ack_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yields ack ids in parts, each small enough for one request."""
    for start in range(0, len(ack_ids), MAX_REQUEST_IDS):
        yield ack_ids[start : start + MAX_REQUEST_IDS]
