"""What the servers on loopback say of a request that they cannot answer."""

import http.client

import pytest

from sluice.models.server.http_server import HttpHandler, HttpServer


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
