"""Columns that travel beside a row and are not the user's: where it came from, and its source text."""

PREFIX = "_sluice_"

# dictionary<int32, string>: the file that a row came from.
FILE = PREFIX + "file"
# int64: the row's place there, in the unit that the file column's origin states (see transforms/core/batches.py).
POSITION = PREFIX + "position"
# binary: the row as it stood in the source: a CSV line, a JSON object, a serialized tf.Example.
PAYLOAD = PREFIX + "payload"


# What surrounds a message from Pub/Sub; see transforms/core/messages.py. The first is string.
MESSAGE_ID = PREFIX + "message_id"
# timestamp[us, UTC]: when the service took the message, and when what it tells of happened.
PUBLISH_TIME = PREFIX + "publish_time"
EVENT_TIME = PREFIX + "event_time"
# map<string, string>
ATTRIBUTES = PREFIX + "attributes"
# string; "" for none
ORDERING_KEY = PREFIX + "ordering_key"
# int32: how often the service has delivered the message, from 1; 0 if it does not say.
DELIVERY_ATTEMPT = PREFIX + "delivery_attempt"


def is_reserved(name: str) -> bool:
    """Whether a column of this name is Sluice's own."""
    return name.startswith(PREFIX)
