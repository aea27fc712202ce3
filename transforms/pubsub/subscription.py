"""What a subscription is to the local streaming source, whichever service it belongs to."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from sluice.models.errors import SluiceError


class Received(NamedTuple):
    """A message as it was pulled.

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
    """The subscription is not there, or may not be read."""


class Subscription(Protocol):
    """A subscription of a service that leases messages. Thread-safe."""

    name: str

    def pull(self, max_messages: int) -> Sequence[Received]:
        """Returns what is there; waits for something to come, but may return none.

        Raises:
          SubscriptionLost: there is no use in trying again soon.
        """

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Tells that these are done."""

    def extend(self, ack_ids: Sequence[str], secs: int) -> None:
        """Holds these for so long from now; 0 gives them back."""

    def interrupt(self) -> None:
        """Has pulls that are under way, and those to come, return at once, empty-handed."""

    def close(self, left: int = 0) -> None:
        """Gives back connections; removes the subscription if it was made for this job, and nothing is left in it.

        Args:
          left: messages that were pulled, and given back.
        """
