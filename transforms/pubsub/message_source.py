"""The local streaming source: pulls a subscription ahead on threads of its own, and hands out messages in bundles.

No Beam here: `transforms.pubsub.read_local` puts it behind a splittable DoFn. The source holds a message from its pull
until its bundle acknowledges it, once all its rows are written, or until the message is given back.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from sluice.transforms.pubsub.lease_keeper import LeaseKeeper
from sluice.transforms.pubsub.message_buffer import MessageBuffer
from sluice.transforms.pubsub.puller import Puller, pull_backoff
from sluice.transforms.pubsub.source_parts import Bundle, Failed, Segment, SourceOptions, Stats
from sluice.transforms.pubsub.subscription import Received, Subscription

# How long a drain waits for pulls that are under way before it breaks them off.
_LATE_SECS = 0.2
# How many messages that failed with their bundles are remembered.
_MOST_TRIED = 100_000


class MessageSource:
    """Pulls a subscription ahead, from the first `take` on, and hands out bundles to one segment after the other.

    A segment is a pipeline that runs for some minutes, because a local runner keeps some 30 KB of every bundle. A
    segment ends when it has had its bundles and the next one waits, so no message waits for a pipeline to be built.

    Args:
      on_done: called with the messages of each bundle that is acknowledged.
      clock: seconds, monotonic.
      backoff: returns the seconds to wait between pulls that fail in a row.
    """

    def __init__(
        self,
        subscription: Subscription,
        options: SourceOptions,
        on_done: Callable[[Sequence[Received]], None] = lambda messages: None,
        clock: Callable[[], float] = time.monotonic,
        backoff: Callable[[], Iterator[float]] = pull_backoff,
    ) -> None:
        self.name = subscription.name
        self.stats = Stats()
        self._options = options
        self._subscription = subscription
        self._on_done = on_done
        self._clock = clock
        self._buffer = MessageBuffer(options.bundles, clock)
        self._leases = LeaseKeeper(subscription, options.lease_secs, clock)
        self._draining = threading.Event()
        self._puller = Puller(subscription, self._buffer, options.pull_threads, self._hold, self._draining, backoff)
        # Guards all that follows, and the stats. A signal's handler may drain while its thread has the lock.
        self._lock = threading.RLock()
        self._in_work: dict[int, Bundle] = {}
        self._tries: dict[str, int] = {}  # by the ids of messages, the latest at the end
        self._progressed = clock()
        self._trouble = ""
        self._failed_before = Failed()
        self._turns = threading.Condition(self._lock)
        self._current: Segment | None = None  # whose turn it is
        self._next: Segment | None = None  # that waits for its turn
        self._segment_began = clock()
        self._segment_bundles = 0

    @property
    def buffered(self) -> int:
        """How many pulled messages wait to be handed out."""
        return len(self._buffer)

    @property
    def in_work(self) -> int:
        """How many messages are handed out and not acknowledged."""
        with self._lock:
            return sum(len(bundle.messages) for bundle in self._in_work.values())

    @property
    def draining(self) -> bool:
        return self._draining.is_set()

    @property
    def reachable(self) -> bool:
        """Whether it pulls, and pulls are answered."""
        return self._puller.reachable

    @property
    def away(self) -> bool:
        """Whether the subscription does not answer pulls."""
        return self._puller.away

    @property
    def trouble(self) -> str:
        """Why nothing is handed out now, though no message is at fault; "": it is not so."""
        return self._trouble

    @property
    def extensions_failed(self) -> int:
        """See LeaseKeeper."""
        return self._leases.extensions_failed

    @property
    def acknowledgements_failed(self) -> int:
        """See LeaseKeeper."""
        return self._leases.acknowledgements_failed

    def take_failed(self) -> "Failed":
        """Returns the requests about leases that failed since the last call of this method."""
        now = Failed(self.extensions_failed, self.acknowledgements_failed)
        before, self._failed_before = self._failed_before, now
        return Failed(now.extensions - before.extensions, now.acknowledgements - before.acknowledgements)

    def oldest_publish_time(self) -> int | None:
        """Returns when the oldest message was published that is here, in microseconds since the epoch; None: none is.

        Looks at every message: for whoever asks now and then.
        """
        with self._lock:
            in_work = [bundle.messages for bundle in self._in_work.values()]
        held = (message.publish_time for part in (self._buffer.waiting(), *in_work) for message in part)
        return min(held, default=None)

    def in_trouble(self, why: str) -> None:
        """Notes why nothing is handed out; "": it goes on."""
        self._trouble = why

    @property
    def stuck_secs(self) -> float:
        """For how long messages have been here without one being acknowledged; 0 if none are here."""
        with self._lock:
            return self._clock() - self._progressed if self._in_work or self.buffered else 0.0

    @property
    def wants_next(self) -> bool:
        """Whether the segment has had its bundles, and the next one should begin."""
        return (
            self._segment_bundles >= self._options.segment_bundles
            or self._clock() - self._segment_began >= self._options.segment_secs
        )

    def pass_turn(self) -> None:
        """Ends the turn of a segment that has failed; a subscription that was lost is tried again."""
        with self._lock:
            self._end_turn()

    def take(self, segment: Segment, reader: str = "") -> Bundle | None:
        """Waits for messages and hands them out; an empty bundle if none come; None at the end of a segment.

        Args:
          reader: who takes them. It takes no others before these are written, or lost.

        Raises:
          SubscriptionLost: the subscription raised it.
        """
        self._end_bundles(reader)
        self._wait_for_turn(segment)
        self._puller.start()
        if self._is_crowded():  # the runner lets the source wait for its acknowledgements
            self.pause(self._options.bundles.idle_secs)
            messages = []
        else:
            messages = self._buffer.take(lambda: self._puller.lost is not None or self._is_over(segment))
        with self._lock:
            bundle = Bundle(messages, self._clock(), self._acknowledge, self._give_back_bundle, reader)
            if messages:
                self._segment_bundles += 1
                self.stats.bundles += 1
                self._in_work[id(bundle)] = bundle
                return bundle
            if (lost := self._puller.lost) is not None:
                raise lost
            if not self._is_over(segment):
                return bundle
            if self._current is segment:
                self._end_turn()
            return None

    @property
    def most_tries(self) -> int:
        """With how many bundles that failed the same message was given back, of those not acknowledged since."""
        with self._lock:
            return max(self._tries.values(), default=0)

    def release(self, tried: bool = True) -> None:
        """Gives back the messages of bundles that failed.

        Args:
          tried: count it; False: no message can be at fault.
        """
        with self._lock:
            bundles, self._in_work = self._in_work, {}
            messages = [message for bundle in bundles.values() for message in bundle.messages]
            if tried:
                for message in messages:
                    self._tries[message.id] = self._tries.pop(message.id, 0) + 1
                for old in list(self._tries)[:-_MOST_TRIED]:  # others may have acknowledged them
                    del self._tries[old]
        self._give_back(messages)

    def try_again(self) -> None:
        """Pulls a subscription again that was lost: the cause may be mended."""
        self._puller.begin_turn()

    def hold_back(self, held: bool) -> None:
        """Ceases to pull, or begins again; the time between is none in which it was stuck."""
        with self._lock:
            self._progressed = self._clock()
        self._buffer.hold_back(held)

    def pause(self, secs: float) -> None:
        """Waits this long, or until the source is drained."""
        self._draining.wait(secs)

    def drain(self) -> None:
        """Stops pulling and handing out; bundles that were handed out may be finished. Returns at once."""
        self._draining.set()
        self._buffer.close()
        with self._lock:
            self._turns.notify_all()

    def close(self) -> None:
        """Drains, gives back what was not acknowledged, ends the threads, and closes the subscription."""
        self.drain()
        self._puller.join(_LATE_SECS)
        self._subscription.interrupt()
        self._puller.join()
        waiting = self._buffer.clear()
        left = len(waiting) + self.in_work
        self._give_back(waiting)
        self.release()
        self._leases.close()
        self._subscription.close(left)

    def give_back_overdue(self, secs: float, ended_secs: float = math.inf) -> None:
        """Gives back the messages of bundles that were handed out longer ago than `secs`, or ended `ended_secs` ago."""
        with self._lock:
            now = self._clock()
            bundles = self._in_work.values()
            overdue = [each for each in bundles if now - each.began > secs or now - each.ended > ended_secs]
        for bundle in overdue:
            bundle.give_back()

    def _end_bundles(self, reader: str) -> None:
        with self._lock:
            for bundle in self._in_work.values() if reader else ():
                if bundle.reader == reader:
                    bundle.ended = min(bundle.ended, self._clock())

    def _wait_for_turn(self, segment: Segment) -> None:
        with self._lock:
            if self._current is segment or segment.over:
                return
            self._next = segment
            self._buffer.wake()
            self._turns.wait_for(lambda: self._current is None or self.draining)
            if not self.draining:
                self._current, self._next = segment, None
                self._segment_bundles, self._segment_began = 0, self._clock()
                self.stats.segments += 1

    def _end_turn(self) -> None:
        if self._current is not None:
            self._current.over = True
        self._current = None
        self._puller.begin_turn()
        self._turns.notify_all()

    def _is_crowded(self) -> bool:
        return bool(self._options.most_in_work) and self.in_work >= self._options.most_in_work

    def _is_over(self, segment: Segment) -> bool:
        return self.draining or self._current is not segment or (self._next is not None and self.wants_next)

    def _hold(self, messages: Sequence[Received]) -> None:
        self._leases.hold([message.ack_id for message in messages])
        with self._lock:
            if not self._in_work and not self.buffered:
                self._progressed = self._clock()
            self.stats.pulled += len(messages)

    def _acknowledge(self, bundle: Bundle) -> None:
        with self._lock:
            if self._in_work.pop(id(bundle), None) is None:
                return  # it was given back before
            for message in bundle.messages if self._tries else ():
                self._tries.pop(message.id, None)
            self._progressed = self._clock()
            self.stats.acknowledged += len(bundle.messages)
            self.stats.bundle_secs += self._progressed - bundle.began
        self._leases.acknowledge([message.ack_id for message in bundle.messages])
        self._on_done(bundle.messages)

    def _give_back_bundle(self, bundle: Bundle) -> None:
        with self._lock:
            if self._in_work.pop(id(bundle), None) is None:
                return
        self._give_back(bundle.messages)

    def _give_back(self, messages: Sequence[Received]) -> None:
        self._leases.give_back([message.ack_id for message in messages])
        with self._lock:
            self.stats.returned += len(messages)
