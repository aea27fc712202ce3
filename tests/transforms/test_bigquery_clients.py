"""Where the clients of BigQuery's Storage API go."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from models.errors import UsageError
from transforms.bigquery_clients import EMULATOR_VARIABLE, close, read_client, write_client


@pytest.fixture
def no_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(EMULATOR_VARIABLE, raising=False)


def host(client: object) -> str:
    found: str = client.transport.host  # type: ignore[attr-defined]
    close(client)
    return found


@pytest.mark.parametrize("value", ["127.0.0.1:1234", "http://127.0.0.1:1234"])
def test_the_emulator(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(EMULATOR_VARIABLE, value)
    assert host(read_client()) == host(write_client()) == "127.0.0.1:1234"
    assert host(read_client("http://127.0.0.1:5678/")) == "127.0.0.1:5678"


@pytest.mark.usefixtures("no_emulator")
def test_credentials_go_over_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {"type": "service_account", "project_id": "p", "client_email": "a@b.c", "private_key": key.decode()}
    (tmp_path / "key.json").write_text(json.dumps({**account, "token_uri": "https://127.0.0.1:1/token"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    assert host(read_client()) == host(write_client()) == "bigquerystorage.googleapis.com:443"
    for endpoint in ("localhost:5678", "https://localhost:5678"):
        assert host(read_client(endpoint)) == host(write_client(endpoint)) == "localhost:5678"


@pytest.mark.usefixtures("no_emulator")
def test_without_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    for open_one in (read_client, write_client):
        with pytest.raises(UsageError, match=r"BigQuery needs credentials: .*none\.json"):
            open_one("localhost:5678")
