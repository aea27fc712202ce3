"""What a killed client held comes again at once, also where one of its pulls still waits at the emulator."""

import contextlib

import grpc
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport
from google.pubsub_v1.types import PullRequest

from tests.support.fakes import PATIENCE_SECS
from tests.support.pubsub.proxy import PubsubProxy
from tests.support.pubsub.streams import wait_until
from tests.support.servers import Pubsub

# Longer than a test waits: what is leased to nobody is missed.
_LEASE_SECS = 600


def test_messages_given_back_are_not_kept_by_a_pull_of_the_dead(pubsub: Pubsub) -> None:
    topic = pubsub.make_topic()
    subscription = pubsub.make_subscription(topic, ack_deadline_seconds=_LEASE_SECS)
    pubsub.publish(topic, [b"a", b"b", b"c"])
    with contextlib.closing(PubsubProxy(pubsub)) as proxy, grpc.insecure_channel(proxy.host) as channel:
        pull, held = SubscriberGrpcTransport(channel=channel).pull, 0
        while held < 3:
            request = PullRequest(subscription=subscription, max_messages=3)
            held += len(pull(request, timeout=PATIENCE_SECS).received_messages)
        waiting = pull.future(PullRequest(subscription=subscription, max_messages=3), timeout=PATIENCE_SECS)
        wait_until(lambda: proxy.pulling(subscription) == 1, "the pull")
        proxy.give_back(subscription)
        wait_until(waiting.done, "the end of the pull")
        assert len(pubsub.pull_all(subscription, 3)) == 3
