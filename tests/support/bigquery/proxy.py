"""A gRPC server in front of the BigQuery emulator's Storage API that passes calls on, and fails those it is told to.

with closing(BigQueryProxy(bigquery)) as proxy:
    proxy.fail("ReadRows", after=3)  # the next call that has had 3 answers ends with UNAVAILABLE
    proxy.fail("AppendRows", StatusCode.ABORTED, passed_on=True)  # rows are written, and the client does not learn it
    client = write_client(proxy.url)
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types
from google.rpc import status_pb2

from tests.support.servers import BigQuery

_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
# A delay that a test does not wait for.
NEVER_SECS = 3600.0
# Each open stream occupies a thread.
_THREADS = 64
_ALWAYS = 1 << 30


@dataclasses.dataclass
class Fault:
    """What happens to a call instead of passing it on.

    Attributes:
      method: "ReadRows", "AppendRows", "CreateReadSession", "BatchCommitWriteStreams", ...
      status: what the call ends with; None: it goes on after the delay.
      after: how many answers a call has had when the fault happens: messages of rows, or appends.
      times: how many calls it happens to.
      passed_on: the request is passed on first, and its answer dropped.
      in_answer: the error comes inside an AppendRowsResponse, and the call goes on.
      delay_secs: how long that answer waits.
    """

    method: str
    status: grpc.StatusCode | None = grpc.StatusCode.UNAVAILABLE
    after: int = 0
    times: int = 1
    passed_on: bool = False
    in_answer: bool = False
    delay_secs: float = 0.0
    message: str = "the proxy says so"


class BigQueryProxy:
    """Passes calls on unchanged, unless a fault is set.

    Attributes:
      url: http://127.0.0.1:PORT, as the clients of `transforms.bigquery.clients` accept it.
      requests: the requests that came, by method; for AppendRows, every append.
      append_calls: how many AppendRows calls there were; each is a connection, as the quota counts.
      faults: those still to happen; each waits for a call of its method that has had `after` answers.
      happened: how many faults have happened.
      rows_per_answer: for reads as Arrow; 0: as the emulator sends them, a whole stream in one answer.
      compression: of the buffers of answers that are cut up ("lz4", "zstd"); the emulator compresses nothing.
    """

    def __init__(self, bigquery: BigQuery) -> None:
        self.requests: dict[str, list[bytes]] = collections.defaultdict(list)
        self.faults: list[Fault] = []
        self.happened = 0
        self.append_calls = 0
        self.rows_per_answer = 0
        self.compression: str | None = None
        self._lock = threading.Lock()
        self._going_on = False
        self._delays: list[threading.Event] = []
        self._channel = grpc.insecure_channel(bigquery.grpc, options=_OPTIONS)
        self._port = 0
        self.start()
        self.url = f"http://127.0.0.1:{self._port}"

    def fail(self, method: str, status: grpc.StatusCode | None = grpc.StatusCode.UNAVAILABLE, **options: Any) -> None:
        """Adds a Fault."""
        with self._lock:
            self.faults.append(Fault(method, status, **options))

    def fail_always(self, method: str, status: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, **options: Any) -> None:
        """Adds a Fault for every call to come."""
        self.fail(method, status, times=_ALWAYS, **options)

    def recover(self) -> None:
        """Removes the faults that have not happened."""
        with self._lock:
            self.faults.clear()

    def go_on(self) -> None:
        """Ends the delays of faults, those to come too."""
        with self._lock:
            self._going_on = True
            delays = list(self._delays)
        for over in delays:
            over.set()

    def start(self) -> None:
        """Listens again after `stop`, on the same port."""
        options = [*_OPTIONS, ("grpc.so_reuseport", 0)]
        self._server = grpc.server(ThreadPoolExecutor(_THREADS), (_AnyMethod(self),), options=options)
        self._port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        self._server.start()

    def stop(self) -> None:
        """Closes every connection, with the calls under way, and refuses new ones."""
        self._server.stop(0).wait()

    def close(self) -> None:
        self.go_on()
        self.stop()
        self._channel.close()

    def unary(self, method: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        fault = self._arrived(method, request, 0)
        call = self._channel.unary_unary(method)
        with _passing_errors(context):
            if not fault:
                return call(request, timeout=context.time_remaining())
            if fault.passed_on:
                call(request)
            self._happen(fault, context)
            if not context.is_active():
                context.abort(grpc.StatusCode.CANCELLED, "the client has gone meanwhile")
            return call(request)

    def read(self, method: str, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        fault = self._arrived(method, request, 0)
        if fault and not fault.passed_on:
            self._happen(fault, context)
        with _passing_errors(context):
            call = self._channel.unary_stream(method)(request)
            context.add_callback(call.cancel)
            for number, answer in enumerate(self._cut_up(_one_ahead(call))):
                if number and (fault := self._fault(method, number)):
                    self._happen(fault, context)
                yield answer

    def append(self, method: str, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        with self._lock:
            self.append_calls += 1
        sent: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        try:
            with _passing_errors(context):
                call = self._channel.stream_stream(method)(iter(sent.get, None))
                context.add_callback(call.cancel)
                for number, request in enumerate(requests):
                    fault = self._arrived(method, request, number)
                    if fault and not fault.passed_on and fault.status:
                        yield from self._happen(fault, context)
                        continue
                    sent.put(request)
                    if (answer := next(call, None)) is None:
                        return
                    if fault:
                        yield from self._happen(fault, context)
                    if not fault or not fault.status:
                        yield answer
        finally:
            sent.put(None)

    def _happen(self, fault: Fault, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Ends the call, or returns the answer that takes its place."""
        self._delay(fault.delay_secs, context)
        if fault.status is None:
            return iter(())
        if not fault.in_answer:
            context.abort(fault.status, fault.message)
        error = status_pb2.Status(code=fault.status.value[0], message=fault.message)
        return iter([types.AppendRowsResponse.serialize(types.AppendRowsResponse(error=error))])

    def _delay(self, secs: float, context: grpc.ServicerContext) -> None:
        """Waits, until `go_on` or the end of the call at most: a server that stops waits for its calls."""
        over = threading.Event()
        with self._lock:
            self._delays.append(over)
        if context.add_callback(over.set) and not self._going_on:
            over.wait(secs)

    def _arrived(self, method: str, request: bytes, number: int) -> Fault | None:
        with self._lock:
            self.requests[method.rsplit("/")[-1]].append(request)
        return self._fault(method, number)

    def _fault(self, method: str, number: int) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.method == method.rsplit("/")[-1] and fault.after == number:
                    fault.times -= 1
                    if not fault.times:
                        self.faults.remove(fault)
                    self.happened += 1
                    return dataclasses.replace(fault)
        return None

    def _cut_up(self, answers: Iterator[bytes]) -> Iterator[bytes]:
        if not self.rows_per_answer:
            yield from answers
            return
        for data in answers:
            answer = types.ReadRowsResponse.deserialize(data)
            if "arrow_record_batch" not in answer:
                yield data
                continue
            schema = pa.ipc.read_schema(pa.py_buffer(answer.arrow_schema.serialized_schema))
            whole = pa.ipc.read_record_batch(pa.py_buffer(answer.arrow_record_batch.serialized_record_batch), schema)
            for start in range(0, whole.num_rows, self.rows_per_answer):
                yield self._answer(whole.slice(start, self.rows_per_answer), answer.arrow_schema)

    def _answer(self, batch: pa.RecordBatch, schema: types.ArrowSchema) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=self.compression)) as out:
            out.write_batch(batch)
        messages = pa.ipc.MessageReader.open_stream(sink.getvalue())
        messages.read_next_message()  # the schema
        serialized = messages.read_next_message().serialize().to_pybytes()
        rows = types.ArrowRecordBatch(serialized_record_batch=serialized)
        answer = types.ReadRowsResponse(row_count=batch.num_rows, arrow_record_batch=rows, arrow_schema=schema)
        return types.ReadRowsResponse.serialize(answer)


@contextlib.contextmanager
def _passing_errors(context: grpc.ServicerContext) -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        if not isinstance(error, grpc.Call):  # the proxy is being stopped
            return
        context.set_trailing_metadata(error.trailing_metadata() or ())
        context.abort(error.code(), error.details())


def _one_ahead(answers: Iterator[bytes]) -> Iterator[bytes]:
    """Yields each answer once the next has come: the emulator resumes a read only at an offset that it has passed."""
    first, second = itertools.tee(answers)
    next(second, None)
    for answer in first:
        next(second, None)
        yield answer


class _AnyMethod(grpc.GenericRpcHandler):
    def __init__(self, proxy: BigQueryProxy) -> None:
        self._proxy = proxy

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        method = details.method
        if method.endswith("/ReadRows"):
            return grpc.unary_stream_rpc_method_handler(_bound(self._proxy.read, method))
        if method.endswith("/AppendRows"):
            return grpc.stream_stream_rpc_method_handler(_bound(self._proxy.append, method))
        return grpc.unary_unary_rpc_method_handler(_bound(self._proxy.unary, method))


def _bound(handler: Callable[..., Any], method: str) -> Callable[[Any, grpc.ServicerContext], Any]:
    return lambda request, context: handler(method, request, context)
