"""What the local Vertex AI does wrong on purpose."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from sluice.models.server.vertex.faults import VertexFaults
from tests.support.certificates import Certificate
from tests.support.fakes import PATIENCE_SECS
from tests.support.serving.model_servers import RestClient
from tests.support.vertex.service import VertexService, vertex_service

BODY = {"instances": [4.0]}


@pytest.fixture(scope="module")
def shared_service(cases: Callable[[str], str]) -> Iterator[VertexService]:
    with vertex_service({"picky": cases("picky")}) as service:
        yield service


@pytest.fixture
def service(shared_service: VertexService) -> VertexService:
    shared_service.server.gate.faults = VertexFaults()
    shared_service.calls.clear()
    return shared_service


def raw(service: VertexService, **headers: str) -> tuple[int, Any, Any]:
    """Calls rawPredict on a connection of its own."""
    http = RestClient(service.server.port)
    path = f"/v1/{service.resources.endpoint_name('picky')}:rawPredict"
    response = http.request("POST", path, BODY, **headers)
    http.close()
    return response.status, json.loads(response.data), response.headers


def statuses(service: VertexService, count: int) -> list[int]:
    return [raw(service)[0] for _ in range(count)]


def test_errors_in_order_and_what_they_ask(service: VertexService) -> None:
    service.faults.next_errors += ["RESOURCE_EXHAUSTED", "UNAVAILABLE", "INTERNAL"]
    service.faults.retry_after = "7"
    status, answer, headers = raw(service)
    assert (status, answer["error"]["status"], headers["Retry-After"]) == (429, "RESOURCE_EXHAUSTED", "7")
    service.faults.errors_as_array = True
    status, answer, _ = raw(service)
    assert (status, answer[0]["error"]["code"]) == (503, 503)
    assert statuses(service, 2) == [500, 200]
    assert service.calls.statuses("rawPredict") == {429: 1, 503: 1, 500: 1, 200: 1}


def test_a_share_of_the_calls_fails(service: VertexService) -> None:
    service.faults.full_rate, service.faults.unavailable_rate = 0.3, 0.1
    found = statuses(service, 100)
    assert 10 < found.count(429) < 60
    assert 1 < found.count(503) < 30
    assert found.count(200) + found.count(429) + found.count(503) == 100
    endpoint = f"/v1/{service.resources.endpoint_name('picky')}"
    service.faults.full_rate = 1.0
    http = RestClient(service.server.port)
    assert http.request("GET", endpoint).status == 200, "look-ups do not fail unless a test names them"
    service.faults.methods = {"getEndpoint"}
    assert http.request("GET", endpoint).status == 429
    http.close()


def test_tokens_expire(service: VertexService) -> None:
    service.faults.token_calls = 2
    assert raw(service)[0] == 401
    assert [raw(service, Authorization="Bearer a")[0] for _ in range(3)] == [200, 200, 401]
    assert raw(service, Authorization="Bearer b")[0] == 200
    assert raw(service, Authorization="Basic b")[0] == 401
    assert service.calls.all()[1].authorization == "Bearer a"
    peering = service.peering_uri("picky").partition(f":{service.server.port}")[2]
    http = RestClient(service.server.port)
    assert http.request("POST", peering, BODY).status == 200
    http.close()


def test_an_answer_is_lost_after_the_call_was_served(service: VertexService) -> None:
    service.faults.lost_answers += ["rawPredict"]
    with pytest.raises(urllib3.exceptions.HTTPError):
        raw(service)
    assert service.calls.count("rawPredict", status=200) == 1
    assert raw(service)[0] == 200


def test_it_is_gone_for_a_while(service: VertexService) -> None:
    idle = socket.create_connection(("127.0.0.1", service.server.port), PATIENCE_SECS)
    assert raw(service)[0] == 200
    with service.gone():
        with pytest.raises(urllib3.exceptions.HTTPError):
            raw(service)
        assert idle.recv(1) == b"", "connections that there are end too"
    idle.close()
    assert raw(service)[0] == 200


def test_a_test_waits_for_calls(service: VertexService) -> None:
    raw(service)
    assert service.calls.wait(1, "rawPredict")
    assert not service.calls.wait(1, "predict", timeout_secs=0.0)
    service.calls.clear()
    assert service.calls.count() == 0


def test_it_is_slow_but_ends(service: VertexService) -> None:
    service.faults.latency_ms = 1.0
    assert raw(service)[0] == 200


def test_it_speaks_tls(cases: Callable[[str], str], tmp_path: Path) -> None:
    certificate = Certificate()
    (tmp_path / "ca.pem").write_text(certificate.text)
    with vertex_service({"picky": cases("picky")}, tls=certificate.server_context(tmp_path)) as service:
        assert service.url.startswith("https://")
        pool = urllib3.PoolManager(ca_certs=str(tmp_path / "ca.pem"), timeout=PATIENCE_SECS, retries=False)
        url = f"{service.url}/v1/{service.resources.endpoint_name('picky')}"
        assert pool.request("GET", url).status == 200
        pool.clear()
