"""A guard against poison messages, which kill the worker that handles them: it limits how many suspects are held.

A poison message takes down all that its worker holds: each of those messages counts one more delivery, and a message
that was delivered too often becomes a failure. So the more often messages were delivered, the fewer are held at a time;
in the end one is held alone. When the poison message is given up, hardly any other is as suspect. Only a subscription
with a dead-letter policy counts deliveries; the messages of others all pass for new.
"""

from collections.abc import Sequence

from sluice.transforms.pubsub.subscription import Received

# By delivery, from the second on; the last holds for all further ones.
_HELD = (256, 16, 1)
_BUNDLE = (64, 8, 1)


def is_suspect(message: Received) -> bool:
    """Whether a message may be poison: it has been delivered before."""
    return message.delivery_attempt > 1


def most_in_bundle(message: Received, most: int) -> int:
    """Returns how many messages a bundle with this one may hold; `most` if it is new."""
    return min(most, _limit(_BUNDLE, message.delivery_attempt, most))


class PoisonGuard:
    """Limits how many messages may be suspects: those that wait, and those being pulled, which may be.

    The limit is 1 until something is known about what comes. Each pull without a suspect doubles it. After the first
    suspect, such a pull adds one.

    Args:
      most: the limit when no message is suspect.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._wary = False
        self.value = 1

    def note(self, pulled: Sequence[Received]) -> None:
        """Adapts the limit to the messages of a pull."""
        worst = max((message.delivery_attempt for message in pulled), default=1)
        if worst > 1:
            self.value = min(self._most, _limit(_HELD, worst, self._most))
            self._wary = True
        elif pulled:
            self.value = min(self._most, self.value + (1 if self._wary else self.value))


def _limit(steps: tuple[int, ...], delivery: int, new: int) -> int:
    return new if delivery < 2 else steps[min(delivery - 2, len(steps) - 1)]
