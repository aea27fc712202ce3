"""Names of Sluice's own columns, which accompany each row: its origin and its source text."""

PREFIX = "_sluice_"

# dictionary<int32, string>: the file that a row came from.
FILE = PREFIX + "file"
# int64: the row's position in the file, in the unit of the file column's origin (see transforms/core/batches.py).
POSITION = PREFIX + "position"
# binary: the row as the source has it: a CSV line, a JSON object, a serialized tf.Example.
PAYLOAD = PREFIX + "payload"

# FED + the name of a column of the model: what the model is fed, where the column itself is carried as its text.
FED = PREFIX + "fed_"

# Metadata of a Pub/Sub message; see transforms/core/messages.py. The ID is a string.
MESSAGE_ID = PREFIX + "message_id"
# timestamp[us, UTC]: when the service received the message, and when its event happened.
PUBLISH_TIME = PREFIX + "publish_time"
EVENT_TIME = PREFIX + "event_time"
# map<string, string>
ATTRIBUTES = PREFIX + "attributes"
# string; "" for none
ORDERING_KEY = PREFIX + "ordering_key"
# int32: how often the service has delivered the message, from 1; 0: unknown.
DELIVERY_ATTEMPT = PREFIX + "delivery_attempt"


def is_reserved(name: str) -> bool:
    """Whether a column of this name is Sluice's own."""
    return name.startswith(PREFIX)
