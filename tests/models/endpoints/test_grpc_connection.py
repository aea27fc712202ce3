"""The gRPC client where servers are away, slow, not what they should be, or want TLS."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from sluice.models.endpoints.grpc import fetch_signatures
from sluice.models.errors import CallError, ModelNotFound, TimedOut, Unavailable, UsageError
from sluice.models.interface import EndpointOptions
from sluice.models.uri import parse_model_uri
from tests.support.certificates import Certificate
from tests.support.fakes import PATIENCE_SECS, X_TO_Y, connected, x_feeds
from tests.support.servers import free_port
from tests.support.serving.grpc_servers import Server, aborting, assert_doubles, described, doubled, opened, serving
from tests.support.serving.light_client import check_light_client


@pytest.fixture(name="serve")
def serve_fixture() -> Iterator[Callable[..., Server]]:
    with serving() as start:
        yield start


def fetch(uri: str, secs: float = PATIENCE_SECS, **endpoint: Any) -> Any:
    return fetch_signatures(parse_model_uri(uri), EndpointOptions(**endpoint), secs)


def test_nobody_listens() -> None:
    port = free_port()
    with pytest.raises(ModelNotFound, match=rf"127.0.0.1:{port} cannot be reached: .*Connection refused.*; check that"):
        fetch(f"grpc://127.0.0.1:{port}/m")
    with pytest.raises(ModelNotFound, match="Connection refused"):
        opened(f"grpc://127.0.0.1:{port}/m", signature=None)
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}: UNAVAILABLE: .*Connection refused"):
        opened(f"grpc://127.0.0.1:{port}/m").call(x_feeds(1))


def test_a_name_that_no_machine_has() -> None:
    with pytest.raises(ModelNotFound, match=r"no-such-host.invalid:8500 cannot be reached"):
        fetch("grpc://no-such-host.invalid/m")


def test_somebody_who_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"grpc://127.0.0.1:{silent.getsockname()[1]}/m"
        with pytest.raises(ModelNotFound, match=r"does not answer within 0.2 s \(Deadline Exceeded\); give --model"):
            fetch(uri, 0.2)
        with pytest.raises(Unavailable, match=r"127.0.0.1:\d+ cannot be reached: no connection within 0.2 s") as caught:
            opened(uri, rpc_timeout_secs=0.2).call(x_feeds(1))
    assert type(caught.value) is Unavailable


def test_a_server_that_comes_after_a_call_was_given_up(serve: Any) -> None:
    """Whether a channel is connected is asked anew each time, of the same thread or another."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        model = opened(f"grpc://127.0.0.1:{port}/m", rpc_timeout_secs=0.2)
        with ThreadPoolExecutor(8) as pool:
            errors = list(pool.map(lambda x: model_error(model, x), range(16)))
        assert {type(error) for error in errors} == {Unavailable}
    done = threading.Event()
    serve(lambda request, _: doubled(request) if done.wait(PATIENCE_SECS) else b"", port=port)
    give_up = time.monotonic() + PATIENCE_SECS
    while type(model_error(model, 1)) is not TimedOut:  # it is connected once the back-off is over
        assert time.monotonic() < give_up
    with ThreadPoolExecutor(8) as pool:
        errors = list(pool.map(lambda x: model_error(model, x), range(16)))
    assert {type(error) for error in errors} == {TimedOut}
    done.set()
    model.close()


def model_error(model: Any, x: int) -> CallError:
    with pytest.raises(CallError) as caught:
        model.call(x_feeds(x))
    return caught.value


def test_a_web_server() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    try:
        with pytest.raises(ModelNotFound, match=r"cannot be reached: .*; check that .*8501 is the REST port"):
            fetch(f"grpc://127.0.0.1:{server.server_port}/m")
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("code", "text", "words"),
    [
        ("NOT_FOUND", "Servable not found for request: Latest(m)", "does not serve what --model .*/m names: Servable"),
        (
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: x",
            "does not serve .*; check the name, and",
        ),
        ("UNAVAILABLE", "Model labels does not init yet.", "does not serve what --model .*/m names: Model labels does"),
        ("UNIMPLEMENTED", "Method not found!", "answers, but is not TF Serving: Method not found!; give --model"),
        ("UNAUTHENTICATED", "no token", "refuses the credentials: UNAUTHENTICATED: no token; give .*--rpc_token_file"),
        ("PERMISSION_DENIED", "not you", "refuses the credentials: PERMISSION_DENIED: not you; give"),
        ("INTERNAL", "a bug", "does not say what model 'm' is: INTERNAL: a bug"),
    ],
)
def test_no_model_at_launch(serve: Any, code: str, text: str, words: str) -> None:
    server = serve(metadata=aborting(code, text))
    with pytest.raises(ModelNotFound, match=f"127.0.0.1:{server.port} {words}"):
        fetch(server.uri())


def test_another_service() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with pytest.raises(ModelNotFound, match="is not TF Serving"):
        fetch(f"grpc://127.0.0.1:{port}/m")
    server.stop(0).wait()


def test_metadata_that_cannot_be_parsed(serve: Any) -> None:
    with pytest.raises(ModelNotFound, match="answers, but not with TF Serving's metadata"):
        fetch(serve(metadata=lambda *_: b"\xff\xff").uri())


def test_a_call_that_takes_too_long(serve: Any) -> None:
    done = threading.Event()
    server = serve(lambda request, _: doubled(request) if done.wait(PATIENCE_SECS) else b"")
    model = opened(server.uri(), rpc_timeout_secs=0.1)
    with pytest.raises(TimedOut, match="DEADLINE_EXCEEDED"):
        connected(lambda: model.call(x_feeds(1)))
    done.set()
    assert_doubles(opened(server.uri()))


def test_calls_under_way_end_when_the_model_is_closed(serve: Any) -> None:
    begun, done = threading.Event(), threading.Event()

    def answer(request: Any, context: Any) -> bytes:
        begun.set()
        done.wait(PATIENCE_SECS)
        return b""

    model = opened(serve(answer).uri())
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(model.call, x_feeds(1))
        assert begun.wait(PATIENCE_SECS)
        model.close()
        with pytest.raises(Unavailable, match="CANCELLED"):
            call.result(PATIENCE_SECS)
    done.set()


def test_a_server_that_is_killed_and_comes_back_on_its_port(serve: Any) -> None:
    server = serve(doubled)
    model = opened(server.uri())
    assert_doubles(model)
    server.stop()
    with pytest.raises(Unavailable):
        model.call(x_feeds(1))
    serve(doubled, port=server.port)
    give_up = time.monotonic() + PATIENCE_SECS
    while time.monotonic() < give_up:  # each try fails at once until the back-off is over
        try:
            return assert_doubles(model)
        except Unavailable as error:
            assert "Failed to connect to remote host" in str(error)  # refused, or reset by a server that is going
    raise AssertionError("never connected again")


def test_many_threads_get_each_its_own_answer(serve: Any) -> None:
    model = opened(serve(doubled).uri())
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda x: model.call(x_feeds(x, x + 1)).arrays["y"].tolist(), range(200)))
    assert answers == [[2 * x, 2 * x + 2] for x in range(200)]


def test_a_client_does_without_tensorflow(serve: Any) -> None:
    check_light_client(
        serve(doubled, described(X_TO_Y)).uri(), without=("tensorflow", "tensorflow_serving", "apache_beam")
    )


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return Certificate()


@pytest.fixture
def tls_server(serve: Any, certificate: Certificate) -> Any:
    return serve(doubled, described(X_TO_Y), credentials=certificate.grpc_credentials)


def test_tls(tls_server: Server, certificate: Certificate, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    options = {"ca_certificates": certificate.text, "token_file": str(tmp_path / "token")}
    assert_doubles(opened(tls_server.uri(scheme="grpcs"), None, **options))
    assert [headers["authorization"] for headers in tls_server.headers] == ["Bearer secret"] * 2


def test_tls_by_a_certificate_that_the_machine_trusts(
    tls_server: Server, certificate: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "roots.pem").write_text(certificate.text)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "roots.pem"))
    monkeypatch.delenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", raising=False)
    assert_doubles(opened(tls_server.uri(scheme="grpcs")))
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(tmp_path / "none.pem"))  # gRPC's own variable wins
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        opened(tls_server.uri(scheme="grpcs")).call(x_feeds(1))


def test_tls_by_a_certificate_that_is_not_trusted(tls_server: Server) -> None:
    for options in ({}, {"ca_certificates": Certificate().text}):
        with pytest.raises(ModelNotFound, match=r"cannot be reached: .*CERTIFICATE_VERIFY_FAILED.*--rpc_ca_file"):
            fetch(tls_server.uri(scheme="grpcs"), **options)


@pytest.mark.parametrize("text", ["no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "ü"])
def test_certificates_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match=r"--rpc_ca_file holds no PEM certificates: .*; give a file that does"):
        fetch("grpcs://127.0.0.1:1/m", ca_certificates=text)


def test_only_one_side_speaks_tls(serve: Any, tls_server: Server, certificate: Certificate) -> None:
    with pytest.raises(ModelNotFound, match=r"cannot be reached: .*; a server with TLS needs grpcs://"):
        fetch(tls_server.uri())
    plain = serve(metadata=described(X_TO_Y)).uri(scheme="grpcs")
    with pytest.raises(ModelNotFound, match=r"cannot be reached: .*; a server without TLS needs grpc://"):
        fetch(plain, ca_certificates=certificate.text)
