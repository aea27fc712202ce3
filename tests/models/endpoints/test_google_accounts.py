"""Which of Google's credentials are used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sluice.models.endpoints.google_accounts import find_credentials
from sluice.models.interface import EndpointOptions
from tests.support.serving.google_tokens import token_server


class Answer:
    """An answer to google.auth."""

    def __init__(self, body: Any) -> None:
        self.status, self.headers, self.data = 200, {"content-type": "application/json"}, json.dumps(body).encode()


def test_an_account_is_impersonated_over_its_delegates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, Any]] = []

    def request(url: str, method: str = "GET", body: Any = None, headers: Any = None, **more: Any) -> Answer:
        asked.append((url, body))
        if "generateAccessToken" in url:
            return Answer({"accessToken": "impersonated", "expireTime": "2100-01-01T00:00:00Z"})
        return Answer({"access_token": "own", "expires_in": 3600, "token_type": "Bearer"})

    with token_server() as server:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", server.write_key(tmp_path))
        options = EndpointOptions(google_auth=True, google_account="first@example.com, last@example.com")
        credentials = find_credentials(options)
        credentials.refresh(request)  # type: ignore[arg-type]
    assert credentials.token == "impersonated"
    url, body = asked[-1]
    assert "last@example.com:generateAccessToken" in url
    assert "first@example.com" in str(body) and "cloud-platform" in str(body)


def test_without_an_account_the_credentials_are_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from google.auth.transport.requests import Request

    with token_server() as server:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", server.write_key(tmp_path))
        credentials = find_credentials(EndpointOptions(google_auth=True))
        credentials.refresh(Request())
        credentials.refresh(Request())
    assert (credentials.token, server.given) == ("token-2", 2)
