"""Checks of topics and subscriptions before a job starts."""

import logging
from typing import Any

import pytest
from google.api_core.exceptions import InvalidArgument, PermissionDenied, Unauthenticated
from google.auth.exceptions import RefreshError

from sluice.models.errors import UsageError
from sluice.transforms.pubsub.clients import EMULATOR_VARIABLE, subscriber
from sluice.transforms.pubsub.resources import check_subscription, check_topic, create_subscription, create_topic
from tests.support.pubsub.service import TOPIC, aborts, service, takes
from tests.support.servers import Pubsub


@pytest.mark.parametrize(
    "topic", ["", "t", "projects/p/topics/", "projects/p/subscriptions/s", "projects/p/topics/t/x"]
)
def test_what_is_no_topic_is_refused(topic: str) -> None:
    with pytest.raises(UsageError, match="projects/PROJECT/topics/TOPIC is expected"):
        check_topic(topic)
    with pytest.raises(UsageError, match="projects/PROJECT/topics/TOPIC is expected"):
        create_topic(topic)


def test_a_topic_is_made_once(pubsub: Pubsub) -> None:
    topic = pubsub.topic("made-by-create-topic")
    assert [create_topic(topic), create_topic(topic)] == [True, False]
    check_topic(topic)


def test_a_topic_that_cannot_be_made_is_told() -> None:
    with service(), pytest.raises(UsageError, match=f"{TOPIC} cannot be created: Method not found"):
        create_topic(TOPIC)


def test_a_topic_is_looked_up(pubsub: Pubsub) -> None:
    check_topic(pubsub.make_topic())
    with pytest.raises(
        UsageError, match=r"does not exist; create it: gcloud pubsub topics create projects/.*/topics/no"
    ):
        check_topic(pubsub.topic("no-such-topic"))


def test_who_may_only_publish_may_publish(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "sluice.transforms.pubsub.resources")
    with service(look=aborts("PERMISSION_DENIED"), granted=["pubsub.topics.publish"]):
        check_topic(TOPIC)
    assert f"{TOPIC} cannot be looked up" in caplog.text
    with service(look=aborts("PERMISSION_DENIED")):  # nor can permissions be checked
        check_topic(TOPIC)


@pytest.mark.parametrize("look", [takes, aborts("PERMISSION_DENIED")])
def test_who_may_not_publish_is_told_so(look: Any) -> None:
    with service(look=look, granted=[]), pytest.raises(UsageError, match=r"may not publish .*roles/pubsub.publisher"):
        check_topic(TOPIC)


def test_a_service_that_cannot_be_asked_is_told() -> None:
    with service(look=aborts("UNAVAILABLE")), pytest.raises(UsageError, match="cannot be looked up: told to"):
        check_topic(TOPIC)


def test_missing_credentials_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(EMULATOR_VARIABLE, raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json")
    with pytest.raises(UsageError, match=r"nowhere.json.* PUBSUB_EMULATOR_HOST"):
        check_topic(TOPIC)


def test_a_subscription_is_looked_up(pubsub: Pubsub) -> None:
    topic, dead = pubsub.make_topic(), pubsub.make_topic()
    plain = pubsub.make_subscription(topic)
    policy = {"dead_letter_topic": dead, "max_delivery_attempts": 7}
    limited = pubsub.make_subscription(topic, dead_letter_policy=policy)
    assert [check_subscription(subscriber(), name, [dead]) for name in (plain, limited)] == [0, 7]
    with pytest.raises(UsageError, match=f"subscribes to {topic}, which the job writes to: it would feed itself"):
        check_subscription(subscriber(), plain, [dead, topic])
    missing = pubsub.subscription("missing")
    with pytest.raises(UsageError, match=f"--input_subscription {missing} does not exist; create it, or give --input"):
        check_subscription(subscriber(), missing, [])


def test_a_subscription_for_one_job_expires(pubsub: Pubsub) -> None:
    topic = pubsub.make_topic()
    found = pubsub.subscriber.get_subscription(subscription=create_subscription(subscriber(), topic))
    assert (found.topic, found.expiration_policy.ttl.days) == (topic, 1)
    with pytest.raises(UsageError, match=r"--input_topic projects/.*/topics/no-such-topic does not exist"):
        create_subscription(subscriber(), pubsub.topic("no-such-topic"))


class _Failing:
    """A client whose subscriptions cannot be looked up."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def get_subscription(self, **_: Any) -> None:
        raise self._error


@pytest.mark.parametrize("error", [PermissionDenied("no"), Unauthenticated("no")])
def test_who_may_only_pull_may_pull(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    assert check_subscription(_Failing(error), "projects/p/subscriptions/s", []) == 0
    assert "needs pubsub.subscriptions.get" in caplog.text


@pytest.mark.parametrize("error", [InvalidArgument("odd name"), RefreshError("expired")])
def test_a_subscription_that_cannot_be_looked_up_is_a_usage_error(error: Exception) -> None:
    with pytest.raises(UsageError, match=r"--input_subscription s cannot be looked up: .*(odd name|expired)"):
        check_subscription(_Failing(error), "s", [])
