"""What is asked of a Pub/Sub topic before a job starts."""

import logging
import re
from typing import Any

from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError

from sluice.models.errors import UsageError
from sluice.transforms.pubsub import clients as pubsub_clients

_LOG = logging.getLogger(__name__)

_TOPIC = re.compile(r"projects/[^/]+/topics/[^/]+")
_PUBLISH = "pubsub.topics.publish"
_CALL_SECS = 20.0


def check_topic(topic: str) -> None:
    """Looks whether a topic can be published to, before a job starts.

    Raises:
      UsageError: it is no topic's name, it does not exist, or this account may not publish to it; or that cannot be
        said, since the service does not answer or there are no credentials.
    """
    client = _open(topic)
    try:
        _look_up(client, topic)
    finally:
        pubsub_clients.close(client)


def create_topic(topic: str) -> bool:
    """Makes a topic, unless it is there; returns whether it was not.

    Raises:
      UsageError: it is no topic's name, or cannot be made.
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


def _open(topic: str) -> Any:
    if not _TOPIC.fullmatch(topic):
        raise UsageError(f"'{topic}' is not a Pub/Sub topic: projects/PROJECT/topics/TOPIC is expected")
    try:
        return pubsub_clients.publisher()
    except GoogleAuthError as error:
        raise UsageError(
            f"{topic}: {error}; give credentials, or the emulator's address in {pubsub_clients.EMULATOR_VARIABLE}"
        ) from error


def _look_up(client: Any, topic: str) -> None:
    try:
        client.get_topic(topic=topic, retry=None, timeout=_CALL_SECS)
    except exceptions.NotFound as error:
        raise UsageError(f"{topic} does not exist; create it: gcloud pubsub topics create {topic}") from error
    except exceptions.PermissionDenied as error:
        _LOG.debug("%s cannot be looked at, which publishing to it does not need: %s", topic, error.message)
    except exceptions.GoogleAPICallError as error:
        raise UsageError(f"{topic} cannot be looked up: {error.message}") from error
    try:
        permissions = {"resource": topic, "permissions": [_PUBLISH]}
        granted = client.test_iam_permissions(request=permissions, retry=None, timeout=_CALL_SECS).permissions
    except exceptions.GoogleAPICallError as error:  # the emulator knows no permissions
        _LOG.debug("%s: permissions are not known: %s", topic, error.message)
        return
    if _PUBLISH not in granted:
        raise UsageError(f"this account may not publish to {topic}; give it the role roles/pubsub.publisher")
