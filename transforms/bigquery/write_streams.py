"""Streams of a BigQuery table that are made, finalized and committed.

https://cloud.google.com/bigquery/docs/write-api-batch, which says that a pending stream must be committed within 24
hours, and that its rows stay for up to 4 hours once it is finalized: that is done just before the commit.
Limits: https://cloud.google.com/bigquery/quotas#write-api-limits
"""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from google.api_core import exceptions
from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.api_core.retry import Retry, if_exception_type
from google.cloud.bigquery_storage_v1.types import StorageError, WriteStream

from sluice.models.errors import SluiceError
from sluice.transforms.bigquery.table import parse_table_id
from sluice.transforms.core.committer import in_groups

# BigQuery asks for fewer than 40 to 50 new streams a second of a project, which its processes share; past that, an
# answer takes half a minute.
_STREAM_SECS = 0.1
_CALL_SECS = 120.0
# A project may make 10,000 streams an hour in each region; when it has, there are some more to be had within minutes.
_QUOTA_SECS = 600.0
_FIRST_QUOTA_PAUSE_SECS, _LAST_QUOTA_PAUSE_SECS = 0.5, 60.0
# Of one commit. The bytes are the limit of a region (a multi-region's is ten times that), less what BigQuery may count
# that is not counted here.
_MAX_STREAMS = 10_000
_MAX_BYTES = 800_000_000_000
# Streams that are finalized at the same time.
_FINALIZERS = 32
_TRANSIENT = (
    exceptions.Aborted,
    exceptions.Cancelled,
    exceptions.DeadlineExceeded,
    exceptions.InternalServerError,
    exceptions.ServiceUnavailable,
    exceptions.Unknown,
)
_REMEDIES = {
    exceptions.Forbidden: "; roles/bigquery.dataEditor allows it",
    exceptions.ResourceExhausted: "; --write_method file_loads makes no streams, or ask Google for more of the quota",
}
_CODES = StorageError.StorageErrorCode


@dataclasses.dataclass(frozen=True)
class RowStream:
    """A stream that one bundle has finished, and that is not committed.

    Attributes:
      name: its full name.
      size: bytes.
    """

    name: str
    rows: int
    size: int


def table_path(table_id: str) -> str:
    """Returns projects/P/datasets/D/tables/T for PROJECT.DATASET.TABLE or PROJECT:DATASET.TABLE."""
    reference = parse_table_id(table_id)
    return f"projects/{reference.project}/datasets/{reference.dataset_id}/tables/{reference.table_id}"


class Pace:
    """Lets something happen only so often. Thread-safe."""

    def __init__(
        self,
        interval_secs: float,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval_secs, self._clock, self._pause = interval_secs, clock, pause
        self._lock = threading.Lock()
        self._next = -float("inf")

    def wait(self) -> None:
        """Returns when it may happen."""
        with self._lock:
            now = self._clock()
            turn = max(now, self._next)
            self._next = turn + self._interval_secs
        if turn > now:
            self._pause(turn - now)


_STREAMS_PACE = Pace(_STREAM_SECS)


def make_stream(client: Any, table: str, retry_secs: float, pace: Pace = _STREAMS_PACE) -> str:
    """Makes a pending stream; returns its full name.

    Args:
      table: projects/P/datasets/D/tables/T.
      retry_secs: how long it is tried again; for ten minutes where the quota is used up.

    Raises:
      SluiceError: BigQuery makes none.
    """

    def make(**options: Any) -> str:
        pace.wait()
        stream = WriteStream(type_=WriteStream.Type.PENDING)
        return str(client.create_write_stream(parent=table, write_stream=stream, **options).name)

    what = f"a stream of {table} cannot be made"
    exhausted = if_exception_type(exceptions.ResourceExhausted)
    patient = Retry(exhausted, initial=_FIRST_QUOTA_PAUSE_SECS, maximum=_LAST_QUOTA_PAUSE_SECS, timeout=_QUOTA_SECS)
    # A table that was made just now may not be seen by all of BigQuery's servers.
    retry = _retry(retry_secs, exceptions.NotFound)
    return str(_checked(what, lambda: patient(retry(make))(retry=None, timeout=_CALL_SECS)))


def finalize_stream(client: Any, name: str, rows: int, retry_secs: float) -> None:
    """Closes a stream.

    Raises:
      SluiceError: it cannot be closed, or holds another number of rows.
    """

    def finalize(**options: Any) -> int:
        return int(client.finalize_write_stream(name=name, **options).row_count)

    found = _call(f"{name} cannot be finalized", finalize, retry_secs)
    if found != rows:
        raise SluiceError(f"{name} holds {found} rows, and {rows} were appended to it: rows are missing or double")


def commit_streams(client: Any, table: str, streams: Sequence[RowStream], retry_secs: float) -> None:
    """Finalizes streams, and makes their rows seen.

    Those of up to 10,000 streams, of up to 800 GB, are seen all at once; of more, in several commits. A stream is
    committed once, whatever is called how often: it may be called again after it was interrupted.

    Raises:
      SluiceError: a stream cannot be committed; of its commit none is, and those before are.
    """
    for group in commit_groups(streams):
        with ThreadPoolExecutor(_FINALIZERS) as pool:
            list(pool.map(lambda stream: _close(client, stream, retry_secs), group))
        left = [stream.name for stream in group]
        while left:
            left = _commit(client, table, left, retry_secs)


def _close(client: Any, stream: RowStream, retry_secs: float) -> None:
    """Finalizes a stream, unless it is committed already."""
    try:
        finalize_stream(client, stream.name, stream.rows, retry_secs)
    except SluiceError:
        if not is_committed(client, stream.name, retry_secs):
            raise


def commit_groups(
    streams: Sequence[RowStream], max_streams: int = _MAX_STREAMS, max_bytes: int = _MAX_BYTES
) -> Iterator[list[RowStream]]:
    """Yields what is committed at once."""
    return in_groups(streams, lambda stream: stream.name, max_streams, max_bytes)


def _commit(client: Any, table: str, names: list[str], retry_secs: float) -> list[str]:
    """Commits streams, or none of them; returns those that are left to commit, since others had been before."""

    def commit(**options: Any) -> Any:
        return client.batch_commit_write_streams(request={"parent": table, "write_streams": names}, **options)

    answer = _call(f"{len(names)} streams of {table} cannot be committed", commit, retry_secs)
    if answer.commit_time is not None:
        return []
    errors = answer.stream_errors
    before = {error.entity for error in errors if _was_committed(client, error, retry_secs)}
    left = [name for name in names if name not in before]
    if len(left) == len(names):
        said = (
            f"{errors[0].entity}: {errors[0].error_message} ({_CODES(errors[0].code).name})" if errors else "no reason"
        )
        raise SluiceError(
            f"{len(names)} streams of {table} cannot be committed: {said}. BigQuery keeps a stream for a day: "
            "start the job anew, with --write_method file_loads if it takes longer"
        )
    return left


def _was_committed(client: Any, error: Any, retry_secs: float) -> bool:
    if error.code == _CODES.STREAM_ALREADY_COMMITTED:
        return True
    # The state that a stream is in may be that it is committed.
    return error.code == _CODES.INVALID_STREAM_STATE and is_committed(client, error.entity, retry_secs)


def is_committed(client: Any, name: str, retry_secs: float) -> bool:
    """Whether a stream has been committed.

    Raises:
      SluiceError: there is no such stream.
    """

    def get(**options: Any) -> bool:
        return client.get_write_stream(name=name, **options).commit_time is not None

    return bool(_call(f"{name} is not found", get, retry_secs))


def _call(what: str, function: Callable[..., Any], retry_secs: float) -> Any:
    """Returns what a call of the Storage Write API gives; it is tried again for so long.

    Args:
      what: has happened if it fails.
      function: takes `retry` and `timeout`.

    Raises:
      SluiceError: it failed.
    """
    retry = _retry(retry_secs, exceptions.ResourceExhausted)
    return _checked(what, lambda: retry(function)(retry=None, timeout=_CALL_SECS))


def _retry(retry_secs: float, *passing: type[Exception]) -> Retry:
    return Retry(if_exception_type(*_TRANSIENT, *passing), initial=0.2, maximum=10.0, timeout=retry_secs)


def _checked(what: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (GoogleAPICallError, RetryError) as error:
        cause = error.cause if isinstance(error, RetryError) and error.cause else error
        remedy = next((text for kind, text in _REMEDIES.items() if isinstance(cause, kind)), "")
        raise SluiceError(f"{what}: {type(cause).__name__}: {getattr(cause, 'message', cause)}{remedy}") from error
