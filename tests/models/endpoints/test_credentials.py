"""Headers and tokens of calls."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import functools
import http.server
import json
import os
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt
from google.auth.crypt import RSASigner
from google.auth.exceptions import RefreshError

from sluice.models.endpoints.credentials import Credentials, GoogleToken
from sluice.models.endpoints.grpc import fetch_signatures
from sluice.models.errors import ModelNotFound, Unavailable, UsageError
from sluice.models.interface import EndpointOptions
from sluice.models.uri import Endpoint, ModelSpec
from tests.support.fakes import PATIENCE_SECS
from tests.support.servers import free_port

LOCAL = Endpoint("grpc", "127.0.0.1", 8500, "m")
REMOTE = Endpoint("grpc", "models.example.com", 8500, "m")
REMOTE_TLS = Endpoint("grpc", "models.example.com", 443, "m", tls=True)


class FakeGoogle:
    """Google's credentials: a token that is numbered by how often it was renewed, for so many seconds from `now`."""

    def __init__(self, error: Exception | None = None, lifetime_secs: float | None = 3600) -> None:
        self.token: str | None = None
        self.expiry: datetime.datetime | None = None
        self.now = 1.7e9
        self.attempts = 0
        self.error = error
        self.lifetime_secs = lifetime_secs

    def clock(self) -> float:
        return self.now

    def refresh(self, request: Any) -> None:
        assert callable(request), "what google.auth sends HTTP requests with"
        self.attempts += 1
        if self.error:
            raise self.error
        self.token = f"token-{self.attempts}"
        if self.lifetime_secs is not None:
            expiry = datetime.datetime.fromtimestamp(self.now + self.lifetime_secs, datetime.UTC)
            self.expiry = expiry.replace(tzinfo=None)  # as google.auth has it


class Later:
    """Starts functions when the test says so, or at once."""

    def __init__(self, at_once: bool = False) -> None:
        self.functions: list[Callable[[], None]] = []
        self.at_once = at_once

    def __call__(self, function: Callable[[], None]) -> None:
        self.functions.append(function)
        if self.at_once:
            self.run()

    def run(self) -> None:
        functions, self.functions = self.functions, []
        for function in functions:
            function()


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


# The Kelvin sign is an ASCII k in lower case.
@pytest.mark.parametrize("name", ["a b", "", "ä", "\u212a", ":path", "a\n", "a\x00", "\x7f", "authorization: Bearer x"])
def test_a_name_that_cannot_be_sent_is_not_shown(name: str) -> None:
    with pytest.raises(UsageError, match=r"--rpc_headers: the name of header 2 is not valid .*; use letters") as error:
        Credentials(EndpointOptions(headers=(("a", "1"), (name, "s3cret"))), LOCAL)
    assert "Bearer" not in str(error.value) and "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *((name, "is set by the protocol itself; leave it out") for name in ("te", "Connection", "content-type")),
        *((name, "is set by the protocol") for name in ("Content-Length", "connection", "transfer-encoding")),
        *((name, "gRPC reserves 'grpc-...', and '...-bin' for bin") for name in ("grpc-timeout", "Grpc-x", "X-Bin")),
    ],
)
@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_a_name_that_is_the_protocols(name: str, words: str, protocol: Any) -> None:
    with pytest.raises(UsageError, match=f"--rpc_headers: '{name}'.* {words}") as error:
        Credentials(EndpointOptions(headers=((name, "s3cret"),)), Endpoint(protocol, "localhost", 80, "m"))
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("name", ["bin", "x-binary", "grpc", "x-grpc-y", "tea", "x-host", "X_1.y"])
def test_names_that_look_like_the_protocols_are_sent(name: str) -> None:
    assert Credentials(EndpointOptions(headers=((name, "1"),)), LOCAL).headers() == [(name.lower(), "1")]


@pytest.mark.parametrize("value", ["s3cret-ü", "s3cret\r\nb: c", "s3cret\x00", "s3cret\t", "s3cret\x7f"])
def test_a_value_that_cannot_be_sent_is_not_shown(value: str) -> None:
    with pytest.raises(UsageError, match="--rpc_headers: the value of 'a' is not printable ASCII") as error:
        Credentials(EndpointOptions(headers=(("a", value),)), LOCAL)
    assert "s3cret" not in str(error.value)


def test_headers_are_not_in_the_repr_and_still_count() -> None:
    options, other = (EndpointOptions(headers=(("authorization", value),)) for value in ("s3cret", "another"))
    assert "s3cret" not in repr(options) and "headers" not in repr(options)
    assert options != other and hash(options) != hash(other)


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


def google_token(google: FakeGoogle, later: Later, secs: float = 60.0) -> GoogleToken:
    return GoogleToken(EndpointOptions(google_auth=True, rpc_timeout_secs=secs), google, google.clock, later)


def test_a_google_token_is_renewed_before_it_expires_and_used_meanwhile() -> None:
    google, later = FakeGoogle(), Later(at_once=True)
    token = google_token(google, later)
    assert token.token() == "token-1"
    google.now += 3600 - 226
    assert token.token() == "token-1" and google.attempts == 1
    later.at_once = False
    google.now += 1
    assert [token.token() for _ in range(3)] == ["token-1"] * 3
    assert len(later.functions) == 1, "one renewal for all"
    later.run()
    assert token.token() == "token-2" and google.attempts == 2


def test_a_google_token_is_used_until_it_expires_though_renewing_it_fails() -> None:
    google, later = FakeGoogle(), Later(at_once=True)
    token = google_token(google, later)
    assert token.token() == "token-1"
    google.error = RefreshError("the metadata server is away")
    google.now += 3600 - 225
    assert token.token() == "token-1" and google.attempts == 2
    google.now += 29.5
    assert token.token() == "token-1" and google.attempts == 2, "not tried with every call"
    google.now += 0.5
    assert token.token() == "token-1" and google.attempts == 3
    google.now += 194.5
    assert token.token() == "token-1"
    google.now += 0.5
    with pytest.raises(Unavailable, match="no access token from Google: the metadata server is away"):
        token.token()
    google.error = None
    assert token.token() == f"token-{google.attempts}"


def test_a_google_token_that_never_expires() -> None:
    google = FakeGoogle(lifetime_secs=None)
    token = google_token(google, Later(at_once=True))
    assert token.token() == "token-1"
    google.now += 1e9
    assert token.token() == "token-1"


def test_a_google_token_of_a_short_life_is_not_renewed_with_every_call() -> None:
    google = FakeGoogle(lifetime_secs=60)
    token = google_token(google, Later(at_once=True))
    assert [token.token() for _ in range(3)] == ["token-1"] * 3
    google.now += 30
    assert [token.token() for _ in range(3)] == ["token-1", "token-2", "token-2"]


def test_threads_share_one_renewal() -> None:
    google = FakeGoogle()
    google.now = datetime.datetime.now().timestamp()
    credentials = Credentials(EndpointOptions(google_auth=True), LOCAL, google)
    with ThreadPoolExecutor(8) as pool:
        headers = list(pool.map(lambda _: credentials.headers(), range(100)))
    assert headers == [[("authorization", "Bearer token-1")]] * 100
    assert google.attempts == 1


def test_threads_with_a_good_token_do_not_wait_for_the_renewal() -> None:
    google, hanging, go_on = FakeGoogle(), threading.Event(), threading.Event()
    token = GoogleToken(EndpointOptions(google_auth=True), google, google.clock)
    assert token.token() == "token-1"
    refresh = google.refresh

    def hang(request: Any) -> None:
        hanging.set()
        assert go_on.wait(PATIENCE_SECS)
        refresh(request)

    google.refresh = hang  # type: ignore[method-assign]
    google.now += 3500
    try:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda _: token.token(), range(20))) == ["token-1"] * 20
        assert hanging.wait(PATIENCE_SECS) and google.attempts == 1, "it still hangs"
    finally:
        go_on.set()


def test_a_call_without_a_token_does_not_wait_for_longer_than_it_may_take() -> None:
    google, later = FakeGoogle(), Later()
    token = google_token(google, later, secs=0.1)
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"no access token from Google: no answer within 0\.09 s"):
            token.token()
    assert len(later.functions) == 1, "the second one waits for what the first one started"
    later.run()
    assert token.token() == "token-1"


@pytest.mark.parametrize(
    ("secs", "asked", "given"),
    [(10.0, {}, 8.0), (10.0, {"timeout": 3}, 3), (10.0, {"timeout": None}, 8.0), (9e4, {}, 30.0)],
)
def test_googles_requests_take_less_than_a_call(secs: float, asked: dict[str, Any], given: float) -> None:
    timeouts = []

    class Asking(FakeGoogle):
        def refresh(self, request: Any) -> None:
            request.session.request = lambda *_, timeout, **__: timeouts.append(timeout)
            request("http://127.0.0.1/token", method="POST", body=b"", headers={}, **asked)
            super().refresh(request)

    assert google_token(Asking(), Later(at_once=True), secs).token() == "token-1"
    assert timeouts == [given]


@pytest.mark.parametrize("error", [RefreshError("revoked"), OSError("revoked"), ValueError("revoked")])
def test_google_gives_no_token(error: Exception) -> None:
    credentials = Credentials(EndpointOptions(google_auth=True), LOCAL, FakeGoogle(error))
    with pytest.raises(Unavailable, match=r"--rpc_google_auth: no access token from Google: .*revoked"):
        credentials.headers()
    credentials = Credentials(EndpointOptions(google_audience="https://a"), LOCAL, FakeGoogle(error))
    with pytest.raises(Unavailable, match=r"--rpc_google_audience: no ID token from Google: .*revoked"):
        credentials.headers()


def test_google_answers_without_a_token() -> None:
    class Empty(FakeGoogle):
        def refresh(self, request: Any) -> None:
            pass

    with pytest.raises(Unavailable, match="no access token from Google: its answer has no token"):
        Credentials(EndpointOptions(google_auth=True), LOCAL, Empty()).headers()


def test_no_default_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(UsageError, match=r"no application default credentials: .*none.json.*; run `gcloud auth"):
        Credentials(EndpointOptions(google_auth=True), LOCAL)


def test_no_service_account_for_id_tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(
        UsageError, match=r"--rpc_google_audience: there is no service account .*; name its key file in"
    ):
        Credentials(EndpointOptions(google_audience="https://a"), LOCAL)


@pytest.mark.parametrize(
    ("more", "flags"),
    [
        ({"google_auth": True}, "--rpc_token_file and --rpc_google_auth"),
        ({"google_audience": "https://a"}, "--rpc_token_file and --rpc_google_audience"),
        ({"google_auth": True, "google_audience": "https://a"}, "--rpc_token_file and --rpc_google_audience"),
        ({"headers": (("Authorization", "Basic eA=="),)}, "--rpc_token_file and --rpc_headers authorization="),
    ],
)
def test_one_token_only(tmp_path: Path, more: dict[str, Any], flags: str) -> None:
    with pytest.raises(UsageError, match=f"{flags}.* are given, and a call carries one token; give one of them"):
        Credentials(token_options(tmp_path / "token", **more), LOCAL)


@pytest.mark.parametrize(("protocol", "scheme"), [("grpc", "grpcs://"), ("rest", "https://")])
@pytest.mark.parametrize("options", [{"token_file": "t"}, {"google_auth": True}, {"google_audience": "a"}])
@pytest.mark.parametrize("host", ["10.0.0.1", "models", "localhost.example.com", "::2", "127.0.0.1.example.com"])
def test_no_token_goes_unencrypted(options: dict[str, Any], host: str, protocol: Any, scheme: str) -> None:
    endpoint = Endpoint(protocol, host, 80, "m")
    with pytest.raises(UsageError, match=rf"--rpc_\w+ would be sent unencrypted to .*; give --model {scheme}"):
        Credentials(EndpointOptions(**options), endpoint)


SECRETS = ["Authorization", "proxy-authorization", "Cookie", "X-Api-Key", "apikey", "x-goog-api-key", "X-Auth-Token"]


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_header_goes_unencrypted(name: str) -> None:
    options = EndpointOptions(headers=((name, "s3cret"),))
    with pytest.raises(UsageError, match=f"--rpc_headers {name.lower()}=... would be sent unencrypted") as error:
        Credentials(options, REMOTE)
    assert "s3cret" not in str(error.value)
    for endpoint in (REMOTE_TLS, LOCAL):
        assert Credentials(options, endpoint).headers() == [(name.lower(), "s3cret")]


@pytest.mark.parametrize("name", ["x-request-id", "x-goog-user-project", "tokens-wanted", "cookies", "x-keys"])
def test_other_headers_may_go_unencrypted(name: str) -> None:
    assert Credentials(EndpointOptions(headers=((name, "1"),)), REMOTE).headers() == [(name, "1")]


@pytest.mark.parametrize(
    ("host", "named", "may"),
    [
        ("europe-west1-aiplatform.googleapis.com", (), True),
        ("GOOGLEAPIS.com.", (), True),
        ("7.europe-west1-3.prediction.vertexai.goog", (), True),
        ("models.example.com", (), False),
        ("googleapis.com.example.com", (), False),
        ("evilgoogleapis.com", (), False),
        ("service-abc.a.run.app", (), False),
        ("models.example.com", ("models.example.com",), True),
        ("models.example.com", (".example.com",), True),
        ("example.com", (".example.com",), False),
        ("models.example.com", ("example.com",), False),
    ],
)
def test_googles_access_token_goes_to_google_and_hosts_that_are_named(
    host: str, named: tuple[str, ...], may: bool
) -> None:
    endpoint = Endpoint("rest", host, 443, "m", tls=True)
    options = EndpointOptions(google_auth=True, google_auth_hosts=named)
    if may:
        assert Credentials(options, endpoint, FakeGoogle()).headers() == [("authorization", "Bearer token-1")]
        return
    with pytest.raises(UsageError, match=rf"none of Google's hosts; name it with --rpc_google_auth_hosts {host}"):
        Credentials(options, endpoint, FakeGoogle())


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1", "model.localhost"])
def test_a_token_stays_on_this_machine(host: str) -> None:
    endpoint = Endpoint("rest", host, 80, "m")
    credentials = Credentials(EndpointOptions(google_auth=True), endpoint, FakeGoogle())
    assert credentials.headers() == [("authorization", "Bearer token-1")]


@functools.cache
def private_key() -> str:
    key = rsa.generate_private_key(65537, 2048)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(*form).decode()


class TokenServer(http.server.BaseHTTPRequestHandler):
    """Google's token endpoint (RFC 7523): gives an access token, or an ID token if what is asked names an audience."""

    def do_POST(self) -> None:
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        claims = json.loads(base64.urlsafe_b64decode(form["assertion"][0].split(".")[1] + "=="))
        answer: dict[str, Any] = {"access_token": "from-google", "expires_in": 3600, "token_type": "Bearer"}
        if "target_audience" in claims:
            expires = int(datetime.datetime.now().timestamp()) + 3600
            signer = RSASigner.from_string(private_key())
            answer = {"id_token": jwt.encode(signer, {"aud": claims["target_audience"], "exp": expires}).decode()}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def token_port() -> Iterator[int]:
    """The port of a token endpoint on this machine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), TokenServer)
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def key_file(tmp_path: Path) -> Callable[[int], str]:
    """Writes the key of a service account whose tokens come from a port of this machine."""

    def write(port: int) -> str:
        account = {
            "type": "service_account",
            "client_email": "sluice@example.com",
            "private_key": private_key(),
            "token_uri": f"http://127.0.0.1:{port}/token",
            "project_id": "p",
        }
        path = tmp_path / "key.json"
        path.write_text(json.dumps(account))
        return str(path)

    return write


def test_googles_own_credentials(
    monkeypatch: pytest.MonkeyPatch, key_file: Callable[[int], str], token_port: int
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", key_file(token_port))
    google = dataclasses.replace(REMOTE_TLS, host="models.googleapis.com")
    credentials = Credentials(EndpointOptions(google_auth=True), google)
    assert credentials.headers() == [("authorization", "Bearer from-google")]


@pytest.mark.parametrize("google_auth", [False, True])
def test_googles_own_id_token(
    monkeypatch: pytest.MonkeyPatch, key_file: Callable[[int], str], token_port: int, google_auth: bool
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", key_file(token_port))
    audience = "https://service-abc.a.run.app"
    credentials = Credentials(EndpointOptions(google_auth=google_auth, google_audience=audience), REMOTE_TLS)
    [(name, value)] = credentials.headers()
    assert name == "authorization" and value.startswith("Bearer ")
    assert jwt.decode(value.removeprefix("Bearer "), verify=False)["aud"] == audience
    assert credentials.headers() == [(name, value)], "kept until it expires"


def test_a_token_endpoint_that_hangs(monkeypatch: pytest.MonkeyPatch, key_file: Callable[[int], str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections, and no more
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", key_file(server.getsockname()[1]))
        credentials = Credentials(EndpointOptions(google_auth=True, rpc_timeout_secs=0.5), LOCAL)
        with pytest.raises(Unavailable, match=r"no access token from Google: .*(read timeout=0\.4|within 0\.45 s)"):
            credentials.headers()


def test_a_token_endpoint_that_is_away(monkeypatch: pytest.MonkeyPatch, key_file: Callable[[int], str]) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", key_file(free_port()))
    with pytest.raises(Unavailable, match=r"--rpc_google_auth: no access token from Google: .*refused"):
        Credentials(EndpointOptions(google_auth=True), LOCAL).headers()
    with pytest.raises(ModelNotFound, match="no access token from Google"):
        fetch_signatures(ModelSpec("grpc://127.0.0.1/m", None, LOCAL), EndpointOptions(google_auth=True), 1)


def test_a_token_that_a_server_refuses_is_renewed_whatever_its_expiry_says() -> None:
    google = FakeGoogle(lifetime_secs=None)
    credentials = Credentials(EndpointOptions(google_auth=True), LOCAL, google)
    first = credentials.headers()
    assert credentials.reject(first), "another one can be had"
    assert credentials.headers() == [("authorization", "Bearer token-2")]
    assert credentials.reject(first)
    assert credentials.headers() == [("authorization", "Bearer token-2")], "this one has not been refused"


def test_a_token_of_the_user_is_not_renewed(tmp_path: Path) -> None:
    assert not Credentials(EndpointOptions(), LOCAL).reject([])
    given = Credentials(EndpointOptions(headers=(("authorization", "Bearer x"),)), LOCAL)
    assert not given.reject(given.headers())
    path = tmp_path / "token"
    path.write_text("first")
    credentials = Credentials(token_options(path), LOCAL)
    sent = credentials.headers()
    assert not credentials.reject(sent)
    path.write_text("second")
    assert credentials.reject(sent), "it has changed meanwhile"
