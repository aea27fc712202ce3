"""What a call to a server carries besides its rows: the user's headers, and a bearer token that is renewed."""

import ipaddress
import os
import re
import threading
from typing import Any, Protocol

from models.errors import Unavailable, UsageError
from models.interface import EndpointOptions
from models.uri import Endpoint

# What gRPC takes, which HTTP takes as well. https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
_HEADER_NAME = re.compile(r"[0-9a-z_.-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
# RFC 6750, loosely: no white space, which a file of several tokens, or of JSON, has.
_TOKEN = re.compile(r"[\x21-\x7e]+")

_GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class GoogleCredentials(Protocol):
    """The part of google.auth.credentials.Credentials that is used."""

    token: str | None

    @property
    def valid(self) -> bool:
        """Whether there is a token, and it does not expire within minutes."""

    def refresh(self, request: Any) -> None:
        """Gets a new token."""


class _TokenSource(Protocol):
    def token(self) -> str:
        """Returns a token that is valid now.

        Raises:
          Unavailable: there is none now.
        """


class Credentials:
    """Makes the headers of each call. Thread-safe.

    Args:
      google: stands for Google's application default credentials.

    Raises:
      UsageError: a header or the token cannot be sent, or would be sent unencrypted; there is no token, or two.
    """

    def __init__(self, options: EndpointOptions, endpoint: Endpoint, google: GoogleCredentials | None = None) -> None:
        self._headers = [(name.lower(), value) for name, value in options.headers]
        for name, value in self._headers:
            _check_header(name, value)
        self._source: _TokenSource | None = None
        if not options.token_file and not options.google_auth:
            return
        _check_token_use(options, endpoint, "authorization" in dict(self._headers))
        if options.token_file:
            self._source = _TokenFile(options.token_file)
        else:
            self._source = _GoogleToken(google or _default_google_credentials())

    def headers(self) -> list[tuple[str, str]]:
        """Returns (name, value) pairs, names in lower case.

        Raises:
          Unavailable: the token cannot be read or renewed now.
        """
        if self._source is None:
            return list(self._headers)
        return [*self._headers, ("authorization", f"Bearer {self._source.token()}")]


class _TokenFile:
    """A token in a file, which somebody else renews.

    In Kubernetes the file is a link that is swapped: what it points to tells whether it changed.
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
                if state != self._state:  # taken before reading: what changes meanwhile is read again by the next call
                    self._token = self._read()
                    self._state = state
            except (OSError, UnicodeDecodeError) as error:
                raise Unavailable(f"--rpc_token_file {self._path} cannot be read: {error}") from error
            return self._token

    def _read(self) -> str:
        with open(self._path, encoding="ascii") as file:
            token = file.read().strip()
        if not token:
            raise Unavailable(f"--rpc_token_file {self._path} is empty")
        if not _TOKEN.fullmatch(token):
            raise Unavailable(f"--rpc_token_file {self._path} holds more than a token: it has spaces or line breaks")
        return token


class _GoogleToken:
    """An access token of Google's, renewed before it expires."""

    def __init__(self, credentials: GoogleCredentials) -> None:
        self._credentials = credentials
        self._lock = threading.Lock()

    def token(self) -> str:
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request

        with self._lock:
            if not self._credentials.valid:
                try:
                    self._credentials.refresh(Request())
                except GoogleAuthError as error:
                    raise Unavailable(f"--rpc_google_auth: Google gives no access token: {error}") from error
            return self._credentials.token or ""


def _default_google_credentials() -> GoogleCredentials:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        credentials: GoogleCredentials = google.auth.default(scopes=[_GOOGLE_SCOPE])[0]
    except DefaultCredentialsError as error:
        raise UsageError(
            f"--rpc_google_auth: there are no application default credentials: {error}; run "
            "`gcloud auth application-default login`, or name a key file in GOOGLE_APPLICATION_CREDENTIALS"
        ) from error
    return credentials


def _check_header(name: str, value: str) -> None:
    if not _HEADER_NAME.fullmatch(name):
        raise UsageError(f"--rpc_headers: {name!r} is no name of a header; use letters, digits, '-', '_' and '.'")
    if not _HEADER_VALUE.fullmatch(value):
        raise UsageError(f"--rpc_headers: the value of '{name}' is not printable ASCII; encode it, e.g. in base64")


def _check_token_use(options: EndpointOptions, endpoint: Endpoint, header: bool) -> None:
    flags = [("--rpc_token_file", bool(options.token_file)), ("--rpc_google_auth", options.google_auth)]
    given = [flag for flag, is_given in [*flags, ("--rpc_headers authorization=...", header)] if is_given]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} are given, and a call carries one token; give one of them")
    if not endpoint.tls and not _is_loopback(endpoint.host):
        scheme = {"grpc": "grpcs://", "rest": "https://"}[endpoint.protocol]
        raise UsageError(
            f"{given[0]} would send a token unencrypted to {endpoint.address}; give --model {scheme}..., or no token"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
