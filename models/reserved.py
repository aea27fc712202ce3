"""Columns that travel beside a row and are not the user's: where it came from, and its source text."""

PREFIX = "_sluice_"

# dictionary<int32, string>: the file that a row came from.
FILE = PREFIX + "file"
# int64: the row's place there, in the unit that the file column's origin states (see transforms/batches.py).
POSITION = PREFIX + "position"
# binary: the row as it stood in the source: a CSV line, a JSON object, a serialized tf.Example.
PAYLOAD = PREFIX + "payload"


def is_reserved(name: str) -> bool:
    """Whether a column of this name is Sluice's own."""
    return name.startswith(PREFIX)
