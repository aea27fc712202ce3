"""BigQuery for the local Vertex AI's batch prediction jobs: small tables, row by row."""

import base64
import datetime
import decimal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sluice.models.server.vertex.results import cell

# Rows of one request: https://cloud.google.com/bigquery/quotas#streaming_inserts
_ROWS = 500
_KINDS = ((bool, "BOOL"), (int, "INT64"), (float, "FLOAT64"))
_SCHEME = "bq://"


class BigQueryTables:
    """Tables by bq://PROJECT.DATASET.TABLE.

    Args:
      endpoint: the URL of another server than Google's; None: Google's, or the emulator's that the environment names.
    """

    def __init__(self, endpoint: str | None = None) -> None:
        self._endpoint = endpoint

    def read(self, uri: str) -> Iterator[dict[str, Any]]:
        """Yields the rows of a table as JSON has them."""
        client, table = self._client(uri)
        for row in client.list_rows(client.get_table(table)):
            yield {name: _plain(value) for name, value in row.items()}

    def write(self, uri: str, rows: Sequence[dict[str, Any]]) -> None:
        """Makes a table of these rows; nested values are JSON in text."""
        from google.cloud import bigquery

        client, table = self._client(uri)
        made = bigquery.Table(table, [bigquery.SchemaField(name, _kind(rows, name)) for name in rows[0]])
        client.create_table(made)
        for start in range(0, len(rows), _ROWS):
            sent = [{name: cell(value) for name, value in row.items()} for row in rows[start : start + _ROWS]]
            if errors := client.insert_rows_json(made, sent):
                raise OSError(f"{uri}: {errors[0]}")

    def _client(self, uri: str) -> tuple[Any, str]:
        from sluice.transforms.bigquery.clients import open_client  # imports Google's clients

        table = uri.removeprefix(_SCHEME)
        return open_client(table.partition(".")[0], self._endpoint), table


def _kind(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    value = next((row[name] for row in rows if row[name] is not None), "")
    return next((kind for of, kind in _KINDS if isinstance(value, of)), "STRING")


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.date | datetime.time):  # datetimes are dates
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value
