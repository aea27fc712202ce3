"""Online calls of the local Vertex AI, by Google's generated clients and by plain HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud.aiplatform_v1 import EndpointServiceClient, ModelServiceClient, PredictionServiceClient
from google.protobuf import struct_pb2

from sluice.models.server.vertex.faults import VertexFaults
from sluice.models.server.vertex.limits import SHARED_BYTES
from sluice.models.server.vertex.online import DEPLOYED_MODEL_ID, ENDPOINT_ID
from tests.support.serving.model_servers import RestClient
from tests.support.vertex.clients import rest_client
from tests.support.vertex.service import VertexService, vertex_service

LOST = 2**53 + 1
ORDER = {"amount": 8.0, "items": LOST, "member": True, "country": "de"}


@pytest.fixture(scope="module")
def shared_service(cases: Callable[[str], str]) -> Iterator[VertexService]:
    names = ("picky", "tf2_function", "string_only", "raw_bytes")
    with vertex_service({name: cases(name) for name in names}, dedicated=["string_only"]) as service:
        yield service


@pytest.fixture
def service(shared_service: VertexService) -> VertexService:
    shared_service.server.gate.faults = VertexFaults()
    shared_service.calls.clear()
    return shared_service


@pytest.fixture
def http(service: VertexService) -> Iterator[RestClient]:
    client = RestClient(service.server.port)
    yield client
    client.close()


def call(
    http: RestClient, service: VertexService, name: str, method: str, body: Any, **headers: str
) -> tuple[int, Any, Any]:
    """Returns the status, the JSON and the headers of an online call."""
    path = f"/v1/{service.resources.endpoint_name(name)}:{method}"
    response = http.request("POST", path, body, **headers)
    return response.status, json.loads(response.data), response.headers


def value(plain: Any) -> struct_pb2.Value:
    return struct_pb2.Value(number_value=plain)


def test_endpoints_and_models_are_told_by_the_protos(service: VertexService) -> None:
    endpoint = rest_client(EndpointServiceClient, service).get_endpoint(name=service.resources.endpoint_name("picky"))
    (deployed,) = endpoint.deployed_models
    assert endpoint.display_name == "picky"
    assert dict(endpoint.traffic_split) == {deployed.id: 100}
    assert not endpoint.dedicated_endpoint_enabled
    assert deployed.model_version_id == "1"
    model = rest_client(ModelServiceClient, service).get_model(name=f"{deployed.model}@1")
    assert (model.version_id, model.display_name) == ("1", "picky")
    assert (Path(model.artifact_uri) / "saved_model.pb").exists()
    name = service.resources.endpoint_name("string_only")
    dedicated = rest_client(EndpointServiceClient, service).get_endpoint(name=name)
    assert dedicated.dedicated_endpoint_enabled
    assert dedicated.dedicated_endpoint_dns.endswith(".prediction.vertexai.goog")
    with pytest.raises(exceptions.NotFound):
        rest_client(ModelServiceClient, service).get_model(name=f"{deployed.model}@2")
    with pytest.raises(exceptions.Forbidden):
        rest_client(EndpointServiceClient, service).get_endpoint(name="projects/other/locations/l/endpoints/picky")


def test_the_generated_client_predicts(service: VertexService) -> None:
    client = rest_client(PredictionServiceClient, service)
    endpoint = service.resources.endpoint_name("picky")
    response = client.predict(endpoint=endpoint, instances=[value(4.0), value(9.0)])
    assert list(response.predictions) == [2.0, 3.0]
    (deployed,) = service.resources.deployed("picky")
    assert response.deployed_model_id == deployed.id
    assert (response.model_version_id, response.model_display_name) == ("1", "picky")
    with pytest.raises(exceptions.BadRequest, match="x must not be negative"):
        client.predict(endpoint=endpoint, instances=[value(-4.0)])
    (path,) = {call.path for call in service.calls.all("predict")}
    assert path.endswith(":predict?%24alt=json%3Benum-encoding%3Dint")


def test_raw_predict_is_the_containers_own_body(service: VertexService, http: RestClient) -> None:
    status, answer, headers = call(http, service, "picky", "rawPredict", {"instances": [4.0]})
    assert (status, answer) == (200, {"predictions": [2.0]})
    assert headers[ENDPOINT_ID] == service.resources.endpoint_name("picky").rpartition("/")[2]
    assert headers[DEPLOYED_MODEL_ID] == service.resources.deployed("picky")[0].id
    body = {"signature_name": "serving_default", "inputs": [4.0, 9.0]}
    assert call(http, service, "picky", "rawPredict", body)[1] == {"outputs": [2.0, 3.0]}
    service.faults.without_headers = True
    assert DEPLOYED_MODEL_ID not in call(http, service, "picky", "rawPredict", body)[2]


def test_predict_carries_numbers_as_doubles_and_raw_predict_as_they_are(
    service: VertexService, http: RestClient
) -> None:
    body = {"instances": [ORDER]}
    assert call(http, service, "tf2_function", "rawPredict", body)[1]["predictions"][0]["points"] == [LOST]
    assert call(http, service, "tf2_function", "predict", body)[1]["predictions"][0]["points"] == [LOST - 1]


def test_predict_cannot_carry_what_json_has_not(service: VertexService, http: RestClient) -> None:
    status, answer, _ = call(http, service, "picky", "predict", b'{"instances": [NaN]}')
    assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
    body = b'{"instances": [{"amount": 1e39, "items": 1, "member": false, "country": "de"}]}'  # an infinite float32
    path = f"/v1/{service.resources.endpoint_name('tf2_function')}:rawPredict"
    response = http.request("POST", path, body.replace(b"1e39", b"NaN"))
    assert (response.status, b'"price": NaN' in response.data) == (200, True)
    status, answer, _ = call(http, service, "tf2_function", "predict", body)
    assert status == 400
    assert "Infinity is not JSON" in answer["error"]["message"]


def test_bytes_go_both_ways(service: VertexService, http: RestClient) -> None:
    for method in ("predict", "rawPredict"):
        body = {"instances": [{"b64": "/w=="}]}
        ((row,),) = [call(http, service, "raw_bytes", method, body)[1]["predictions"]]
        assert row == {"framed_bytes": {"b64": "/wD/gA=="}, "size": 1}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("POST", "{endpoint}:predict", {"instances": [1], "signature_name": "x"}, 400, "signature_name"),
        ("POST", "{endpoint}:predict", {}, 400, "no instances"),
        ("POST", "{endpoint}:predict", b"{", 400, "Invalid JSON payload"),
        ("POST", "{endpoint}:predict?x=1", {"instances": [1]}, 400, 'Unknown name "x"'),
        ("POST", "{endpoint}:predict?%24alt=xml", {"instances": [1]}, 400, "$alt"),
        ("POST", "{endpoint}:explain", {"instances": [1]}, 501, "explain"),
        ("POST", "{endpoint}x:predict", {"instances": [1]}, 404, "does not exist"),
        ("POST", "projects/p/locations/other/endpoints/picky:predict", {"instances": [1]}, 404, "only l"),
        ("GET", "{endpoint}/x", None, 404, "was not found on this server"),
        ("GET", "projects/p/locations/l/models/picky%402", None, 404, "does not exist"),
        ("GET", "projects/p/locations/l/models/picky%40default", None, 200, "artifactUri"),
    ],
)
def test_what_is_refused(
    method: str, path: str, body: Any, status: int, text: str, service: VertexService, http: RestClient
) -> None:
    response = http.request(method, "/v1/" + path.format(endpoint=service.resources.endpoint_name("picky")), body)
    assert response.status == status
    answer = json.loads(response.data)
    assert text in (answer if status == 200 else answer["error"]["message"])
    assert status == 200 or answer["error"]["code"] == status


def test_enums_are_numbers_where_a_client_asks(service: VertexService, http: RestClient) -> None:
    path = f"/v1/{service.resources.model_name('picky')}"
    field = "supportedDeploymentResourcesTypes"
    assert json.loads(http.request("GET", path).data)[field] == ["DEDICATED_RESOURCES"]
    numbers = http.request("GET", f"{path}?%24alt=json%3Benum-encoding%3Dint")
    assert json.loads(numbers.data)[field] == [1]


def test_requests_and_answers_have_limits(service: VertexService, http: RestClient) -> None:
    text = "x" * (SHARED_BYTES - 100)
    body = {"instances": [{"b64": text[: len(text) // 4 * 4]}]}
    assert call(http, service, "raw_bytes", "rawPredict", body)[0] == 200
    body = {"instances": ["x" * SHARED_BYTES]}
    status, answer, _ = call(http, service, "raw_bytes", "rawPredict", body)
    assert (status, answer["error"]["message"]) == (400, "Request payload size exceeds the limit: 1500000 bytes.")
    assert call(http, service, "string_only", "rawPredict", body)[0] == 200, "a dedicated endpoint takes 10 MB"
    service.faults.max_answer_bytes = 20
    status, answer, _ = call(http, service, "picky", "rawPredict", {"instances": [4.0] * 10})
    assert status == 400
    assert "Response size too large. Received at least" in answer["error"]["message"]
    assert call(http, service, "picky", "rawPredict", {"instances": [4.0]})[0] == 400
    service.faults.max_answer_bytes = 30
    assert call(http, service, "picky", "rawPredict", {"instances": [4.0]})[0] == 200


def test_the_models_own_errors(service: VertexService, http: RestClient) -> None:
    body = {"instances": [4.0, -1.0]}
    status, answer, _ = call(http, service, "picky", "rawPredict", body)
    assert status == 400
    assert "x must not be negative" in json.loads(answer["error"]["message"])["error"]
    service.faults.raw_errors = True
    status, answer, _ = call(http, service, "picky", "rawPredict", body)
    assert status == 400
    assert "x must not be negative" in answer["error"]


def test_a_peered_endpoint_is_the_container_itself(service: VertexService, http: RestClient) -> None:
    uri = service.peering_uri("picky").removeprefix(f"vertex+http://127.0.0.1:{service.server.port}")
    response = http.request("POST", uri, {"instances": [4.0]})
    assert (response.status, json.loads(response.data)) == (200, {"predictions": [2.0]})
    assert ENDPOINT_ID not in response.headers
    assert service.calls.all()[0].method == "peering"
    assert http.request("POST", "/v1/models/1:predict", {"instances": [4.0]}).status == 404
    bad = http.request("POST", uri, {"instances": [-4.0]})
    assert (bad.status, "x must not be negative" in json.loads(bad.data)["error"]) == (400, True)


def test_traffic_is_split_over_versions(cases: Callable[[str], str], tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / version).symlink_to(cases("picky"))
    with vertex_service({"picky": str(tmp_path)}) as service:
        http = RestClient(service.server.port)
        (newest,) = service.resources.deployed("picky")
        assert newest.spec.version == 2
        service.resources.split("picky", {"picky@1": 30, "picky@2": 70})
        ids = {each.id: each.spec.version for each in service.resources.deployed("picky")}
        for _ in range(20):
            answered = call(http, service, "picky", "rawPredict", {"instances": [4.0]})[2][DEPLOYED_MODEL_ID]
            assert answered in ids
        http.close()
        by_version = {ids[each]: count for each, count in service.resources.served("picky").items()}
        assert by_version == {1: 6, 2: 14}
        endpoint = rest_client(EndpointServiceClient, service).get_endpoint(
            name=service.resources.endpoint_name("picky")
        )
        assert sorted(endpoint.traffic_split.values()) == [30, 70]
        assert {each.id: int(each.model_version_id) for each in endpoint.deployed_models} == ids
