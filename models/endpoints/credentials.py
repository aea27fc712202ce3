"""The headers of a call to a server: the user's own, and a bearer token that is renewed."""

import datetime
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sluice.models.endpoints.google_accounts import GoogleCredentials, find_credentials
from sluice.models.endpoints.secrets import check_secrets
from sluice.models.errors import Unavailable, UsageError
from sluice.models.interface import EndpointOptions
from sluice.models.uri import Endpoint

# google.auth is imported by the functions that use it: without --rpc_google_auth no client needs it.
if TYPE_CHECKING:
    import google.auth.transport

# What gRPC accepts. HTTP accepts it as well. https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
_HEADER_NAME = re.compile(r"[0-9A-Za-z_.-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
# Headers that the protocols or their clients set: a second value would break the call or be dropped. Host may be set:
# gateways such as KServe's route by it.
_SET_BY_PROTOCOL = ("connection", "content-length", "content-type", "te", "transfer-encoding")
# RFC 6750, loosely: no white space. A file of several tokens, or of JSON, has some.
_TOKEN = re.compile(r"[\x21-\x7e]+")

# A metadata server returns the same token until 4 minutes before it expires. google.auth renews it as early.
# https://github.com/googleapis/google-auth-library-python/blob/main/google/auth/_helpers.py
_RENEW_EARLY_SECS = 225.0
# The pause between attempts to renew a token that is still good.
_RENEW_PAUSE_SECS = 30.0
# Shares of a call's deadline, and their limits: how long one HTTP request for a token may take to connect, or to read;
# and how long a call waits for a token. google.auth would wait 120 s, several times; an answer of Google's that has not
# come within 30 s does not come.
_REQUEST_SHARE, _MAX_REQUEST_SECS = 0.8, 30.0
_WAIT_SHARE, _MAX_WAIT_SECS = 0.9, 120.0


class _TokenSource(Protocol):
    def token(self) -> str:
        """Returns a token that is valid now.

        Raises:
          Unavailable: there is no such token.
        """

    def reject(self, token: str) -> bool:
        """Notes that a server refused a token; returns whether another one can be had."""


class Credentials:
    """Makes the headers of each call. Thread-safe.

    Args:
      google: the credentials of --rpc_google_auth and --rpc_google_audience; None: those that google.auth finds.

    Raises:
      UsageError: a header or the token cannot be sent, or would be sent unencrypted; or there is no token, or two.
    """

    def __init__(self, options: EndpointOptions, endpoint: Endpoint, google: GoogleCredentials | None = None) -> None:
        for position, (name, value) in enumerate(options.headers, 1):
            _check_header(position, name, value)
        self._headers = [(name.lower(), value) for name, value in options.headers]
        self._source: _TokenSource | None = None
        check_secrets(options, endpoint, dict(self._headers))
        if not (options.token_file or options.google_auth or options.google_audience):
            return
        if options.token_file:
            self._source = _TokenFile(options.token_file)
        else:
            self._source = GoogleToken(options, google or find_credentials(options))

    def headers(self) -> list[tuple[str, str]]:
        """Returns (name, value) pairs, names in lower case.

        Raises:
          Unavailable: the token cannot be read or renewed.
        """
        if self._source is None:
            return list(self._headers)
        return [*self._headers, ("authorization", f"Bearer {self._source.token()}")]

    def reject(self, headers: Sequence[tuple[str, str]]) -> bool:
        """Notes that a server refused the token among these headers; returns whether the next headers have another."""
        sent = dict(headers).get("authorization", "").removeprefix("Bearer ")
        return self._source is not None and self._source.reject(sent)


class _TokenFile:
    """A token in a file that another program renews.

    In Kubernetes the file is a symbolic link that is swapped, so a change shows in the state of its target.
    https://kubernetes.io/docs/concepts/storage/projected-volumes
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._state: tuple[int, int, int] | None = None
        self._token = ""
        try:
            self.token()
        except Unavailable as error:
            raise UsageError(f"{error}; give a file that holds one bearer token and nothing else") from error

    def token(self) -> str:
        with self._lock:
            try:
                stat = os.stat(self._path)
                state = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
                if state != self._state:  # of before the reading: the next call reads what changes meanwhile
                    self._token = self._read()
                    self._state = state
            except (OSError, UnicodeDecodeError) as error:
                raise Unavailable(f"--rpc_token_file {self._path} cannot be read: {error}") from error
            return self._token

    def reject(self, token: str) -> bool:
        return self.token() != token  # it has changed since

    def _read(self) -> str:
        with open(self._path, encoding="ascii") as file:
            token = file.read().strip()
        if not token:
            raise Unavailable(f"--rpc_token_file {self._path} is empty")
        if not _TOKEN.fullmatch(token):
            raise Unavailable(f"--rpc_token_file {self._path} holds more than a token: it has spaces or line breaks")
        return token


class _Token(NamedTuple):
    text: str
    expires: float  # seconds since 1970; infinity: never


def _in_background(function: Callable[[], None]) -> None:
    threading.Thread(target=function, name="sluice-google-token", daemon=True).start()


class GoogleToken:
    """A Google token: an ID token if the options name an audience, else an access token. Thread-safe.

    One thread at a time renews the token in the background. Only a call without a good token waits, and not past its
    own deadline. google.auth alone would renew within the call, and raise if that fails, though the old token is
    good for another 200 s.

    Args:
      clock: seconds since 1970.
      start: runs a function without waiting for it.
    """

    def __init__(
        self,
        options: EndpointOptions,
        credentials: GoogleCredentials,
        clock: Callable[[], float] = time.time,
        start: Callable[[Callable[[], None]], None] = _in_background,
    ) -> None:
        flag, kind = ("audience", "ID") if options.google_audience else ("auth", "access")
        self._failure = f"--rpc_google_{flag}: no {kind} token from Google"
        self._request_secs = min(_REQUEST_SHARE * options.rpc_timeout_secs, _MAX_REQUEST_SECS)
        self._wait_secs = min(_WAIT_SHARE * options.rpc_timeout_secs, _MAX_WAIT_SECS)
        self._credentials = credentials
        self._clock = clock
        self._start = start
        self._lock = threading.RLock()  # never held while a token is fetched; reentrant, so that `start` may wait
        self._token: _Token | None = None
        self._renewal: Future[_Token] | None = None
        self._renewed = 0.0

    def token(self) -> str:
        """Returns a token that is valid now.

        Raises:
          Unavailable: no token is good, and none could be fetched in time.
        """
        from google.auth.exceptions import GoogleAuthError

        with self._lock:
            now, token = self._clock(), self._token
            if token is not None and now < token.expires:
                if now >= max(token.expires - _RENEW_EARLY_SECS, self._renewed + _RENEW_PAUSE_SECS):
                    self._renew(now)  # a failure shows once the token has expired
                return token.text
            renewal = self._renew(now)
        try:
            return renewal.result(self._wait_secs).text
        except (GoogleAuthError, OSError, ValueError) as error:  # TimeoutError is an OSError
            reason = error if renewal.done() else f"no answer within {self._wait_secs:g} s"
            raise Unavailable(f"{self._failure}: {reason}") from error

    def reject(self, token: str) -> bool:
        with self._lock:
            if self._token is not None and self._token.text == token:
                self._token = None  # whatever its expiry says: the clocks may differ, or it was revoked
        return True

    def _renew(self, now: float) -> "Future[_Token]":
        """Returns the renewal that is under way, or starts one."""
        if self._renewal is not None and not self._renewal.done():
            return self._renewal
        renewal: Future[_Token] = Future()
        self._start(lambda: self._fetch(renewal))
        self._renewal, self._renewed = renewal, now
        return renewal

    def _fetch(self, renewal: "Future[_Token]") -> None:
        try:
            self._credentials.refresh(_TimedRequest(self._request_secs))
            token = _token_of(self._credentials)
        except BaseException as error:  # noqa: BLE001  it is raised again by the waiting calls
            renewal.set_exception(error)
            return
        with self._lock:
            self._token = token
            renewal.set_result(token)


class _TimedRequest:
    """Sends google.auth's HTTP requests, each within a time limit; google.auth's own default is 120 s.

    Attributes:
      session: the `requests.Session`; google.auth adds an adapter for the TLS of metadata servers.
    """

    def __init__(self, timeout_secs: float) -> None:
        from google.auth.transport.requests import Request

        self._request = Request()
        self._timeout_secs = timeout_secs
        self.session = self._request.session

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **more: object,  # of requests.Session.request
    ) -> "google.auth.transport.Response":
        timeout = min(timeout or self._timeout_secs, self._timeout_secs)
        return self._request(url, method, body, headers, timeout, **more)


def _token_of(credentials: GoogleCredentials) -> _Token:
    if not credentials.token:
        raise ValueError("its answer has no token")
    expiry = credentials.expiry
    return _Token(credentials.token, expiry.replace(tzinfo=datetime.UTC).timestamp() if expiry else float("inf"))


def _check_header(position: int, name: str, value: str) -> None:
    """Refuses a header that cannot be sent. The error shows no value, and no bad name: it may be part of a value."""
    if not _HEADER_NAME.fullmatch(name):
        raise UsageError(
            f"--rpc_headers: the name of header {position} is not valid (not shown: it may be a secret); use letters, "
            "digits, '-', '_' and '.'"
        )
    if name.lower() in _SET_BY_PROTOCOL:
        raise UsageError(f"--rpc_headers: '{name}' is set by the protocol itself; leave it out")
    if name.lower().startswith("grpc-") or name.lower().endswith("-bin"):
        raise UsageError(f"--rpc_headers: '{name}': gRPC reserves 'grpc-...', and '...-bin' for binary data; rename it")
    if not _HEADER_VALUE.fullmatch(value):
        raise UsageError(f"--rpc_headers: the value of '{name}' is not printable ASCII; encode it, e.g. in base64")
