"""A Pub/Sub publisher service in this process, on loopback, whose answers a test decides; the emulator never fails."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.iam.v1.iam_policy_pb2 import TestIamPermissionsRequest, TestIamPermissionsResponse
from google.pubsub_v1.types import GetTopicRequest, PublishRequest, PublishResponse, Topic

from sluice.transforms.pubsub.clients import EMULATOR_VARIABLE
from tests.support.fakes import PATIENCE_SECS

TOPIC = "projects/p/topics/made-up"

Answer = Callable[[Any, grpc.ServicerContext], None]

_REQUESTS = {
    "/google.pubsub.v1.Publisher/Publish": PublishRequest.deserialize,
    "/google.pubsub.v1.Publisher/GetTopic": GetTopicRequest.deserialize,
    "/google.iam.v1.IAMPolicy/TestIamPermissions": TestIamPermissionsRequest.FromString,
}


class PubsubService:
    """Accepts and records messages, unless `answer` aborts.

    Args:
      answer: called with each PublishRequest before its messages are accepted.
      look: called with each GetTopicRequest before it is answered.
      granted: the caller's permissions; None: the method is not implemented.
    """

    def __init__(self, answer: Answer, look: Answer, granted: list[str] | None) -> None:
        self.requests: list[list[Any]] = []
        self.taken: list[Any] = []
        self.entered = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._answer, self._look, self._granted = answer, look, granted
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        self._server = grpc.server(ThreadPoolExecutor(32), (_Handlers(self),), options=options)
        self.host = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    @property
    def data(self) -> list[bytes]:
        """The data of the accepted messages, sorted."""
        return sorted(message.data for message in self.taken)

    def publish(self, request: Any, context: grpc.ServicerContext) -> bytes:
        messages = list(request.messages)
        with self._lock:
            self.requests.append(messages)
        self.entered.release()
        self._answer(request, context)
        with self._lock:
            self.taken += messages
        return PublishResponse.serialize(PublishResponse(message_ids=["1"] * len(messages)))

    def get_topic(self, request: Any, context: grpc.ServicerContext) -> bytes:
        self._look(request, context)
        return Topic.serialize(Topic(name=request.topic))

    def test_permissions(self, request: Any, context: grpc.ServicerContext) -> bytes:
        if self._granted is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no IAM here")
        return TestIamPermissionsResponse(permissions=self._granted).SerializeToString()

    def stop(self) -> None:
        self._server.stop(0).wait()


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, service: PubsubService) -> None:
        self._methods = dict(
            zip(_REQUESTS, (service.publish, service.get_topic, service.test_permissions), strict=True)
        )

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method not in _REQUESTS:
            return None
        return grpc.unary_unary_rpc_method_handler(self._methods[details.method], _REQUESTS[details.method])


def takes(request: Any, context: grpc.ServicerContext) -> None:
    """An answer that accepts every message."""


def aborts(code: str, times: int = 1_000_000, text: str = "told to") -> Answer:
    """Returns an answer that aborts this many requests, whatever they hold."""
    left = iter(range(times))
    lock = threading.Lock()

    def answer(request: Any, context: grpc.ServicerContext) -> None:
        with lock:
            refuses = next(left, None) is not None
        if refuses:
            context.abort(grpc.StatusCode[code], text)

    return answer


def refuses_poison(request: Any, context: grpc.ServicerContext) -> None:
    """An answer that refuses requests with `poison` in a message."""
    if any(b"poison" in message.data for message in request.messages):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a message is bad")


class Gate:
    """An answer that waits until the test opens the gate, or the `with` block ends."""

    def __init__(self) -> None:
        self._open = threading.Event()

    def __call__(self, request: Any, context: grpc.ServicerContext) -> None:
        assert self._open.wait(PATIENCE_SECS), "nobody opened the gate"

    def open(self) -> None:
        self._open.set()

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()


@contextlib.contextmanager
def service(answer: Answer = takes, look: Answer = takes, granted: list[str] | None = None) -> Iterator[PubsubService]:
    """Runs a service while the block runs, and sends this process's clients to it."""
    server = PubsubService(answer, look, granted)
    patch = pytest.MonkeyPatch()
    patch.setenv(EMULATOR_VARIABLE, server.host)
    try:
        yield server
    finally:
        patch.undo()
        server.stop()
