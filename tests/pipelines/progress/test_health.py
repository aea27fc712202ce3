"""The health port: what each path answers, and when."""

import dataclasses
import http.client
import json
import math
import threading
from collections.abc import Callable

import pytest

from sluice.models.errors import UsageError
from sluice.pipelines.progress import health
from sluice.pipelines.progress.health import HOST, HealthServer
from sluice.pipelines.progress.metric_table import HISTOGRAM, METRICS
from sluice.pipelines.progress.metric_values import Buckets, Value
from sluice.pipelines.progress.stream_stats import StreamFigures
from tests.support.pubsub.fakes_stream import FIGURES
from tests.support.servers import free_port

STUCK = dataclasses.replace(FIGURES, secs_since_progress=600.0)
DRAINING = dataclasses.replace(FIGURES, draining=True)
UNREACHABLE = dataclasses.replace(FIGURES, reachable=False)
DEGRADED = dataclasses.replace(FIGURES, recent_rows=100, recent_failures=99)
PAUSED = dataclasses.replace(FIGURES, trouble="the model does not answer: connection refused")


def server(port: int, figures: Callable[[], StreamFigures], address: str = HOST) -> HealthServer:
    return HealthServer(port, figures, dict[str, Value], address)  # nobody asks for the page of metrics


def get(port: int, path: str, method: str = "GET", host: str = HOST) -> tuple[int, str | None, bytes]:
    """Status, content type and body."""
    connection = http.client.HTTPConnection(host, port)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type"), response.read()
    finally:
        connection.close()


@pytest.fixture(autouse=True)
def quick_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_TICK_SECS", 0.01)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name == "sluice-health"}


@pytest.mark.parametrize(
    "figures,alive,ready",
    [
        (FIGURES, 200, 200),
        (DEGRADED, 200, 200),
        (PAUSED, 200, 503),
        (STUCK, 503, 503),
        (DRAINING, 200, 503),
        (UNREACHABLE, 200, 503),
    ],
    ids=["working", "degraded", "paused", "stuck", "draining", "unreachable"],
)
def test_what_is_answered(figures: StreamFigures, alive: int, ready: int) -> None:
    port = free_port()
    with server(port, lambda: figures):
        answers = {path: get(port, path) for path in ("/healthz", "/readyz", "/figures", "/figures?pretty=1&a=b")}
    assert [status for status, _, _ in answers.values()] == [alive, ready, 200, 200]
    for _, content_type, body in answers.values():
        assert content_type == "application/json"
        assert json.loads(body) == figures.to_json()
        assert body.endswith(b"}\n")


@pytest.mark.parametrize("path", ["/", "/healthz/", "/Healthz", "/metrics/../healthz", "/?/healthz"])
def test_any_other_path_is_404_and_tells_those_there_are(path: str) -> None:
    port = free_port()
    with server(port, lambda: STUCK):
        status, _, body = get(port, path)
    assert (status, json.loads(body)) == (404, {"paths": ["/healthz", "/readyz", "/metrics", "/figures"]})


def test_it_is_read_only() -> None:
    port = free_port()
    with server(port, lambda: FIGURES):
        assert get(port, "/healthz", "POST")[0] == 501


def test_each_answer_is_of_its_moment() -> None:
    moments = iter([FIGURES, STUCK, FIGURES])
    port = free_port()
    with server(port, lambda: next(moments)):
        assert [get(port, "/healthz")[0] for _ in range(3)] == [200, 503, 200]


def test_a_probe_that_waits_does_not_hold_up_another() -> None:
    port = free_port()
    idle = http.client.HTTPConnection(HOST, port)
    with server(port, lambda: FIGURES):
        idle.connect()
        assert get(port, "/readyz")[0] == 200
    idle.close()


def test_probes_are_not_logged(capfd: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    with server(port, lambda: FIGURES):
        get(port, "/healthz")
        get(port, "/nothing")
        get(port, "/healthz", "BREW")
    assert capfd.readouterr() == ("", "")


def test_a_port_that_is_taken() -> None:
    port = free_port()
    with server(port, lambda: FIGURES):
        with pytest.raises(UsageError) as error:
            server(port, lambda: FIGURES)
        assert get(port, "/healthz")[0] == 200
    assert str(error.value) == (
        f"--health_port {port} cannot be opened at 127.0.0.1: Address already in use; give a free port, and an address "
        "of this machine"
    )


def test_an_address_that_is_not_of_this_machine() -> None:
    with pytest.raises(UsageError, match="cannot be opened at 192"):
        server(free_port(), lambda: FIGURES, "192.0.2.1")


@pytest.mark.parametrize(
    ("address", "asked"), [("127.0.0.2", "127.0.0.2"), ("0.0.0.0", HOST), ("0.0.0.0", "127.0.0.2")]
)
def test_the_address_is_the_one_that_was_given(address: str, asked: str) -> None:
    port = free_port()
    with server(port, lambda: FIGURES, address):
        assert get(port, "/healthz", host=asked)[0] == 200
        if address == "127.0.0.2":
            with pytest.raises(ConnectionRefusedError):
                get(port, "/healthz")


def test_metrics_are_the_values_of_their_moment() -> None:
    moments = iter([1, 2])

    def values() -> dict[str, Value]:
        nothing = Buckets([(math.inf, 0)], 0.0)
        made: dict[str, Value] = {each.name: nothing if each.kind == HISTOGRAM else {} for each in METRICS}
        return made | {"sluice_messages_buffered": next(moments)}

    port = free_port()
    with HealthServer(port, lambda: FIGURES, values):
        for number in (1, 2):
            status, content_type, body = get(port, "/metrics")
            assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
            assert f"\nsluice_messages_buffered {number}.0\n" in body.decode()


def test_at_the_end_the_port_is_free_again_whatever_ended_the_block() -> None:
    port = free_port()
    with pytest.raises(KeyError), server(port, lambda: FIGURES):
        raise KeyError
    with pytest.raises(ConnectionRefusedError):
        get(port, "/healthz")
    with server(port, lambda: FIGURES):
        assert get(port, "/healthz")[0] == 200


def test_port_0_does_nothing() -> None:
    before = threads()
    with server(0, lambda: FIGURES):
        assert threads() == before


@pytest.mark.parametrize(
    ("error", "logged"), [(BrokenPipeError("gone"), 0), (KeyError("a figure"), 1), (FileNotFoundError("x"), 1)]
)
def test_an_answer_that_fails_prints_nothing(
    error: Exception, logged: int, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> StreamFigures:
        raise error

    port = free_port()
    with server(port, fail), pytest.raises(http.client.RemoteDisconnected):
        get(port, "/healthz")
    assert capfd.readouterr() == ("", "")
    assert [record.levelname for record in caplog.records if record.levelname != "DEBUG"] == ["ERROR"] * logged
