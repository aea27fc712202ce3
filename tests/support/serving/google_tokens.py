"""Google's token endpoint on this machine, and the key of a service account whose tokens come from there."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.exceptions import TransportError

from tests.support.serving.local_server import Handler, LocalServer


class TokenServer(LocalServer):
    """Gives access tokens, each once: token-1, token-2 and so on.

    Attributes:
      given: how many tokens it has given.
    """

    def __init__(self) -> None:
        self.given = 0
        numbers = itertools.count(1)
        server = self

        class Tokens(Handler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                server.given = next(numbers)
                answer = {"access_token": f"token-{server.given}", "expires_in": 3600, "token_type": "Bearer"}
                self.send_json(200, json.dumps(answer).encode())

        super().__init__(Tokens)

    def write_key(self, directory: Path) -> str:
        """Writes the key file of a service account; returns its path, for GOOGLE_APPLICATION_CREDENTIALS."""
        key = rsa.generate_private_key(65537, 2048)
        form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        account = {
            "type": "service_account",
            "client_email": "sluice@example.com",
            "private_key": key.private_bytes(*form).decode(),
            "token_uri": f"{self.url}/token",
            "project_id": "p",
        }
        path = directory / "key.json"
        path.write_text(json.dumps(account))
        return str(path)


@contextlib.contextmanager
def token_server() -> Iterator[TokenServer]:
    """Runs a TokenServer while the block runs."""
    server = TokenServer()
    try:
        yield server
    finally:
        server.close()


class NoServer:
    """Sends google.auth's requests on a network on which nothing answers.

    Attributes:
      timeouts: of the requests, in seconds.
    """

    def __init__(self) -> None:
        self.timeouts: list[float | None] = []

    def __call__(
        self, url: str, method: str = "GET", body: object = None, headers: object = None, timeout: float | None = None
    ) -> NoReturn:
        self.timeouts.append(timeout)
        raise TransportError(f"{url} does not answer")
