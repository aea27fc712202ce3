"""Headers and tokens of calls."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.exceptions import RefreshError

from models.credentials import Credentials
from models.errors import ModelNotFound, Unavailable, UsageError
from models.interface import EndpointOptions
from models.serving_grpc import fetch_signatures
from models.uri import Endpoint, ModelSpec
from tests.servers import free_port

LOCAL = Endpoint("grpc", "127.0.0.1", 8500, "m")
REMOTE = Endpoint("grpc", "models.example.com", 8500, "m")
REMOTE_TLS = Endpoint("grpc", "models.example.com", 443, "m", tls=True)


class FakeGoogle:
    """Google's credentials: a token that is numbered by how often it was renewed, and expires when the test says so."""

    def __init__(self, error: Exception | None = None) -> None:
        self.token: str | None = None
        self.valid = False
        self.refreshed = 0
        self._error = error

    def refresh(self, request: Any) -> None:
        assert callable(request), "what google.auth sends HTTP requests with"
        if self._error:
            raise self._error
        self.refreshed += 1
        self.token = f"token-{self.refreshed}"
        self.valid = True


def test_no_headers() -> None:
    assert Credentials(EndpointOptions(), REMOTE).headers() == []


def test_names_are_lower_case_and_order_is_kept() -> None:
    headers = (("X-Team", "Ads"), ("a", "2"), ("x-team", "b"))
    credentials = Credentials(EndpointOptions(headers=headers), REMOTE)
    assert credentials.headers() == [("x-team", "Ads"), ("a", "2"), ("x-team", "b")]


def test_what_is_returned_may_be_changed() -> None:
    credentials = Credentials(EndpointOptions(headers=(("a", "1"),)), REMOTE)
    credentials.headers().append(("b", "2"))
    assert credentials.headers() == [("a", "1")]


@pytest.mark.parametrize("header", [("a b", "1"), ("", "1"), ("ä", "1"), (":path", "1"), ("a\n", "1")])
def test_a_name_that_cannot_be_sent(header: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match=r"--rpc_headers: .* is no name of a header; use letters"):
        Credentials(EndpointOptions(headers=(header,)), LOCAL)


@pytest.mark.parametrize("value", ["ü", "a\r\nb: c", "\x00"])
def test_a_value_that_cannot_be_sent(value: str) -> None:
    with pytest.raises(UsageError, match="--rpc_headers: the value of 'a' is not printable ASCII"):
        Credentials(EndpointOptions(headers=(("a", value),)), LOCAL)


def token_options(path: Path, **more: Any) -> EndpointOptions:
    return EndpointOptions(token_file=str(path), **more)


def test_a_token_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    credentials = Credentials(token_options(path, headers=(("a", "1"),)), REMOTE_TLS)
    assert credentials.headers() == [("a", "1"), ("authorization", "Bearer first")]
    path.write_text("the-second")
    assert credentials.headers() == [("a", "1"), ("authorization", "Bearer the-second")]


def test_a_token_file_that_is_swapped_as_kubernetes_does(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(f"token-{name}")
        os.utime(tmp_path / name / "token", ns=(1, 1))  # the same size and time: only the file is another one
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "token").symlink_to("..data/token")
    credentials = Credentials(token_options(tmp_path / "token"), LOCAL)
    assert credentials.headers() == [("authorization", "Bearer token-one")]
    (tmp_path / "..tmp").symlink_to("two")
    os.replace(tmp_path / "..tmp", tmp_path / "..data")
    assert credentials.headers() == [("authorization", "Bearer token-two")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: .*No such file"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"a b", "holds more than a token"),
        (b"a\nb", "holds more than a token"),
        (b"\xff", "cannot be read"),
    ],
)
def test_a_token_file_that_holds_none(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=f"--rpc_token_file .*{words}.*; give a file that holds one bearer"):
        Credentials(token_options(path), LOCAL)


def test_a_token_file_that_is_lost_later_makes_calls_wait(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one")
    credentials = Credentials(token_options(path), LOCAL)
    path.write_text("")
    with pytest.raises(Unavailable, match="is empty"):
        credentials.headers()
    path.unlink()
    with pytest.raises(Unavailable, match="cannot be read"):
        credentials.headers()
    path.write_text("two")
    assert credentials.headers() == [("authorization", "Bearer two")]


def test_google_tokens_are_renewed_when_they_expire() -> None:
    google = FakeGoogle()
    credentials = Credentials(EndpointOptions(google_auth=True), REMOTE_TLS, google)
    assert credentials.headers() == [("authorization", "Bearer token-1")]
    assert credentials.headers() == [("authorization", "Bearer token-1")]
    google.valid = False
    assert credentials.headers() == [("authorization", "Bearer token-2")]


def test_threads_share_one_renewal() -> None:
    google = FakeGoogle()
    credentials = Credentials(EndpointOptions(google_auth=True), LOCAL, google)
    with ThreadPoolExecutor(8) as pool:
        headers = list(pool.map(lambda _: credentials.headers(), range(100)))
    assert headers == [[("authorization", "Bearer token-1")]] * 100
    assert google.refreshed == 1


def test_google_gives_no_token() -> None:
    credentials = Credentials(EndpointOptions(google_auth=True), LOCAL, FakeGoogle(RefreshError("revoked")))
    with pytest.raises(Unavailable, match=r"--rpc_google_auth: Google gives no access token: .*revoked"):
        credentials.headers()


def test_no_default_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(UsageError, match=r"no application default credentials: .*none.json.*; run `gcloud auth"):
        Credentials(EndpointOptions(google_auth=True), LOCAL)


@pytest.mark.parametrize(
    ("more", "flags"),
    [
        ({"google_auth": True}, "--rpc_token_file and --rpc_google_auth"),
        ({"headers": (("Authorization", "Basic eA=="),)}, "--rpc_token_file and --rpc_headers authorization="),
    ],
)
def test_one_token_only(tmp_path: Path, more: dict[str, Any], flags: str) -> None:
    with pytest.raises(UsageError, match=f"{flags}.* are given, and a call carries one token; give one of them"):
        Credentials(token_options(tmp_path / "token", **more), LOCAL)


@pytest.mark.parametrize(("protocol", "scheme"), [("grpc", "grpcs://"), ("rest", "https://")])
@pytest.mark.parametrize("options", [EndpointOptions(token_file="t"), EndpointOptions(google_auth=True)])
@pytest.mark.parametrize("host", ["10.0.0.1", "models", "localhost.example.com", "::2", "127.0.0.1.example.com"])
def test_no_token_goes_unencrypted(options: EndpointOptions, host: str, protocol: Any, scheme: str) -> None:
    endpoint = Endpoint(protocol, host, 80, "m")
    with pytest.raises(UsageError, match=rf"--rpc_\w+ would send a token unencrypted to .*; give --model {scheme}"):
        Credentials(options, endpoint)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1", "model.localhost"])
def test_a_token_stays_on_this_machine(host: str) -> None:
    endpoint = Endpoint("rest", host, 80, "m")
    credentials = Credentials(EndpointOptions(google_auth=True), endpoint, FakeGoogle())
    assert credentials.headers() == [("authorization", "Bearer token-1")]


class TokenServer(http.server.BaseHTTPRequestHandler):
    """Google's token endpoint (RFC 7523): gives a token for whatever is asked."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps({"access_token": "from-google", "expires_in": 3600, "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def key_file(tmp_path: Path) -> Callable[[int], str]:
    """Writes the key of a service account whose tokens come from a port of this machine."""

    def write(port: int) -> str:
        key = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        account = {
            "type": "service_account",
            "client_email": "sluice@example.com",
            "private_key": key.decode(),
            "token_uri": f"http://127.0.0.1:{port}/token",
            "project_id": "p",
        }
        path = tmp_path / "key.json"
        path.write_text(json.dumps(account))
        return str(path)

    return write


def test_googles_own_credentials(monkeypatch: pytest.MonkeyPatch, key_file: Callable[[int], str]) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), TokenServer)
    threading.Thread(target=server.serve_forever).start()
    try:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", key_file(server.server_port))
        credentials = Credentials(EndpointOptions(google_auth=True), REMOTE_TLS)
        assert credentials.headers() == [("authorization", "Bearer from-google")]
    finally:
        server.shutdown()
        server.server_close()


def test_a_token_endpoint_that_is_away(monkeypatch: pytest.MonkeyPatch, key_file: Callable[[int], str]) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", key_file(free_port()))
    with pytest.raises(Unavailable, match=r"--rpc_google_auth: Google gives no access token: .*refused"):
        Credentials(EndpointOptions(google_auth=True), LOCAL).headers()
    with pytest.raises(ModelNotFound, match="Google gives no access token"):
        fetch_signatures(ModelSpec("grpc://127.0.0.1/m", None, LOCAL), EndpointOptions(google_auth=True), 1)
