"""Rows as the instances of a batch prediction job, each with a key, and the answers that come back under the keys.

The service takes the key field out of an instance before the model sees it. A line of its results has the members `key`
and `prediction`:
https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.batchPredictionJobs#InstanceConfig
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sluice.models.endpoints.json_tensor import decode_predictions, parse_json, row_members
from sluice.models.errors import BadOutput
from sluice.models.interface import Outputs, check_outputs
from sluice.models.isolate import Part, isolate
from sluice.models.reserved import PREFIX
from sluice.models.signature import Signature
from sluice.models.tensors.binding import Bound, Feeds

# The field of an instance that the service hands back beside the prediction.
KEY_FIELD = PREFIX + "key"

# Of the number of a row in its shard.
_MOST_DIGITS = 6


class Answer(NamedTuple):
    """A line of a result file.

    Attributes:
      shard, row: the key.
      prediction: as the model's server wrote it: a value, or an object of values.
    """

    shard: str
    row: int
    prediction: Any


def encode_instances(bound: Bound, signature: Signature, shard: str, first_row: int) -> list[bytes]:
    """Returns the rows that were bound, in the order of the batch, as lines of JSON without their ends.

    Args:
      shard: the first part of each row's key.
      first_row: the second part of the first row's key; it counts the rows that were bound.
    """
    ranks = (~bound.bad_mask).cumsum() - 1
    lines = [b""] * sum(group.size for group in bound.groups)
    for group in bound.groups:
        places = (ranks if group.rows is None else ranks[group.rows]).tolist()
        for place, line in zip(places, _lines(group.feeds, signature, shard, first_row, places), strict=True):
            lines[place] = line
    return lines


def _lines(feeds: Feeds, signature: Signature, shard: str, first_row: int, places: Sequence[int]) -> Iterator[bytes]:
    members, rows = row_members(feeds, signature)
    opening = b'{"%b":"%b:' % (KEY_FIELD.encode(), shard.encode())
    form = opening.replace(b"%", b"%%") + b'%d",' + members + b"}"
    return (form % (first_row + place, *row) for place, row in zip(places, rows, strict=True))


def read_answer(line: bytes) -> Answer | None:
    """Returns what a line of a result file says; None if it is no answer to one of our rows."""
    try:
        record = parse_json(line)
    except BadOutput:
        return None
    if not isinstance(record, dict) or "prediction" not in record:
        return None
    shard, colon, row = str(record.get("key")).rpartition(":")
    if not (colon and row.isascii() and row.isdecimal() and len(row) <= _MOST_DIGITS):
        return None
    return Answer(shard, int(row), record["prediction"])


def decode_answers(predictions: Sequence[Any], signature: Signature, version: int | None) -> Iterator[Part[Outputs]]:
    """Yields the outputs of rows in order; a part whose error is BadOutput is one row that has no such outputs."""

    def attempt(start: int, stop: int) -> Outputs:
        arrays = decode_predictions(list(predictions[start:stop]), signature)
        return check_outputs(Outputs(arrays, version), signature.outputs, stop - start)

    return isolate(len(predictions), attempt, BadOutput)
