"""Failures read back from a table of transforms.bigquery.write_failures, as files of failures hold them."""

import datetime
import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from sluice.models.errors import SluiceError, UsageError
from sluice.transforms.bigquery.clients import close, read_client
from sluice.transforms.bigquery.find_table import FoundTable, find_table
from sluice.transforms.bigquery.read import open_streams, read_stream
from sluice.transforms.bigquery.write_failures import FIELDS
from sluice.transforms.core.batches import slices
from sluice.transforms.core.failures import HASH, is_hash, payload_fields, show_payload
from sluice.transforms.core.formats import BIGQUERY
from sluice.transforms.core.payload_files import is_payload_uri
from sluice.transforms.decode.spec import InputSpec

# Of the table's columns, those that a failure is made of again.
_COLUMNS = tuple(field["name"] for field in FIELDS if field["name"] != "stacktrace")
# So many failures are in memory at once: a row has up to 10 MB.
_CHUNK_ROWS = 100
# How write_failures ends the text of an error whose payload is cut.
_CUT = re.compile(r"; (sha256:[0-9a-f]{64}) is the hash of the whole payload\]$")


def find_failures(
    table_id: str,
    row_restriction: str = "",
    endpoint: str | None = None,
    storage_endpoint: str | None = None,
    label: str = "--failures_table ",
) -> FoundTable:
    """Returns a table of failures; its rows are those of now.

    For the other arguments see transforms.bigquery.find_table.find_table.

    Args:
      label: the flag by which it was given, with a space behind it, for errors.

    Raises:
      UsageError: there is no such table, it cannot be read, or it is of something else.
    """
    named = f"{label}{table_id}"
    found = find_table(table_id, row_restriction, "", endpoint, storage_endpoint, label=named)
    missing = [name for name in _COLUMNS if name not in found.source.names]
    if missing:
        raise UsageError(f"{named} is not a table of failures: it has no column '{missing[0]}'")
    return found


def read_failures(found: FoundTable, retry_secs: float = 300.0) -> Iterator[list[bytes]]:
    """Yields the failures of a table, some at a time, each as transforms.core.failures.to_json writes it.

    Raises:
      SluiceError: BigQuery refuses to go on, sends nothing for `retry_secs`, or sends text that is not UTF-8.
    """
    spec = InputSpec(BIGQUERY, tuple((name, found.source.types[name]) for name in _COLUMNS))
    client = read_client(found.table.storage_endpoint)
    try:
        for stream in open_streams(client, found.table, spec, retry_secs, max_streams=1):
            for decoded, _ in read_stream(client, stream, found.table, spec, retry_secs):
                for failure in decoded.failures:
                    raise SluiceError(f"{failure.origin} cannot be read: {failure.error_message}")
                for batch in decoded.batches:
                    for part in slices(batch, _CHUNK_ROWS):
                        yield [failure_json(row) for row in part.select(_COLUMNS).to_pylist()]
    finally:
        close(client)


def failure_json(row: Mapping[str, Any]) -> bytes:
    """Returns a row of the table as the JSON object of its failure.

    A payload of which the row holds a part only is shown as its hash: half of a message is none.
    """
    when: datetime.datetime = row["timestamp"]
    record = {
        "timestamp": when.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "stage": row["stage"],
        "error_type": row["errorType"],
        "error_message": row["errorMessage"],
        "origin": row["origin"],
        **_payload_fields(row),
        "attributes": {each["key"]: each["value"] or "" for each in row["attributes"] or ()},
        "model": row["model"],
        "version": row["version"],
        "attempt": row["attempt"] or 1,
    }
    return orjson.dumps(record)


def _payload_fields(row: Mapping[str, Any]) -> dict[str, str | None]:
    payload, text = row["payloadBytes"], row["payloadString"]
    if payload is None:
        kept = text if text and (is_hash(text) or is_payload_uri(text)) else None
        return {"payload": kept, "payload_text": None}
    cut = _CUT.search(row["errorMessage"] or "")
    if cut and show_payload(payload, HASH) != cut[1]:
        return {"payload": cut[1], "payload_text": None}
    return payload_fields(payload)
