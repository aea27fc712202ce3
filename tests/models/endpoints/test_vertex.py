"""The client of Vertex AI's endpoints: what it sends, to whom, with which token, and what it makes of the answers."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sluice.models.batching.options import SchedulerOptions
from sluice.models.batching.scheduler import Scheduler
from sluice.models.cache import ModelRecipe, open_model, open_scheduler
from sluice.models.endpoints import vertex
from sluice.models.endpoints.vertex import VertexModel
from sluice.models.errors import (
    BadInput,
    BadOutput,
    CallError,
    MessageTooLarge,
    Overloaded,
    Refused,
    Unavailable,
    UsageError,
)
from sluice.models.files import LocalFiles
from sluice.models.interface import EndpointOptions, ModelOptions
from sluice.models.uri import Deployed, parse_model_uri
from tests.support.certificates import Certificate
from tests.support.fakes import PATIENCE_SECS, X_TO_Y, x_feeds
from tests.support.saved_models.by_hand import INT64, STRING, HandMade
from tests.support.servers import free_port
from tests.support.serving.rest_servers import Reply, Request, Server, doubled, serving

NAME = "projects/p/locations/l/endpoints/42"
PATH = f"/v1/{NAME}"
MODEL = "projects/p/locations/l/models/9"
SHARED = Deployed("shared", "", 60.0, (("77", 3),))


@pytest.fixture(name="serve")
def serve_fixture() -> Iterator[Callable[..., Server]]:
    with serving() as start:
        yield start


def raw(request: Request, deployed: str = "77") -> Reply:
    """Answers rawPredict as a model of X_TO_Y does."""
    return Reply(body=json.dumps(doubled(request)).encode(), headers={"X-Vertex-AI-Deployed-Model-Id": deployed})


def opened(
    server: Server,
    query: str = "",
    signature: Any = X_TO_Y,
    deployed: Deployed | None = SHARED,
    model: dict[str, Any] | None = None,
    **endpoint: Any,
) -> VertexModel:
    """Returns a client whose calls go to a server of this machine, as --vertex_endpoint has it."""
    spec = dataclasses.replace(parse_model_uri(f"vertex://{NAME}{query}"), deployed=deployed)
    given = EndpointOptions(**{"vertex_endpoint": f"http://127.0.0.1:{server.server_port}", **endpoint})
    return VertexModel(spec, ModelOptions(**(model or {}), endpoint=given), LocalFiles(), signature)


def test_a_raw_call(serve: Any) -> None:
    server = serve(raw)
    model = opened(server, headers=(("X-Team", "ads"),))
    assert (model.remote, model.version, model.uri) == (True, None, f"vertex://{NAME}")
    outputs = model.call(x_feeds(1, 2))
    assert {name: array.tolist() for name, array in outputs.arrays.items()} == {"text": [b"1", b"2"], "y": [2, 4]}
    assert outputs.version == 3
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", f"{PATH}:rawPredict")
    assert request.json == {"signature_name": "serving_default", "instances": [{"x": 1}, {"x": 2}]}
    assert (request.headers["content-type"], request.headers["x-team"]) == ("application/json", "ads")
    assert "authorization" not in request.headers, "it is not encrypted"


def test_predict(serve: Any) -> None:
    def predicted(request: Request) -> Any:
        return {**doubled(request), "deployedModelId": "77", "modelVersionId": "3"}

    server = serve(predicted)
    outputs = opened(server, "?method=predict").call(x_feeds(1, 2))
    assert (outputs.arrays["y"].tolist(), outputs.version) == ([2, 4], 3)
    (request,) = server.requests
    assert (request.path, request.json) == (f"{PATH}:predict", {"instances": [{"x": 1}, {"x": 2}]})
    with pytest.raises(BadInput, match="is not exact as a double") as error:
        opened(server, "?method=predict").call(x_feeds(2**53 + 1))
    assert error.value.is_unsent


def test_whole_numbers_come_through_a_raw_call(serve: Any) -> None:
    values = [2**53 + 1, -(2**53) - 1, 2**61 + 1, -(2**61) - 1]
    assert opened(serve(raw)).call(x_feeds(*values)).arrays["y"].tolist() == [2 * value for value in values]


@pytest.mark.parametrize(
    ("answered", "known", "version"),
    [
        ("77", (("77", 3), ("78", 4)), 3),
        ("78", (("77", 3), ("78", 4)), 4),
        ("", (("77", 3),), 3),
        ("", (("77", 3), ("78", 4)), None),
        ("", (), None),
        ("odd", (("77", 3),), None),
    ],
)
def test_the_version_is_that_of_the_deployed_model_that_answered(
    serve: Any, answered: str, known: Any, version: int | None
) -> None:
    def answer(request: Request) -> Any:
        if request.method == "GET":
            return {"name": NAME}
        return raw(request, answered) if answered else doubled(request)

    model = opened(serve(answer), deployed=dataclasses.replace(SHARED, versions=known))
    assert model.call(x_feeds(1)).version == version


def test_a_model_that_is_deployed_later_is_looked_up_once(serve: Any) -> None:
    endpoint = {"deployedModels": [{"id": "78", "model": MODEL, "modelVersionId": "4"}], "trafficSplit": {"78": 100}}
    server = serve(lambda request: endpoint if request.method == "GET" else raw(request, "78"))
    model = opened(server)
    assert [model.call(x_feeds(1)).version for _ in range(3)] == [4, 4, 4]
    assert [request.path for request in server.requests].count(PATH) == 1
    server.answer = lambda request: endpoint if request.method == "GET" else raw(request, "79")
    assert [model.call(x_feeds(1)).version for _ in range(3)] == [79, 79, 79], "its id, while it is not told"
    assert [request.path for request in server.requests].count(PATH) == 1, "not at every call"


def test_calls_do_not_wait_for_the_look_up_of_another(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vertex, "_LOOK_UP_SECS", 10 * PATIENCE_SECS)
    endpoint = {"deployedModels": [{"id": "78", "model": MODEL, "modelVersionId": "4"}], "trafficSplit": {"78": 100}}
    is_asked, may_tell = threading.Event(), threading.Event()

    def answer(request: Request) -> Any:
        if request.method != "GET":
            return raw(request, "78")
        is_asked.set()
        may_tell.wait(PATIENCE_SECS)
        return endpoint

    model = opened(serve(answer))
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(model.call, x_feeds(1))
        assert is_asked.wait(PATIENCE_SECS)
        assert model.call(x_feeds(1)).version == 78, "its id meanwhile"
        may_tell.set()
        assert first.result(PATIENCE_SECS).version == 4
    assert model.call(x_feeds(1)).version == 4


@pytest.mark.parametrize(("kind", "limit"), [("shared", 1_500_000), ("dedicated", 10_000_000), ("private", 10_000_000)])
def test_the_limit_of_a_request_is_that_of_the_kind(serve: Any, kind: str, limit: int) -> None:
    server = serve(raw)
    model = opened(server, deployed=dataclasses.replace(SHARED, kind=kind))
    assert (model.max_bytes, model.max_tensor_bytes) == (limit, 4 * limit)


def test_calls_are_cut_to_the_limit_as_they_are_sent(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 1000
    monkeypatch.setattr(vertex, "_SHARED_BYTES", most)
    server = serve(raw)
    said = r"the request has \d+ bytes, and a shared endpoint .* takes 1000"
    with pytest.raises(MessageTooLarge, match=said) as error:
        opened(server).call(x_feeds(*range(1000)))
    assert error.value.is_unsent
    spec = dataclasses.replace(parse_model_uri(f"vertex://{NAME}"), deployed=SHARED)
    given = EndpointOptions(vertex_endpoint=f"http://127.0.0.1:{server.server_port}")
    recipe = ModelRecipe(spec, ModelOptions(endpoint=given), SchedulerOptions(max_batch_size=5000), X_TO_Y)
    scheduler = open_scheduler(recipe)
    prediction = scheduler.submit(x_feeds(*range(5000))).future.result(PATIENCE_SECS)
    scheduler.close()
    assert prediction.failures == {}
    assert prediction.arrays["y"].tolist() == [2 * value for value in range(5000)]
    sizes = [len(request.body) for request in server.requests]
    assert max(sizes) <= most, "nothing is sent that the endpoint would refuse"
    assert scheduler.options.max_batch_bytes == 4 * most


def too_large(request: Request, most_rows: int) -> Reply | None:
    """Refuses an answer of too many rows in the words of the service."""
    if len(request.json["instances"]) <= most_rows:
        return None
    text = "Failed to handle request. endpoint_id: 42, deployed_model_id: 77 with error: `Response size too large. "
    text += "Received at least 3288694 bytes; max is 2000000.`"
    return Reply(400, json.dumps({"error": {"code": 400, "message": text, "status": "INVALID_ARGUMENT"}}).encode())


@pytest.mark.parametrize("most_rows", [0, 10])
def test_an_answer_that_is_too_large_halves(serve: Any, most_rows: int) -> None:
    server = serve(lambda request: too_large(request, most_rows) or raw(request))
    scheduler = Scheduler(opened(server), SchedulerOptions())
    prediction = scheduler.submit(x_feeds(*range(40))).future.result(PATIENCE_SECS)
    scheduler.close()
    if most_rows:
        assert prediction.failures == {}
        assert scheduler.ceiling == 10
    else:  # a row whose own answer is too large
        assert len(prediction.failures) == 40
        failure = prediction.failures[0]
        assert failure.type == "BatchTooLarge" and "the answer is too large: Response size too large" in failure.message


@pytest.mark.parametrize(
    ("given", "secs"), [({"own_timeout": True}, 600.0), ({"rpc_timeout_secs": 5.0}, 5.0), ({}, 60.0)]
)
def test_the_deadline_is_the_endpoints_own_unless_another_is_given(serve: Any, given: Any, secs: float) -> None:
    model = opened(serve(raw), deployed=Deployed("dedicated", "", 600.0), **given)
    assert model.timeout_secs == secs


@pytest.mark.parametrize(
    ("uri", "deployed", "given", "address"),
    [
        (f"vertex://{NAME}", SHARED, "", "l-aiplatform.googleapis.com:443"),
        (f"vertex://{NAME}", Deployed("dedicated", "42.l-1.prediction.vertexai.goog", 600.0), "",
         "42.l-1.prediction.vertexai.goog:443"),
        (f"vertex://{NAME}", Deployed("dedicated", "42.l-1.prediction.vertexai.goog", 600.0), "http://localhost:1",
         "localhost:1"),
        (f"vertex://{NAME}", Deployed("dedicated", "d.goog:8443", 600.0), "", "d.goog:8443"),
        (f"vertex://other.googleapis.com/{NAME}", SHARED, "https://localhost:1", "other.googleapis.com:443"),
        (f"vertex+http://proxy:8600/{NAME}", SHARED, "", "proxy:8600"),
        ("vertex+http://h/v1/models/77", Deployed("peering", "", 60.0), "http://localhost:1", "h:80"),
    ],
)  # fmt: skip
def test_where_calls_go(uri: str, deployed: Deployed, given: str, address: str) -> None:
    spec = dataclasses.replace(parse_model_uri(uri), deployed=deployed)
    endpoint = vertex._target(spec, EndpointOptions(vertex_endpoint=given))
    assert endpoint.address == address
    assert endpoint.tls == (address.endswith("443"))


def test_a_peering_endpoint_gets_no_token_and_needs_no_project(serve: Any, tmp_path: Path) -> None:
    server = serve(doubled)
    place = HandMade().signature(
        {"x": (INT64, "x:0", [-1])}, {"text": (STRING, "text:0", [-1]), "y": (INT64, "y:0", [-1])}
    ).write(tmp_path / "m")  # fmt: skip
    uri = f"vertex+http://127.0.0.1:{server.server_port}/v1/models/77:predict"
    model = open_model(uri, ModelOptions(endpoint=EndpointOptions(signature_from=place)))
    assert model.signature == X_TO_Y
    assert model.call(x_feeds(4)).version == 77
    (request,) = server.requests
    assert (request.path, request.headers.get("authorization")) == ("/v1/models/77:predict", None)
    token = tmp_path / "token"
    token.write_text("secret")
    for more in (
        {"token_file": str(token)},
        {"google_auth": True},
        {"google_audience": "a"},
        {"headers": (("Authorization", "Bearer x"),)},
    ):
        with pytest.raises(UsageError, match=r"a peering endpoint.*no secret may go there"):
            open_model(uri, ModelOptions(endpoint=EndpointOptions(signature_from=place, **more)))  # type: ignore[arg-type]


def test_a_token_goes_to_google_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def open_at(uri: str, **endpoint: Any) -> None:
        spec = dataclasses.replace(parse_model_uri(uri), deployed=SHARED)
        VertexModel(spec, ModelOptions(endpoint=EndpointOptions(**endpoint)), LocalFiles(), X_TO_Y)

    with pytest.raises(UsageError, match=r"10.0.0.1, which is none of .*; name it with --rpc_google_auth_hosts"):
        open_at(f"vertex://10.0.0.1/{NAME}")
    with pytest.raises(UsageError, match=r"example.com, which is none of Google's hosts"):
        open_at(f"vertex://{NAME}", vertex_endpoint="https://example.com")
    token = tmp_path / "token"
    token.write_text("secret")
    with pytest.raises(UsageError, match=r"--rpc_token_file would be sent unencrypted to example.com:80"):
        open_at(f"vertex://{NAME}", vertex_endpoint="http://example.com", token_file=str(token))
    open_at(f"vertex://{NAME}", vertex_endpoint="http://example.com")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(UsageError, match="there are no application default credentials"):
        open_at(f"vertex://{NAME}")


def test_private_service_connect_has_a_certificate_of_its_own(serve: Any, tmp_path: Path) -> None:
    certificate = Certificate()
    server = serve(raw, tls=certificate.server_context(tmp_path))
    token = tmp_path / "token"
    token.write_text("secret")
    uri = f"vertex://127.0.0.1:{server.server_port}/{NAME}"

    def open_with(certificates: str) -> VertexModel:
        spec = dataclasses.replace(parse_model_uri(uri), deployed=Deployed("private", "", 600.0, (("77", 3),)))
        given = EndpointOptions(ca_certificates=certificates, token_file=str(token))
        return VertexModel(spec, ModelOptions(endpoint=given), LocalFiles(), X_TO_Y)

    assert open_with(certificate.text).call(x_feeds(4)).version == 3
    assert server.requests[0].headers["authorization"] == "Bearer secret"
    with pytest.raises(Unavailable, match="certificate"):
        open_with("").call(x_feeds(4))


def test_a_token_that_is_refused_is_read_again(serve: Any, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    good = {"Bearer first"}

    def answer(request: Request) -> Any:
        return raw(request) if request.headers.get("authorization") in good else Reply(401, b"{}")

    server = serve(answer)
    model = opened(server, token_file=str(token))
    assert model.call(x_feeds(1)).version == 3
    good.clear()
    with pytest.raises(Refused):
        model.call(x_feeds(1))
    assert len(server.requests) == 2, "there is no other token to try"
    token.write_text("second")
    good.add("Bearer second")
    assert model.call(x_feeds(1)).version == 3


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(429, b"", {"Retry-After": "3"}), Overloaded),
        (Reply(503, b"", {"Retry-After": "3"}), Overloaded),
        (Reply(503), Unavailable),
        (Reply(400, b'{"error": "bad"}'), BadInput),
        (Reply(200, b"<html>"), BadOutput),
        (Reply(200, b'{"predictions": []}'), BadOutput),
    ],
)
def test_what_the_answer_means(serve: Any, reply: Reply, kind: type[CallError]) -> None:
    with pytest.raises(CallError) as error:
        opened(serve(lambda _: reply)).call(x_feeds(1))
    assert type(error.value) is kind
    assert getattr(error.value, "retry_after_secs", 0.0) == (3.0 if kind is Overloaded else 0.0)


def test_nobody_listens() -> None:
    port = free_port()
    spec = dataclasses.replace(parse_model_uri(f"vertex+http://127.0.0.1:{port}/{NAME}"), deployed=SHARED)
    model = VertexModel(spec, ModelOptions(), LocalFiles(), X_TO_Y)
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port} cannot be reached"):
        model.call(x_feeds(1))
    model.close()


def test_requests_are_not_compressed(serve: Any) -> None:
    with pytest.raises(UsageError, match="--rest_gzip: Vertex AI does not say that it unpacks requests"):
        opened(serve(raw), rest_gzip=True)


def test_a_managed_model_cannot_be_opened() -> None:
    with pytest.raises(UsageError, match="a managed model cannot be called, only be scored with by `sluice batch`"):
        open_model("vertex://projects/p/locations/l/models/9")


def test_a_model_without_a_signature_looks_for_it(serve: Any, tmp_path: Path) -> None:
    place = HandMade().signature({"x": (INT64, "x:0", [-1])}, {"y": (INT64, "y:0", [-1])}).write(tmp_path / "m")
    endpoint = {"deployedModels": [{"id": "77", "model": MODEL, "modelVersionId": "3"}], "trafficSplit": {"77": 100}}
    resources = {PATH: endpoint, f"/v1/{MODEL}%403": {"versionId": "3", "artifactUri": place}}

    def answer(request: Request) -> Any:
        return resources[request.path] if request.method == "GET" else raw(request)

    model = opened(serve(answer), signature=None, deployed=None)
    assert [spec.name for spec in model.signature.outputs] == ["y"]
