"""Which servers the clients of BigQuery go to."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from sluice.models.errors import UsageError
from sluice.transforms.bigquery.asked import BY_FLAGS
from sluice.transforms.bigquery.clients import (
    EMULATOR_VARIABLE,
    STORAGE_EMULATOR_VARIABLE,
    check_endpoints,
    close,
    read_client,
    write_client,
)


@pytest.fixture
def no_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STORAGE_EMULATOR_VARIABLE, raising=False)


def host(client: object) -> str:
    found: str = client.transport.host  # type: ignore[attr-defined]
    close(client)
    return found


@pytest.mark.parametrize("value", ["127.0.0.1:1234", "http://127.0.0.1:1234"])
def test_the_emulator(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(STORAGE_EMULATOR_VARIABLE, value)
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


HERE = "http://127.0.0.1:1"
GOOGLE = "https://bigquerystorage.us-east4.rep.googleapis.com"


@pytest.mark.parametrize(
    ("flag", "variable", "storage_flag", "storage_variable", "text"),
    [
        (None, None, None, None, ""),
        (HERE, None, HERE, None, ""),
        (None, HERE, None, "127.0.0.1:2", ""),
        (HERE, None, None, HERE, ""),
        (GOOGLE, None, "bigquerystorage.googleapis.com:443", None, ""),
        ("https://proxy:1", None, HERE, None, ""),
        (HERE, None, "proxy.example:443", None, ""),
        (GOOGLE, HERE, GOOGLE, HERE, ""),
        (
            HERE,
            None,
            None,
            None,
            "looked for at http://127.0.0.1:1 .* would be .*: give --bigquery_storage_endpoint too",
        ),
        (None, HERE, None, None, "give --bigquery_storage_endpoint too"),
        (HERE, None, GOOGLE, HERE, "give --bigquery_storage_endpoint too"),
        (HERE, None, "bigquerystorage.googleapis.com:443", None, "give --bigquery_storage_endpoint too"),
        (None, None, HERE, None, "written to http://127.0.0.1:1 .* Google's BigQuery: give --bigquery_endpoint too"),
        (None, None, None, "127.0.0.1:2", "written to http://127.0.0.1:2 .*: give --bigquery_endpoint too"),
        (GOOGLE, HERE, None, HERE, "give --bigquery_endpoint too"),
    ],
)
def test_tables_and_rows_are_in_one_place(
    monkeypatch: pytest.MonkeyPatch,
    flag: str | None,
    variable: str | None,
    storage_flag: str | None,
    storage_variable: str | None,
    text: str,
) -> None:
    for name, value in ((EMULATOR_VARIABLE, variable), (STORAGE_EMULATOR_VARIABLE, storage_variable)):
        monkeypatch.setenv(name, value or "")
    if text:
        with pytest.raises(UsageError, match=text):
            check_endpoints(flag, storage_flag, BY_FLAGS)
        with pytest.raises(UsageError, match=text.replace("--bigquery_", "")):
            check_endpoints(flag, storage_flag)
    else:
        check_endpoints(flag, storage_flag)
