"""A fake of the service behind AppendRows that answers as BigQuery is documented to, and fails on demand.

The emulator accepts any row into a pending stream, and drops those that do not fit when the stream is committed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pyarrow as pa
from google.cloud.bigquery_storage_v1.types import AppendRowsRequest, AppendRowsResponse, RowError, StorageError
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.status_pb2 import Status

from tests.support.fakes import PATIENCE_SECS

Code = grpc.StatusCode


class Broken(grpc.RpcError):
    """The error that ends a call."""

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__()
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "it is broken"

    def trailing_metadata(self) -> tuple[()]:
        return ()


class AppendService:
    """One stream of rows with an int64 column "id"; rows with an id below 0 are refused.

    Attributes:
      ids: the ids in the stream.
      faults: what happens to the next requests, in order. None: nothing; a code: the call ends with it; (code,): the
        request is answered with it; (code, True): the request is accepted, and then the call ends; "silence": the
        request is accepted, and never answered.
      names_rows: how many of the rows at fault a refusal names at most; 0: it names none.
      storage_error: the StorageError code of refusals.
      row_message: what refusals say of a row; "": that its id is negative.
      connections: how many there were.
      calls: those that have not ended.
      requests: all of them, in order.
      gate: no request is looked at while it is closed (cleared).
    """

    def __init__(
        self, faults: list[Any] | None = None, names_rows: int = 100, name: str = "projects/p/streams/s"
    ) -> None:
        self.ids: list[int] = []
        self.faults = faults or []
        self.names_rows = names_rows
        self.name = name
        self.storage_error = self.row_message = ""
        self.connections = 0
        self.calls: list[_Call] = []
        self.requests: list[Any] = []
        self.gate = threading.Event()
        self.gate.set()
        self.lock = threading.RLock()
        self.transport = self

    def append_rows(self, requests: Iterator[AppendRowsRequest], metadata: Any) -> _Call:
        assert dict(metadata)["x-goog-request-params"] == f"write_stream={self.name}"
        with self.lock:
            self.connections += 1
            self.calls.append(_Call(self, requests))
            return self.calls[-1]

    def close(self) -> None:
        """What a transport has."""

    def take(self, request: Any, schema: pa.Schema) -> AppendRowsResponse:
        self.requests.append(request)
        batch = pa.ipc.read_record_batch(pa.py_buffer(request.arrow_rows.rows.serialized_record_batch), schema)
        ids = batch.column("id").to_pylist()
        if request.HasField("offset") and request.offset.value != len(self.ids):
            return _error(Code.ALREADY_EXISTS if request.offset.value < len(self.ids) else Code.OUT_OF_RANGE)
        bad = [place for place, number in enumerate(ids) if number < 0]
        if bad:
            messages = {place: self.row_message or f"{ids[place]} is negative" for place in bad[: self.names_rows]}
            errors = [RowError(index=place, message=message) for place, message in messages.items()]
            return _error(Code.INVALID_ARGUMENT, errors, self.storage_error)
        self.ids += ids
        return AppendRowsResponse(append_result={"offset": len(self.ids)})


class AppendServices:
    """Any number of streams, each an AppendService.

    Attributes:
      streams: by name.
      most_calls: how many were open at the same time.
    """

    def __init__(self) -> None:
        self.streams: dict[str, AppendService] = {}
        self.most_calls = 0
        self.lock = threading.Lock()
        self.transport = self

    def append_rows(self, requests: Iterator[AppendRowsRequest], metadata: Any) -> _Call:
        name = dict(metadata)["x-goog-request-params"].partition("=")[2]
        with self.lock:
            service = self.streams.setdefault(name, AppendService(name=name))
            call = service.append_rows(requests, metadata)
            self.most_calls = max(self.most_calls, sum(len(each.calls) for each in self.streams.values()))
        return call

    def close(self) -> None:
        """What a transport has."""


class _Call:
    def __init__(self, service: AppendService, requests: Iterator[AppendRowsRequest]) -> None:
        self._service, self._requests = service, requests

    def is_active(self) -> bool:
        return self in self._service.calls

    def cancel(self) -> None:
        with self._service.lock:
            if self in self._service.calls:
                self._service.calls.remove(self)

    def __iter__(self) -> Iterator[AppendRowsResponse]:
        schema: pa.Schema | None = None
        for request in (AppendRowsRequest.pb(each) for each in self._requests):
            if schema is None:
                assert request.write_stream == self._service.name
                schema = pa.ipc.read_schema(pa.py_buffer(request.arrow_rows.writer_schema.serialized_schema))
            assert self._service.gate.wait(PATIENCE_SECS)
            fault, answer = self._happen(request, schema)
            if fault == "silence":
                continue
            if isinstance(fault, Code) or (isinstance(fault, tuple) and len(fault) == 2):
                self.cancel()
                raise Broken(fault if isinstance(fault, Code) else fault[0])
            yield answer

    def _happen(self, request: Any, schema: pa.Schema) -> tuple[Any, AppendRowsResponse | None]:
        """Returns the fault of a request, and its answer."""
        with self._service.lock:
            fault = self._service.faults.pop(0) if self._service.faults else None
            if isinstance(fault, tuple) and len(fault) == 1:
                return fault, _error(fault[0])
            return fault, None if isinstance(fault, Code) else self._service.take(request, schema)


def _error(code: grpc.StatusCode, row_errors: list[RowError] | None = None, storage: str = "") -> AppendRowsResponse:
    status = Status(code=code.value[0], message="it is refused")
    if storage:
        detail = AnyMessage()
        detail.Pack(StorageError.pb(StorageError(code=StorageError.StorageErrorCode[storage])))
        status.details.append(detail)
    return AppendRowsResponse(error=status, row_errors=row_errors or [])
