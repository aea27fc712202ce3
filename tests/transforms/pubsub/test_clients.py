"""Clients go to the emulator or to the service, without a limit on message size."""

import pytest
from google.auth.exceptions import DefaultCredentialsError

from sluice.transforms.pubsub import clients as pubsub_clients
from tests.support.fakes import PATIENCE_SECS
from tests.support.servers import Pubsub


def test_what_is_published_is_pulled_and_acknowledged(pubsub: Pubsub) -> None:
    topic = pubsub.make_topic()
    subscription = pubsub.make_subscription(topic)
    publisher, subscriber = pubsub_clients.publisher(), pubsub_clients.subscriber()
    large = b"x" * 3_000_000  # two of them exceed gRPC's default limit
    ids = publisher.publish(request={"topic": topic, "messages": [{"data": large}, {"data": large}]}).message_ids
    pulled = []
    while len(pulled) < 2:
        request = {"subscription": subscription, "max_messages": 2}
        pulled += subscriber.pull(request=request, timeout=PATIENCE_SECS).received_messages
    assert [each.message.message_id for each in pulled] == ids
    assert {each.message.data for each in pulled} == {large}
    subscriber.modify_ack_deadline(
        subscription=subscription, ack_ids=[each.ack_id for each in pulled], ack_deadline_seconds=60
    )
    subscriber.acknowledge(subscription=subscription, ack_ids=[each.ack_id for each in pulled])
    assert pubsub.pull_all(subscription, 1, secs=0.5) == []
    for client in (publisher, subscriber):
        pubsub_clients.close(client)


def test_a_closed_client_makes_no_calls(pubsub: Pubsub) -> None:
    client = pubsub_clients.publisher()
    pubsub_clients.close(client)
    with pytest.raises(ValueError, match="closed"):
        client.get_topic(topic=pubsub.topic("any"))


@pytest.mark.parametrize("open_client", [pubsub_clients.publisher, pubsub_clients.subscriber])
def test_without_an_emulator_credentials_are_needed(open_client: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(pubsub_clients.EMULATOR_VARIABLE, raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json")
    with pytest.raises(DefaultCredentialsError, match="nowhere"):
        open_client()  # type: ignore[operator]
