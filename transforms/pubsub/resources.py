"""Topics and subscriptions, looked up and created before a job starts."""

import logging
import re
import uuid
from collections.abc import Sequence

from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError
from google.cloud.pubsub_v1 import SubscriberClient
from google.pubsub_v1 import PublisherClient
from google.pubsub_v1.types import Subscription

from sluice.models.errors import UsageError
from sluice.transforms.pubsub import clients as pubsub_clients

_LOG = logging.getLogger(__name__)

_TOPIC = re.compile(r"projects/[^/]+/topics/[^/]+")
_PUBLISH = "pubsub.topics.publish"
_CALL_SECS = 20.0
# A subscription that is made for one job: the service deletes it after this many days, if the job did not.
_EXPIRES_DAYS = 1


def check_topic(topic: str) -> None:
    """Checks that a topic can be published to.

    Raises:
      UsageError: the name is not a topic's, the topic does not exist, or this account may not publish to it; or nobody
        can say, because the service does not answer or there are no credentials.
    """
    client = _open(topic)
    try:
        _look_up(client, topic)
    finally:
        pubsub_clients.close(client)


def create_topic(topic: str) -> bool:
    """Creates a topic if it does not exist; returns whether it did not.

    Raises:
      UsageError: the name is not a topic's, or the topic cannot be created.
    """
    client = _open(topic)
    try:
        client.create_topic(name=topic, retry=None, timeout=_CALL_SECS)
    except exceptions.AlreadyExists:
        return False
    except exceptions.GoogleAPICallError as error:
        raise UsageError(f"{topic} cannot be created: {error.message}") from error
    finally:
        pubsub_clients.close(client)
    return True


def _open(topic: str) -> PublisherClient:
    if not _TOPIC.fullmatch(topic):
        raise UsageError(f"'{topic}' is not a Pub/Sub topic: projects/PROJECT/topics/TOPIC is expected")
    try:
        return pubsub_clients.publisher()
    except GoogleAuthError as error:
        raise UsageError(
            f"{topic}: {error}; give credentials, or the emulator's address in {pubsub_clients.EMULATOR_VARIABLE}"
        ) from error


def _look_up(client: PublisherClient, topic: str) -> None:
    try:
        client.get_topic(topic=topic, retry=None, timeout=_CALL_SECS)
    except exceptions.NotFound as error:
        raise UsageError(f"{topic} does not exist; create it: gcloud pubsub topics create {topic}") from error
    except exceptions.PermissionDenied as error:
        _LOG.debug("%s cannot be looked up, which publishing to it does not need: %s", topic, error.message)
    except exceptions.GoogleAPICallError as error:
        raise UsageError(f"{topic} cannot be looked up: {error.message}") from error
    try:
        permissions = {"resource": topic, "permissions": [_PUBLISH]}
        granted = client.test_iam_permissions(request=permissions, retry=None, timeout=_CALL_SECS).permissions
    except exceptions.GoogleAPICallError as error:  # the emulator has no permissions
        _LOG.debug("%s: permissions cannot be checked: %s", topic, error.message)
        return
    if _PUBLISH not in granted:
        raise UsageError(f"this account may not publish to {topic}; give it the role roles/pubsub.publisher")


def find_subscription(client: SubscriberClient, name: str, flag: str, remedy: str = "") -> Subscription | None:
    """Returns a subscription; None if this account may not look it up, which reading it does not need.

    Args:
      flag: the flag that names it, for errors.
      remedy: what to do if it does not exist.

    Raises:
      UsageError: it does not exist, or cannot be looked up.
    """
    try:
        return client.get_subscription(subscription=name, timeout=_CALL_SECS)
    except exceptions.NotFound as error:
        raise UsageError(f"{flag} {name} does not exist{remedy and '; '}{remedy}") from error
    except (exceptions.PermissionDenied, exceptions.Unauthenticated) as error:
        _LOG.debug("%s cannot be looked up, which reading it does not need: %s", name, error.message)
        return None
    except (exceptions.GoogleAPICallError, GoogleAuthError) as error:
        raise UsageError(f"{flag} {name} cannot be looked up: {error}") from error


def check_subscription(client: SubscriberClient, name: str, written: Sequence[str]) -> int:
    """Returns after how many deliveries the subscription gives up a message; 0 if never, or if that is not known.

    Args:
      written: topics that the job writes to.

    Raises:
      UsageError: there is no such subscription, or it subscribes to a topic that the job writes to.
    """
    remedy = "create it, or give --input_topic, which makes its own"
    found = find_subscription(client, name, "--input_subscription", remedy)
    if found is None:
        _LOG.warning("%s cannot be looked up, which needs pubsub.subscriptions.get: its limit is not known", name)
        return 0
    if found.topic in written:
        raise UsageError(
            f"--input_subscription {name} subscribes to {found.topic}, which the job writes to: it would feed itself"
        )
    return int(found.dead_letter_policy.max_delivery_attempts)


def create_subscription(client: SubscriberClient, topic: str) -> str:
    """Creates a subscription of a topic for one job; returns its name.

    Raises:
      UsageError: there is no such topic, or this account may not subscribe to it.
    """
    project = topic.split("/")[1]
    name = f"projects/{project}/subscriptions/sluice-{uuid.uuid4().hex[:12]}"
    expires = {"ttl": {"seconds": _EXPIRES_DAYS * 86_400}}
    request = Subscription(name=name, topic=topic, expiration_policy=expires)
    try:
        client.create_subscription(request=request, timeout=_CALL_SECS)
    except exceptions.NotFound as error:
        raise UsageError(f"--input_topic {topic} does not exist") from error
    except exceptions.GoogleAPICallError as error:
        raise UsageError(f"--input_topic {topic} cannot be subscribed to: {error.message}") from error
    return name
