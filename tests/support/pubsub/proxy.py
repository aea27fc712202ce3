"""A gRPC server in front of the Pub/Sub emulator that refuses some calls, reports others, and knows what was pulled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.pubsub_v1.types import PublishRequest, PullRequest, PullResponse

from tests.support.servers import Pubsub

_UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
# Each pull that waits for messages occupies a thread.
_THREADS = 64
_ACKNOWLEDGE, _PULL = "/google.pubsub.v1.Subscriber/Acknowledge", "/google.pubsub.v1.Subscriber/Pull"
_PUBLISH = "/google.pubsub.v1.Publisher/Publish"
# The most ids of one request.
_MAX_IDS = 1000
# How long a dead client's pull is given to take messages that are there. It takes them at once, or there are none.
_TAKEN_SECS = 1


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
        self._pubsub = pubsub
        self._lock = threading.Lock()  # of the two below, by subscription
        self._pulled: dict[str, list[str]] = {}
        self._pulls: dict[str, set[Any]] = {}
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
        call = self._channel.unary_unary(method).future(request, timeout=context.time_remaining())
        if method == _PULL:
            return self._pull(PullRequest.deserialize(request).subscription, call, context)
        if not context.add_callback(call.cancel):
            call.cancel()
        return _answer(call, context)

    def _pull(self, subscription: str, call: Any, context: grpc.ServicerContext) -> bytes:
        """Returns the answer to a pull, and notes what it brought, if `give_back` has not taken the pull over.

        A pull is not cancelled where its client dies. The emulator would learn of that too late, and lease messages
        that are given back meanwhile to nobody.
        """
        with self._lock:
            self._pulls.setdefault(subscription, set()).add(call)
        try:
            answer = _answer(call, context)
        finally:
            with self._lock:
                under_way = self._pulls.get(subscription, set())
                if call in under_way:
                    under_way.remove(call)
                    self._pulled.setdefault(subscription, []).extend(_ack_ids(call))
        return answer

    def pulling(self, subscription: str) -> int:
        """Returns how many pulls wait at the emulator."""
        with self._lock:
            return len(self._pulls.get(subscription, ()))

    def give_back(self, subscription: str) -> None:
        """Makes what was pulled here, and is not acknowledged, come again at once.

        Call it when all who pulled are dead. It would come again after the deadline for acknowledging it, which is 10 s
        at the least.
        """
        with self._lock:
            ids, pulls = self._pulled.pop(subscription, []), self._pulls.pop(subscription, set())
        self._release(subscription, ids)
        for pull in pulls:  # which takes of them what it can
            self._release(subscription, _ack_ids(pull, _TAKEN_SECS))

    def _release(self, subscription: str, ids: list[str]) -> None:
        for start in range(0, len(ids), _MAX_IDS):
            part = ids[start : start + _MAX_IDS]
            self._pubsub.subscriber.modify_ack_deadline(subscription=subscription, ack_ids=part, ack_deadline_seconds=0)

    def close(self) -> None:
        stopped = self._server.stop(0)
        self._channel.close()  # ends pulls that wait, and with them the server's threads
        stopped.wait()


def _answer(call: Any, context: grpc.ServicerContext) -> bytes:
    """Returns the emulator's answer, or passes its error on."""
    try:
        answer: bytes = call.result()
    except grpc.FutureCancelledError:
        context.abort(grpc.StatusCode.CANCELLED, "the client is gone")
    except grpc.RpcError as error:
        context.abort(error.code(), error.details())
    return answer


def _ack_ids(pull: Any, secs: float = 0) -> list[str]:
    """Returns the ids of what a pull brings within so many seconds. It is ended if it fails or brings nothing: []."""
    try:
        messages = PullResponse.deserialize(pull.result(timeout=secs)).received_messages
    except (grpc.FutureTimeoutError, grpc.FutureCancelledError, grpc.RpcError):
        pull.cancel()
        return []
    return [message.ack_id for message in messages]


class _AnyMethod(grpc.GenericRpcHandler):
    def __init__(self, proxy: PubsubProxy) -> None:
        self._proxy = proxy

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        method = details.method
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self._proxy.call(method, request, context))
