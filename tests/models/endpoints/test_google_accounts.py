"""Which of Google's credentials are used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.auth.exceptions import DefaultCredentialsError, TransportError

from sluice.models.endpoints.google_accounts import LookUpRequest, default_credentials, find_credentials
from sluice.models.errors import UsageError
from sluice.models.interface import EndpointOptions
from tests.support.serving.google_tokens import NoServer, token_server


@pytest.fixture
def logged_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """There are no credentials on this machine."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))


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


def test_elsewhere_than_at_google_the_metadata_server_is_asked_once_and_not_for_long(
    logged_out: None, tmp_path: Path
) -> None:
    server = NoServer()
    with pytest.raises(DefaultCredentialsError, match="no file of credentials is found, and this is none of Google's"):
        default_credentials(request=LookUpRequest(server, product=str(tmp_path / "none")))  # type: ignore[arg-type]
    (timeout,) = server.timeouts
    assert timeout is not None and timeout <= 3


def test_a_machine_of_googles_asks_on(tmp_path: Path) -> None:
    (tmp_path / "product").write_text("Google Compute Engine\n")
    ask = LookUpRequest(NoServer(), product=str(tmp_path / "product"))  # type: ignore[arg-type]
    with pytest.raises(TransportError):
        ask("http://169.254.169.254", headers={"metadata-flavor": "Google"}, timeout=3)


def test_other_requests_of_a_look_up_fail_as_they_do() -> None:
    """Such as that to a service that exchanges tokens."""
    with pytest.raises(TransportError):
        LookUpRequest(NoServer())("https://sts.example.com", headers={})  # type: ignore[arg-type]


def test_the_look_up_for_an_id_token_ends_as_soon(logged_out: None, tmp_path: Path) -> None:
    server = NoServer()
    request = LookUpRequest(server, product=str(tmp_path / "none"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="there is no service account to get an ID token for: no file of credentials"):
        find_credentials(EndpointOptions(google_audience="https://example.com"), request)  # type: ignore[arg-type]
    assert len(server.timeouts) == 1
