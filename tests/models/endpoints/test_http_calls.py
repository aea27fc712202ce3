"""Requests over HTTP, to servers that are slow, away, or break the connection."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver

from sluice.models.endpoints.http_calls import HttpCalls
from sluice.models.errors import BadOutput, TimedOut, Unavailable
from sluice.models.uri import Endpoint
from tests.support.fakes import PATIENCE_SECS, connected
from tests.support.servers import free_port
from tests.support.serving.rest_servers import (
    HeldReader,
    Reply,
    Request,
    Server,
    cut,
    resetting,
    sending,
    serving,
    trickling,
)

# A deadline that a test waits for.
SOON_SECS = 0.1
HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture(name="serve")
def serve_fixture() -> Iterator[Callable[..., Server]]:
    with serving() as start:
        yield start


def calls_to(port: int, host: str = "127.0.0.1", **options: Any) -> HttpCalls:
    return HttpCalls(Endpoint("rest", host, port, "m"), None, **options)


def post(calls: HttpCalls, body: bytes = b"hello", secs: float = PATIENCE_SECS, **headers: str) -> Any:
    return calls.send("POST", "/v1", list(headers.items()), body, secs)


def echo(request: Request) -> Reply:
    return Reply(body=request.body)


def test_a_request_and_its_answer(serve: Any) -> None:
    server = serve(lambda request: Reply(418, request.body + b"!", {"x-more": "m"}))
    answer = post(calls_to(server.server_port), a="b")
    assert (answer.status, answer.data, answer.headers["X-More"]) == (418, b"hello!", "m")
    (request,) = server.requests
    assert (request.method, request.path, request.body, request.headers["a"]) == ("POST", "/v1", b"hello", "b")
    assert request.headers["host"] == f"127.0.0.1:{server.server_port}"


def test_one_connection_serves_many_requests(serve: Any) -> None:
    server = serve(echo)
    calls = calls_to(server.server_port)
    assert [post(calls, body).data for body in (b"a", b"", b"c" * 1_000_000)] == [b"a", b"", b"c" * 1_000_000]
    assert [request.number for request in server.requests] == [0, 1, 2]


def test_threads_have_connections_of_their_own(serve: Any) -> None:
    together = threading.Barrier(8)

    def answer(request: Request) -> Reply:
        together.wait(PATIENCE_SECS)
        return echo(request)

    server = serve(answer)
    calls = calls_to(server.server_port)
    with ThreadPoolExecutor(8) as pool:
        bodies = [b"%d" % number for number in range(64)]
        assert [answer.data for answer in pool.map(lambda body: post(calls, body), bodies)] == bodies
    assert server.connections == 8


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 O",
        HEAD + b"a: ",
        HEAD + b"Content-Length: 1000000\r\n\r\n",
        HEAD + b"\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_a_server_that_trickles_is_not_waited_for_beyond_the_deadline(serve: Any, start: bytes) -> None:
    server = serve(lambda _: trickling(start, server.stopping))
    calls = calls_to(server.server_port)
    with pytest.raises(TimedOut, match=f"127.0.0.1:{server.server_port} gave no answer within 0.1 s"):
        connected(lambda: post(calls, secs=SOON_SECS))


@pytest.mark.parametrize("start", [b"", b"HTTP/1."])
def test_a_server_that_trickles_no_http(serve: Any, start: bytes) -> None:
    server = serve(lambda _: trickling(start, server.stopping))
    with pytest.raises(Unavailable, match="the connection failed") as raised:
        post(calls_to(server.server_port))
    assert type(raised.value) is Unavailable


@pytest.mark.parametrize("start", [b"", HEAD, HEAD + b"Content-Length: 5\r\n\r\nabc"])
def test_a_server_that_falls_silent(serve: Any, start: bytes) -> None:
    server = serve(lambda _: lambda connection: (connection.sendall(start), server.stopping.wait(PATIENCE_SECS)))
    calls = calls_to(server.server_port)
    with pytest.raises(TimedOut):
        connected(lambda: post(calls, secs=SOON_SECS))


def test_a_server_that_falls_silent_on_a_connection_it_has_served(serve: Any) -> None:
    server = serve(lambda request: (lambda _: server.stopping.wait(PATIENCE_SECS)) if request.number else echo(request))
    calls = calls_to(server.server_port)
    post(calls)
    with pytest.raises(TimedOut):
        connected(lambda: post(calls, secs=SOON_SECS))
    assert len(server.requests) == 2
    assert post(calls).data == b"hello"  # on another connection


def test_a_server_that_reads_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        calls = calls_to(silent.getsockname()[1])
        with pytest.raises(TimedOut):
            connected(lambda: post(calls, secs=SOON_SECS))
        with pytest.raises(TimedOut):
            connected(lambda: post(calls, b"x" * 50_000_000, SOON_SECS))


def test_nobody_listens() -> None:
    port = free_port()
    with pytest.raises(Unavailable, match=f"^127.0.0.1:{port} cannot be reached: .*Connection refused$"):
        post(calls_to(port))
    with pytest.raises(Unavailable, match=r"^no-such-host\.invalid:1 cannot be reached: "):
        post(calls_to(1, "no-such-host.invalid"))


@pytest.fixture(name="full_port")
def full_port_fixture() -> Iterator[int]:
    """A port where connecting is not answered, as on a machine that is gone: Linux drops what its queue cannot hold."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


@pytest.mark.parametrize(("connect_secs", "secs"), [(SOON_SECS, PATIENCE_SECS), (PATIENCE_SECS, SOON_SECS)])
def test_an_address_where_connecting_is_not_answered(full_port: int, connect_secs: float, secs: float) -> None:
    begun = time.monotonic()
    with pytest.raises(Unavailable, match=r"cannot be reached: no connection within 0.1 s$") as caught:
        post(calls_to(full_port, connect_secs=connect_secs), secs=secs)
    assert type(caught.value) is Unavailable
    assert SOON_SECS <= time.monotonic() - begun < PATIENCE_SECS


class HangingResolver(AbstractResolver):
    """Blocks a thread, as the system's does when no name server answers."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> Any:
        self.asked.append(host)
        await asyncio.get_running_loop().run_in_executor(None, self.released.wait, PATIENCE_SECS)
        raise OSError("too late")

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(("connect_secs", "secs"), [(SOON_SECS, PATIENCE_SECS), (PATIENCE_SECS, SOON_SECS)])
def test_the_deadline_covers_a_look_up_that_hangs(connect_secs: float, secs: float) -> None:
    resolver = HangingResolver()
    calls = calls_to(1, "slow-name.example", connect_secs=connect_secs, resolver=resolver)
    begun = time.monotonic()
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"^slow-name.example:1 cannot be reached: no connection within 0.1 s$"):
            post(calls, secs=secs)
    calls.close()
    assert 2 * SOON_SECS <= time.monotonic() - begun < PATIENCE_SECS
    assert set(resolver.asked) == {"slow-name.example"}
    assert not resolver.released.is_set()
    resolver.released.set()


def test_what_connecting_may_take_is_not_what_the_answer_may_take(serve: Any) -> None:
    late = threading.Event()
    server = serve(lambda request: echo(request) if not late.wait(2 * SOON_SECS) else Reply(500))
    calls = calls_to(server.server_port, connect_secs=SOON_SECS)
    assert connected(lambda: post(calls, b"new connection")).data == b"new connection"
    assert post(calls, b"old one").data == b"old one"
    with pytest.raises(TimedOut, match=r"no answer within 0.1 s"):
        connected(lambda: post(calls, secs=SOON_SECS))


def test_an_idle_connection_that_the_server_closes_is_replaced(serve: Any) -> None:
    whole = sending(HEAD + b"Content-Length: 2\r\n\r\nok")
    server = serve(lambda _: whole)
    calls = calls_to(server.server_port)
    assert [post(calls).data for _ in range(5)] == [b"ok"] * 5
    assert {request.number for request in server.requests} == {0}


PARTIAL = b"HTTP/1.1 2"


@pytest.mark.parametrize("end", [cut, resetting(), sending(PARTIAL), resetting(PARTIAL)])
def test_a_request_that_meets_the_end_of_an_idle_connection_is_sent_again(serve: Any, end: Any) -> None:
    server = serve(lambda request: end if request.number else echo(request))
    calls = calls_to(server.server_port)
    assert [post(calls).data for _ in range(3)] == [b"hello"] * 3
    assert [request.number for request in server.requests] == [0, 1, 0, 1, 0]


def test_it_is_sent_again_only_once(serve: Any) -> None:
    server = serve(lambda _: echo(server.requests[0]) if len(server.requests) == 1 else cut)
    calls = calls_to(server.server_port)
    post(calls)
    with pytest.raises(Unavailable, match=f"127.0.0.1:{server.server_port}: the connection failed: .*disconnected"):
        post(calls)
    assert len(server.requests) == 3


@pytest.mark.parametrize("end", [cut, resetting(), sending(PARTIAL), resetting(PARTIAL)])
def test_a_request_on_a_new_connection_is_sent_once(serve: Any, end: Any) -> None:
    server = serve(lambda _: end)
    with pytest.raises(Unavailable, match="the connection failed"):
        post(calls_to(server.server_port))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "end",
    [
        sending(HEAD + b"Content-Length: 5\r\n\r\nabc"),
        sending(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc"),
        sending(b"SSH-2.0-OpenSSH_9.2\r\n"),
    ],
)
def test_a_request_that_was_answered_in_part_is_not_sent_again(serve: Any, end: Any) -> None:
    server = serve(lambda request: end if request.number else echo(request))
    calls = calls_to(server.server_port)
    post(calls)
    with pytest.raises(Unavailable, match="the connection failed"):
        post(calls)
    assert len(server.requests) == 2
    assert post(calls).data == b"hello"


def test_a_server_that_speaks_http2(serve: Any) -> None:
    server = serve(lambda _: sending(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00"))
    with pytest.raises(
        Unavailable, match=r"does not answer in HTTP/1\.1; a gRPC port is given as grpc://HOST:PORT/NAME"
    ):
        post(calls_to(server.server_port))


def test_a_body_is_not_sent_on_after_the_deadline() -> None:
    """Beyond what the kernel has buffered, which is a few megabytes."""
    body = bytes(50_000_000)
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:
        reader = HeldReader(listening)
        reading = pool.submit(reader.count)
        calls = calls_to(listening.getsockname()[1])
        while not reader.begun.is_set():
            with pytest.raises(TimedOut):
                connected(lambda: post(calls, body, SOON_SECS))
        reader.go_on.set()
        assert 0 < reading.result(PATIENCE_SECS) < len(body)


def test_no_proxy_is_used(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert post(calls_to(serve(echo).server_port)).data == b"hello"


def test_cookies_are_not_sent_back(serve: Any) -> None:
    server = serve(lambda _: Reply(headers={"Set-Cookie": "a=b"}))
    calls = calls_to(server.server_port, "localhost")
    post(calls)
    post(calls)
    assert ["cookie" in request.headers for request in server.requests] == [False, False]


def test_redirects_are_not_followed(serve: Any) -> None:
    server = serve(lambda _: Reply(301, b"", {"Location": "/elsewhere"}))
    assert post(calls_to(server.server_port)).status == 301
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_wants_to_be_asked_later_is_not_asked_here(serve: Any, status: int) -> None:
    server = serve(lambda _: Reply(status, b"", {"Retry-After": "1"}))
    assert post(calls_to(server.server_port)).status == status
    assert len(server.requests) == 1


def test_an_answer_that_comes_before_all_is_sent(serve: Any) -> None:
    """As a proxy does that takes no bodies of this size: it answers, and reads no further."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1_000_000):
                    pass

        thread = threading.Thread(target=refuse)
        thread.start()
        calls = calls_to(listening.getsockname()[1])
        answer = post(calls, b"x" * 10_000_000)
        calls.close()
        thread.join(PATIENCE_SECS)
    assert (answer.status, answer.data) == (413, b"no")


def test_answers_are_decompressed(serve: Any) -> None:
    server = serve(lambda request: Reply(body=gzip.compress(request.body), headers={"Content-Encoding": "gzip"}))
    for body in (b"abc" * 1000, bytes(20_000_000)):  # which is 20 KB on its way
        assert post(calls_to(server.server_port), body).data == body


def test_an_answer_that_cannot_be_decompressed(serve: Any) -> None:
    server = serve(lambda request: Reply(body=request.body, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(BadOutput, match=f"127.0.0.1:{server.server_port}: the answer cannot be decompressed: "):
        post(calls_to(server.server_port))


def test_after_close(serve: Any) -> None:
    server = serve(echo)
    calls = calls_to(server.server_port)
    post(calls)
    calls.close()
    with pytest.raises(Unavailable, match="closed"):
        post(calls)


def test_close_ends_the_calls_under_way(serve: Any) -> None:
    arrived = threading.Event()
    server = serve(lambda _: lambda _: (arrived.set(), server.stopping.wait(PATIENCE_SECS)))
    calls = calls_to(server.server_port)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(post, calls)
        assert arrived.wait(PATIENCE_SECS)
        calls.close()
        with pytest.raises(Unavailable):
            call.result(PATIENCE_SECS)
    calls.close()


def test_a_fork_has_connections_of_its_own(serve: Any) -> None:
    """The parent's stay open, and the process ends without a word though no client was closed."""
    server = serve(echo)
    script = f"""
import os
from sluice.models.endpoints.http_calls import HttpCalls
from sluice.models.uri import Endpoint
calls = HttpCalls(Endpoint("rest", "127.0.0.1", {server.server_port}, "m"), None)
send = lambda body: calls.send("POST", "/", [], body, {PATIENCE_SECS})
assert send(b"parent").data == b"parent"
if not (child := os.fork()):
    assert send(b"child").data == b"child"
    calls = None
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert send(b"parent again").data == b"parent again"
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=4 * PATIENCE_SECS)
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")
    assert [(request.body, request.number) for request in server.requests] == [
        (b"parent", 0), (b"child", 0), (b"parent again", 1),
    ]  # fmt: skip


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_ipv6() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listening:
        received: list[bytes] = []

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                received.append(connection.recv(1000))
                connection.sendall(HEAD + b"Content-Length: 2\r\n\r\nok")

        thread = threading.Thread(target=answer)
        thread.start()
        port = listening.getsockname()[1]
        assert calls_to(port, "::1").send("GET", "/", [], None, PATIENCE_SECS).data == b"ok"
        thread.join(PATIENCE_SECS)
    assert f"Host: [::1]:{port}".encode() in received[0]
