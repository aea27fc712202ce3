"""What is asked of Vertex AI about endpoints and models, and what is made of the answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sluice.models.endpoints import vertex_lookup
from sluice.models.endpoints.vertex_lookup import (
    DeployedModel,
    Forbidden,
    NoSuchResource,
    base_of,
    default_deployed,
    get_resource,
    look_up_versions,
    read_endpoint,
    versions_of,
    with_google_token,
)
from sluice.models.errors import ModelNotFound, UsageError
from sluice.models.interface import EndpointOptions
from sluice.models.uri import Deployed, Endpoint, parse_model_uri
from tests.support.fakes import PATIENCE_SECS
from tests.support.servers import free_port
from tests.support.serving.rest_servers import Reply, Server, serving

NAME = "projects/p/locations/l/endpoints/42"
MODEL = "projects/123/locations/l/models/9"


@pytest.fixture(name="serve")
def serve_fixture() -> Iterator[Callable[..., Server]]:
    with serving() as start:
        yield start


def options(server: Server, **more: Any) -> EndpointOptions:
    return EndpointOptions(vertex_endpoint=f"http://127.0.0.1:{server.server_port}", **more)


def deployed(number: int, model: str = MODEL, version: str = "1") -> dict[str, str]:
    return {"id": str(number), "model": model, "modelVersionId": version}


def endpoint(*models: Any, split: dict[str, int] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": NAME, "deployedModels": list(models), "trafficSplit": split or {models[0]["id"]: 100}, **more}


def test_a_shared_endpoint() -> None:
    assert read_endpoint(endpoint(deployed(77, version="3"))) == (
        Deployed("shared", "", 60.0, (("77", 3),)),
        [DeployedModel("77", f"{MODEL}@3", 3, 100)],
    )


@pytest.mark.parametrize(
    ("more", "kind", "host", "secs"),
    [
        ({"dedicatedEndpointEnabled": True, "dedicatedEndpointDns": "https://d.goog"}, "dedicated", "d.goog", 600.0),
        ({"dedicatedEndpointEnabled": True, "dedicatedEndpointDns": "d.goog"}, "dedicated", "d.goog", 600.0),
        ({"dedicatedEndpointEnabled": True, "dedicatedEndpointDns": "D.goog:8443"}, "dedicated", "d.goog:8443", 600.0),
        (
            {"dedicatedEndpointEnabled": True, "clientConnectionConfig": {"inferenceTimeout": "1800s"}},
            "dedicated",
            "",
            1800.0,
        ),
        (
            {
                "privateServiceConnectConfig": {"enablePrivateServiceConnect": True},
                "clientConnectionConfig": {"inferenceTimeout": "3.5s"},
            },
            "private",
            "",
            3.5,
        ),
        ({"network": "projects/1/global/networks/n"}, "peering", "", 60.0),
        ({"dedicatedEndpointDns": "d.goog"}, "shared", "", 60.0),
        ({"clientConnectionConfig": {"inferenceTimeout": "1800s"}}, "shared", "", 60.0),
        (
            {"dedicatedEndpointEnabled": True, "clientConnectionConfig": {"inferenceTimeout": "?"}},
            "dedicated",
            "",
            600.0,
        ),
    ],
)
def test_the_kind_of_an_endpoint(more: Any, kind: str, host: str, secs: float) -> None:
    found, _ = read_endpoint(endpoint(deployed(77), **more))
    assert (found.kind, found.host, found.timeout_secs) == (kind, host, secs)


@pytest.mark.parametrize("dns", ["evil.com/.d.goog", "u@d.goog", "http://d.goog", "d.goog?x", "d.goog:", "d g", "d\n"])
def test_what_is_no_host_gets_no_calls(dns: str) -> None:
    with pytest.raises(ModelNotFound, match="dedicatedEndpointDns is no host"):
        read_endpoint(endpoint(deployed(77), dedicatedEndpointEnabled=True, dedicatedEndpointDns=dns))


def test_models_without_traffic_are_known_and_not_used() -> None:
    models = deployed(1), deployed(2, version="2"), deployed(3, version="3")
    found, active = read_endpoint(endpoint(*models, split={"2": 10, "3": 90}))
    assert [each.id for each in active] == ["3", "2"]
    assert dict(found.versions) == {"1": 1, "2": 2, "3": 3}


def test_an_endpoint_without_models() -> None:
    with pytest.raises(ModelNotFound, match=f"endpoint {NAME} has no deployed model; deploy one"):
        read_endpoint({"name": NAME})


def model(number: str, version: int | None) -> DeployedModel:
    return DeployedModel(number, MODEL, version, 50)


def test_versions_are_those_of_the_models_unless_two_have_the_same() -> None:
    assert versions_of([model("77", 3), model("78", 4)]) == {"77": 3, "78": 4}
    assert versions_of([model("77", 1), model("78", 1), model("79", 2)]) == {"77": 77, "78": 78, "79": 2}
    assert versions_of([model("77", None), model("odd", None)]) == {"77": 77}


def test_versions_that_rows_have_stay() -> None:
    known = {"77": 1}
    assert versions_of([model("77", 1), model("78", 1), model("79", 2)], known) == {"77": 1, "78": 78, "79": 2}
    assert versions_of([], known) == known, "a model that is gone may still have answered"


@pytest.mark.parametrize(
    ("name", "uri", "vertex_endpoint", "address"),
    [
        (NAME, f"vertex://{NAME}", "", "l-aiplatform.googleapis.com:443"),
        (NAME, f"vertex://10.0.0.1/{NAME}", "", "l-aiplatform.googleapis.com:443"),
        (NAME, f"vertex+http://proxy:8600/{NAME}", "", "proxy:8600"),
        (NAME, f"vertex+http://proxy:8600/{NAME}", "http://other:1", "other:1"),
        (NAME, f"vertex://{NAME}", "https://other", "other:443"),
        ("projects/p/locations/elsewhere/models/9", f"vertex://{NAME}", "", "elsewhere-aiplatform.googleapis.com:443"),
    ],
)
def test_where_a_resource_is_read(name: str, uri: str, vertex_endpoint: str, address: str) -> None:
    given = EndpointOptions(vertex_endpoint=vertex_endpoint)
    base = base_of(name, given, parse_model_uri(uri).endpoint)
    assert base.address == address
    assert base.tls == address.endswith(":443")


def test_a_google_token_goes_over_tls_and_beside_no_other() -> None:
    tls, plain = Endpoint("vertex", "h", 443, "", True), Endpoint("vertex", "h", 80, "")
    assert with_google_token(EndpointOptions(), tls).google_auth
    assert not with_google_token(EndpointOptions(), plain).google_auth
    assert with_google_token(EndpointOptions(google_auth=True), plain).google_auth, "asked for; check_secrets decides"
    for given in ({"token_file": "t"}, {"google_audience": "a"}, {"headers": (("Authorization", "Bearer x"),)}):
        assert not with_google_token(EndpointOptions(**given), tls).google_auth  # type: ignore[arg-type]


def test_what_is_asked(serve: Any) -> None:
    server = serve(lambda _: {"name": "x"})
    given = options(server, headers=(("host", "model.example.com"), ("X-Team", "a"), ("Authorization", "Bearer x")))
    assert get_resource(f"{MODEL}@3", given, PATIENCE_SECS) == {"name": "x"}
    (request,) = server.requests
    assert (request.method, request.path) == ("GET", f"/v1/{MODEL}%403")
    assert request.headers["authorization"] == "Bearer x"
    assert "x-team" not in request.headers and request.headers["host"].startswith("127.0.0.1"), "those are for calls"


@pytest.mark.parametrize(
    "given",
    [{"token_file": "token"}, {"google_audience": "a"}, {"headers": (("Authorization", "Bearer x"), ("X-Key", "k"))}],
)
@pytest.mark.parametrize(
    ("host", "is_given"), [("", True), ("42.l-1.prediction.vertexai.goog/", True), ("10.0.0.1/", False)]
)
def test_credentials_for_a_host_do_not_go_to_another(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], host: str, is_given: bool
) -> None:
    used: list[EndpointOptions] = []

    class NoCredentials:
        def __init__(self, options: EndpointOptions, endpoint: Endpoint) -> None:
            used.append(options)
            assert endpoint.host == "l-aiplatform.googleapis.com"
            raise UsageError("there are none")

    monkeypatch.setattr(vertex_lookup, "Credentials", NoCredentials)
    target = parse_model_uri(f"vertex://{host}{NAME}").endpoint
    with pytest.raises(UsageError) as error:
        get_resource(NAME, EndpointOptions(**given), PATIENCE_SECS, target)
    (options,) = used
    assert bool(options.token_file or options.google_audience or options.headers) is is_given
    assert options.google_auth is not is_given, "then Google's own go"
    assert isinstance(error.value, Forbidden) is not is_given, "--signature_from does without the look-up"


def status(code: int, text: str) -> Reply:
    return Reply(code, json.dumps({"error": {"code": code, "message": text, "status": "X"}}).encode())


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (status(401, "no token"), Forbidden, "refuses to tell of .*endpoints/42: UNAUTHENTICATED: no token"),
        (status(403, "not you"), Forbidden, "refuses .* permission aiplatform.endpoints.get .*, or --signature_from"),
        (status(404, "no such thing"), NoSuchResource, f"has no {NAME}: no such thing"),
        (status(400, "odd"), ModelNotFound, "does not tell of .*: INVALID_ARGUMENT: odd"),
        (status(503, "busy"), ModelNotFound, "does not tell of .*: UNAVAILABLE: busy"),
        (Reply(200, b"<html>"), ModelNotFound, "answers, but is not Vertex AI: <html>"),
        (Reply(200, b"[]"), ModelNotFound, "answers, but is not Vertex AI"),
    ],
)
def test_a_resource_that_is_not_told(serve: Any, reply: Reply, kind: type[Exception], text: str) -> None:
    server = serve(lambda _: reply)
    with pytest.raises(ModelNotFound, match=f"^127.0.0.1:{server.server_port} {text}") as error:
        get_resource(NAME, options(server), PATIENCE_SECS, sleep=lambda _: None)
    assert type(error.value) is kind


def test_a_busy_service_is_asked_again(serve: Any) -> None:
    replies: list[Any] = [status(503, "busy"), status(429, "quota"), {"name": "x"}]
    server = serve(lambda _: replies.pop(0))
    slept: list[float] = []
    assert get_resource(NAME, options(server), PATIENCE_SECS, sleep=slept.append) == {"name": "x"}
    assert slept == [1.0, 2.0]


def test_nobody_listens() -> None:
    port = free_port()
    given = EndpointOptions(vertex_endpoint=f"http://127.0.0.1:{port}")
    with pytest.raises(ModelNotFound, match=f"127.0.0.1:{port} cannot be reached: .*; Vertex AI's API is expected"):
        get_resource(NAME, given, PATIENCE_SECS)


def test_versions_are_looked_up_again(serve: Any) -> None:
    server = serve(lambda _: endpoint(deployed(77), deployed(78, version="2")))
    target = parse_model_uri(f"vertex://{NAME}").endpoint
    assert target is not None
    assert look_up_versions(NAME, options(server), PATIENCE_SECS, target, {"77": 1}) == {"77": 1, "78": 2}
    server.answer = lambda _: status(503, "busy")
    assert look_up_versions(NAME, options(server), PATIENCE_SECS, target, {"77": 1}) == {"77": 1}
    assert len(server.requests) == 2, "a call that has its answer waits for it"
    server.answer = lambda _: status(403, "not you")
    assert look_up_versions(NAME, options(server), PATIENCE_SECS, target, {"77": 1}) == {"77": 1}


def test_what_is_taken_for_granted_of_an_endpoint_that_is_not_told() -> None:
    assert default_deployed("peering") == Deployed("peering", "", 60.0)
    assert default_deployed("dedicated") == Deployed("dedicated", "", 600.0)
