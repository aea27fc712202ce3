"""The health port: what each path answers, and when."""

import dataclasses
import http.client
import json
import threading

import pytest

from sluice.models.errors import UsageError
from sluice.pipelines.progress.health import HOST, HealthServer
from sluice.pipelines.progress.stream_stats import StreamFigures
from tests.support.pubsub.fakes_stream import FIGURES
from tests.support.servers import free_port

STUCK = dataclasses.replace(FIGURES, secs_since_progress=600.0)
DRAINING = dataclasses.replace(FIGURES, draining=True)
AWAY = dataclasses.replace(FIGURES, reachable=False)


def get(port: int, path: str, method: str = "GET") -> tuple[int, str | None, bytes]:
    """Status, content type and body."""
    connection = http.client.HTTPConnection(HOST, port)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type"), response.read()
    finally:
        connection.close()


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name == "sluice-health"}


@pytest.mark.parametrize(
    "figures,alive,ready",
    [(FIGURES, 200, 200), (STUCK, 503, 200), (DRAINING, 200, 503), (AWAY, 200, 503)],
    ids=["well", "stuck", "draining", "away"],
)
def test_what_is_answered(figures: StreamFigures, alive: int, ready: int) -> None:
    port = free_port()
    with HealthServer(port, lambda: figures):
        answers = {path: get(port, path) for path in ("/healthz", "/readyz", "/metrics", "/metrics?pretty=1&a=b")}
    assert [status for status, _, _ in answers.values()] == [alive, ready, 200, 200]
    for _, content_type, body in answers.values():
        assert content_type == "application/json"
        assert json.loads(body) == figures.to_json()
        assert body.endswith(b"}\n")


@pytest.mark.parametrize("path", ["/", "/healthz/", "/Healthz", "/metrics/../healthz", "/?/healthz"])
def test_any_other_path_is_404_and_tells_those_there_are(path: str) -> None:
    port = free_port()
    with HealthServer(port, lambda: STUCK):
        status, _, body = get(port, path)
    assert (status, json.loads(body)) == (404, {"paths": ["/healthz", "/readyz", "/metrics"]})


def test_it_is_read_only() -> None:
    port = free_port()
    with HealthServer(port, lambda: FIGURES):
        assert get(port, "/healthz", "POST")[0] == 501


def test_each_answer_is_of_its_moment() -> None:
    moments = iter([FIGURES, STUCK, FIGURES])
    port = free_port()
    with HealthServer(port, lambda: next(moments)):
        assert [get(port, "/healthz")[0] for _ in range(3)] == [200, 503, 200]


def test_a_probe_that_waits_does_not_hold_up_another() -> None:
    port = free_port()
    idle = http.client.HTTPConnection(HOST, port)
    with HealthServer(port, lambda: FIGURES):
        idle.connect()
        assert get(port, "/readyz")[0] == 200
    idle.close()


def test_probes_are_not_logged(capfd: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    with HealthServer(port, lambda: FIGURES):
        get(port, "/healthz")
        get(port, "/nothing")
        get(port, "/healthz", "BREW")
    assert capfd.readouterr() == ("", "")


def test_a_port_that_is_taken() -> None:
    port = free_port()
    with HealthServer(port, lambda: FIGURES):
        with pytest.raises(UsageError) as error:
            HealthServer(port, lambda: FIGURES)
        assert get(port, "/healthz")[0] == 200
    assert str(error.value) == f"--health_port {port} cannot be opened: Address already in use; give a free port"


def test_at_the_end_the_port_is_free_again_whatever_ended_the_block() -> None:
    port = free_port()
    with pytest.raises(KeyError), HealthServer(port, lambda: FIGURES):
        raise KeyError
    with pytest.raises(ConnectionRefusedError):
        get(port, "/healthz")
    with HealthServer(port, lambda: FIGURES):
        assert get(port, "/healthz")[0] == 200


def test_port_0_does_nothing() -> None:
    before = threads()
    with HealthServer(0, lambda: FIGURES):
        assert threads() == before
