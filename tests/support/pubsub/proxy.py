"""A gRPC server in front of the Pub/Sub emulator that refuses some calls and reports others."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.pubsub_v1.types import PublishRequest

from tests.support.servers import Pubsub

_UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
# Each pull that waits for messages occupies a thread.
_THREADS = 64
_ACKNOWLEDGE, _PUBLISH = "/google.pubsub.v1.Subscriber/Acknowledge", "/google.pubsub.v1.Publisher/Publish"


class PubsubProxy:
    """Passes calls on unchanged, except as set here.

    Attributes:
      refusing: a topic whose messages are answered with UNAVAILABLE; "": none.
      refused: how many requests were refused.
      on_acknowledge: called before each acknowledgement; if it returns false, the acknowledgement fails and is dropped.
      acknowledged: how many requests to acknowledge messages were passed on.
    """

    def __init__(self, pubsub: Pubsub) -> None:
        self.refusing = ""
        self.refused = self.acknowledged = 0
        self.on_acknowledge: Callable[[], bool] = lambda: True
        self._channel = grpc.insecure_channel(pubsub.host, options=_UNLIMITED)
        options = [*_UNLIMITED, ("grpc.so_reuseport", 0)]
        self._server = grpc.server(ThreadPoolExecutor(_THREADS), (_AnyMethod(self),), options=options)
        self.host = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def call(self, method: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        if method == _PUBLISH and self.refusing and PublishRequest.deserialize(request).topic == self.refusing:
            self.refused += 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "the topic is away")
        if method == _ACKNOWLEDGE and not self.on_acknowledge():
            context.abort(grpc.StatusCode.UNAVAILABLE, "the acknowledgement is dropped")
        self.acknowledged += method == _ACKNOWLEDGE
        try:
            answer: bytes = self._channel.unary_unary(method)(request, timeout=context.time_remaining())
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
        return answer

    def close(self) -> None:
        self._server.stop(0).wait()
        self._channel.close()


class _AnyMethod(grpc.GenericRpcHandler):
    def __init__(self, proxy: PubsubProxy) -> None:
        self._proxy = proxy

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        method = details.method
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self._proxy.call(method, request, context))
