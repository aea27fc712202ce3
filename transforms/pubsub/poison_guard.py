"""How many messages a process may hold that have been delivered before: one of them may kill it.

A message that kills its worker takes along all that the worker holds: each of them counts one delivery more, and what
was delivered too often becomes a failure. So the more often messages were delivered, the fewer are held at a time, and
in the end one alone: by the time the one at fault is given up, hardly any other is as suspect. Only a subscription with
a dead-letter policy counts deliveries; of others all messages pass for new.
"""

from collections.abc import Sequence

from sluice.transforms.pubsub.subscription import Received

# By delivery, from the second on; the last stands for all further ones.
_HELD = (256, 16, 1)
_BUNDLE = (64, 8, 1)


def is_suspect(message: Received) -> bool:
    """Whether a message has been delivered before."""
    return message.delivery_attempt > 1


def most_in_bundle(message: Received, most: int) -> int:
    """Returns how many messages may be in a bundle with this one; `most` if it is new."""
    return min(most, _of(_BUNDLE, message.delivery_attempt, most))


class PoisonGuard:
    """How many messages may wait that are suspect, or are being pulled, and may be.

    Before it is known what comes, that is one; each pull without a suspect doubles it. Once there was a suspect, such a
    pull adds one.

    Args:
      most: when none of them is suspect.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._wary = False
        self.value = 1

    def note(self, pulled: Sequence[Received]) -> None:
        """Learns from what was pulled."""
        worst = max((message.delivery_attempt for message in pulled), default=1)
        if worst > 1:
            self.value = min(self._most, _of(_HELD, worst, self._most))
            self._wary = True
        elif pulled:
            self.value = min(self._most, self.value + (1 if self._wary else self.value))


def _of(steps: tuple[int, ...], delivery: int, new: int) -> int:
    return new if delivery < 2 else steps[min(delivery - 2, len(steps) - 1)]
