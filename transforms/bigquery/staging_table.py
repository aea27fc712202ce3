"""The table of one job alone that its rows wait in until they replace, or join, another table's."""

import contextlib
import datetime
import logging

from google.cloud import bigquery

from sluice.transforms.bigquery.table import open_client, parse_table_id
from sluice.transforms.bigquery.table_layout import key_of

_LOG = logging.getLogger(__name__)

# Longer than a stream may wait for its commit, see transforms.bigquery.write_streams.
_DAYS = 2
# A table that is not dropped in this time is left to expire; the last try may take as long again as one call.
_DROP_SECS = 20.0
_DROP_CALL_SECS = 5.0


def staging_id(table_id: str, job: str) -> str:
    """Returns the id of the table beside `table_id`, as PROJECT.DATASET.TABLE.

    It does not begin like the other's, or a query of `events_*` would read it.

    Args:
      job: letters, digits, "-" and "_".
    """
    reference = parse_table_id(table_id)
    return f"{reference.project}.{reference.dataset_id}.sluice_tmp_{job.replace('-', '_')}"


def staging_table(table_id: str, like: bigquery.Table) -> bigquery.Table:
    """Returns a table, yet to be made, with the other's columns and key, that expires by itself."""
    table = bigquery.Table(parse_table_id(table_id), like.schema)
    table.encryption_configuration = key_of(like)
    table.expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=_DAYS)
    return table


def drop_staging(table_id: str, endpoint: str | None = None) -> None:
    """Deletes the table if it is there. Never raises, and takes half a minute at most; what is left expires.

    Args:
      endpoint: see transforms.bigquery.table.open_client.
    """
    try:
        with contextlib.closing(open_client(parse_table_id(table_id).project, endpoint)) as client:
            retry = bigquery.DEFAULT_RETRY.with_timeout(_DROP_SECS)
            client.delete_table(table_id, not_found_ok=True, retry=retry, timeout=_DROP_CALL_SECS)
    except Exception as error:  # noqa: BLE001  the job's outcome stands, whatever becomes of this
        _LOG.debug("table %s is not dropped, and expires: %s", table_id, error)
