"""What a message source is told, what it hands out, and what it counts."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sluice.transforms.pubsub.message_buffer import BundleOptions
from sluice.transforms.pubsub.subscription import Received


@dataclasses.dataclass(frozen=True)
class SourceOptions:
    """How a subscription is read.

    Attributes:
      pull_threads: pulls under way at a time.
      lease_secs: how long messages are held at a time.
      most_in_work: nothing is handed out while so many messages are and are not acknowledged; 0: no limit.
      segment_bundles, segment_secs: after this many bundles with messages, or this long, the next segment takes over.
    """

    bundles: BundleOptions = dataclasses.field(default_factory=BundleOptions)
    pull_threads: int = 4
    lease_secs: int = 30
    most_in_work: int = 0
    segment_bundles: int = 1000
    segment_secs: float = 300.0


@dataclasses.dataclass
class Stats:
    """What a source has done since it was opened.

    Attributes:
      pulled, acknowledged, returned: messages.
      bundles: that were handed out with messages.
      bundle_secs: from handing out to acknowledging, summed over all bundles that were acknowledged.
      segments: that have had their turn, the present one included.
    """

    pulled: int = 0
    acknowledged: int = 0
    returned: int = 0
    bundles: int = 0
    bundle_secs: float = 0.0
    segments: int = 0


class Failed(NamedTuple):
    """Messages whose lease could not be extended, at a try, and that could not be acknowledged."""

    extensions: int = 0
    acknowledgements: int = 0


class Bundle:
    """Messages that go through the pipeline together.

    Attributes:
      began: when they were handed out.
      reader: to whom; "": it does not matter.
      ended: when the reader was heard of again, so that they are written, or lost; inf: it was not.
    """

    def __init__(
        self,
        messages: Sequence[Received],
        began: float,
        done: "Callable[[Bundle], None]",
        undone: "Callable[[Bundle], None]",
        reader: str = "",
    ) -> None:
        self.messages = messages
        self.began, self.ended = began, math.inf
        self.reader = reader
        self._done, self._undone = done, undone

    def acknowledge(self) -> None:
        """Acknowledges the messages. Call it once every one of them has its prediction or failure written."""
        self._done(self)

    def give_back(self) -> None:
        """Gives the messages back, unless they have been acknowledged or given back before."""
        self._undone(self)


class Segment:
    """A pipeline that takes bundles for some minutes."""

    def __init__(self) -> None:
        self.over = False
