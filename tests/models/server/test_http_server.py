"""What the servers on loopback say of a request that they cannot answer, and how they end."""

import http.client
import socket
import threading

import pytest

from sluice.models.server import http_server
from sluice.models.server.http_server import HttpHandler, HttpServer
from tests.support.fakes import PATIENCE_SECS


class Broken(HttpHandler):
    """A handler with a fault of its own."""

    def do_GET(self) -> None:
        raise KeyError("a fault")


def test_a_fault_of_a_handler_is_logged_and_not_printed(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    server = HttpServer(Broken, 0, "port")
    server.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", "/")
    with pytest.raises(ConnectionError):
        connection.getresponse()
    connection.close()
    server.close()
    (record,) = caplog.records
    assert record.levelname == "ERROR" and record.exc_info and isinstance(record.exc_info[1], KeyError)
    assert capfd.readouterr() == ("", "")


def test_an_idle_server_is_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_LOOK_SECS", 10 * PATIENCE_SECS)
    server = HttpServer(Broken, 0, "port")
    server.start()
    closing = threading.Thread(target=server.close, daemon=True)
    closing.start()
    closing.join(PATIENCE_SECS)
    assert not closing.is_alive()
    with socket.create_server(("127.0.0.1", server.port)):
        pass  # the port is free
