"""Where the signatures of models of Vertex AI come from. The SavedModels here have no graph: nothing else is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sluice.models.endpoints.vertex_signatures import find_endpoint, find_managed
from sluice.models.errors import ModelNotFound, SignatureError, UsageError
from sluice.models.files import LocalFiles
from sluice.models.interface import EndpointOptions
from sluice.models.saved_model.signature_reader import pick_signature
from sluice.models.uri import ManagedModel, parse_model_uri
from tests.support.fakes import PATIENCE_SECS, X_TO_Y
from tests.support.saved_models.by_hand import FLOAT, INT64, STRING, HandMade
from tests.support.serving.rest_servers import Reply, Request, Server, described, serving

NAME = "projects/p/locations/l/endpoints/42"
MODELS = "projects/123/locations/l/models"


@pytest.fixture(name="serve")
def serve_fixture() -> Iterator[Callable[..., Server]]:
    with serving() as start:
        yield start


class Service:
    """Resources by path; others there are not.

    Attributes:
      resources: a Reply, or JSON.
    """

    def __init__(self, serve: Callable[..., Server], **artifacts: str) -> None:
        """Begins with model 9, whose versions are v1=DIR, v2=DIR, each deployed with an equal share."""
        self.resources: dict[str, Any] = {}
        deployed = []
        for place, (version, directory) in enumerate(artifacts.items()):
            number = version.removeprefix("v")
            self.resources[f"/v1/{MODELS}/9%40{number}"] = {"versionId": number, "artifactUri": directory}
            deployed.append({"id": str(77 + place), "model": f"{MODELS}/9", "modelVersionId": number})
        split = {each["id"]: 100 // len(deployed) for each in deployed}
        self.endpoint: dict[str, Any] = {"name": NAME, "deployedModels": deployed, "trafficSplit": split}
        self.resources[f"/v1/{NAME}"] = self.endpoint
        self.server = serve(self._answer)

    def _answer(self, request: Request) -> Any:
        gone = {"error": {"code": 404, "message": f"{request.path} does not exist", "status": "NOT_FOUND"}}
        return self.resources.get(request.path, Reply(404, json.dumps(gone).encode()))

    def options(self, **more: Any) -> EndpointOptions:
        return EndpointOptions(vertex_endpoint=f"http://127.0.0.1:{self.server.server_port}", **more)

    def find(self, uri: str = f"vertex://{NAME}", **more: Any) -> Any:
        find = find_managed if "/models/" in uri and not uri.startswith("vertex+") else find_endpoint
        return find(parse_model_uri(uri), LocalFiles(), self.options(**more), PATIENCE_SECS)

    @property
    def asked(self) -> list[str]:
        return [request.path.rpartition("/")[2] for request in self.server.requests]


def save(directory: Path, outputs: dict[str, Any], name: str = "serving_default") -> str:
    """Writes a model that takes an int64 x; returns its directory."""
    shutil.rmtree(directory, ignore_errors=True)
    return HandMade().signature({"x": (INT64, "x:0", [-1])}, outputs, name).write(directory)


def doubler(directory: Path) -> str:
    """Writes a model of X_TO_Y."""
    return save(directory, {"text": (STRING, "text:0", [-1]), "y": (INT64, "y:0", [-1])})


def test_the_artifact_of_the_deployed_model_tells(serve: Any, tmp_path: Path) -> None:
    service = Service(serve, v3=doubler(tmp_path))
    found = service.find()
    assert (found.signatures, found.version) == ({"serving_default": X_TO_Y}, 3)
    assert found.spec.deployed.versions == (("77", 3),)
    assert service.asked == ["42", "9%403"]


def test_an_artifact_may_be_a_base_of_versions(serve: Any, tmp_path: Path) -> None:
    doubler(tmp_path / "1")
    assert Service(serve, v3=f"{tmp_path}/").find().signatures == {"serving_default": X_TO_Y}


def test_several_models_must_take_and_give_the_same(serve: Any, tmp_path: Path) -> None:
    service = Service(serve, v1=doubler(tmp_path / "a"), v2=doubler(tmp_path / "b"))
    found = service.find()
    assert found.version is None, "either may answer"
    assert pick_signature(found.signatures, "serving_default") == X_TO_Y
    save(tmp_path / "b", {"y": (FLOAT, "y:0", [-1])})
    with pytest.raises(SignatureError, match=r"9@2 is deployed beside .*9@1: .*lacks output 'text'.*output 'y' is"):
        pick_signature(service.find().signatures, "serving_default")
    save(tmp_path / "b", {"y": (INT64, "y:0", [-1])}, "other")
    with pytest.raises(SignatureError, match=r"models/9@2, which is deployed beside .*9@1, has no such signature"):
        pick_signature(service.find().signatures, "serving_default")
    service.endpoint["trafficSplit"] = {"77": 100}
    assert pick_signature(service.find().signatures, "serving_default") == X_TO_Y, "the other one gets no traffic"


def test_a_model_deployed_twice_is_read_once(serve: Any, tmp_path: Path) -> None:
    service = Service(serve, v1=doubler(tmp_path))
    (deployed,) = service.endpoint["deployedModels"]
    service.endpoint["deployedModels"] = [deployed, {**deployed, "id": "78"}]
    service.endpoint["trafficSplit"] = {"77": 50, "78": 50}
    assert dict(service.find().spec.deployed.versions) == {"77": 77, "78": 78}, "their versions would be the same"
    assert service.asked == ["42", "9%401"]


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("", "names no artifact, so nobody tells what it takes"),
        ("/no/such/place", "cannot be read: .*there is nothing at this path"),
    ],
)
def test_without_an_artifact_another_place_tells(serve: Any, tmp_path: Path, uri: str, words: str) -> None:
    service = Service(serve, v1=uri)
    with pytest.raises(ModelNotFound, match=f"models/9@1.* {words}.*give --signature_from DIR.FILE"):
        service.find()
    place = doubler(tmp_path)
    assert service.find(signature_from=place).signatures == {"serving_default": X_TO_Y}


def test_every_form_of_signature_from(serve: Any, tmp_path: Path) -> None:
    service = Service(serve, v1="")
    doubler(tmp_path / "base/7")
    metadata = tmp_path / "metadata.json"
    metadata.write_text(json.dumps(described(X_TO_Y)))
    for place in (tmp_path / "base", tmp_path / "base/7", tmp_path / "base/7/saved_model.pb", metadata):
        assert service.find(signature_from=str(place)).signatures == {"serving_default": X_TO_Y}, place
    assert set(service.asked) == {"42"}, "models are not looked at"


@pytest.mark.parametrize("name", ["none", "none/saved_model.pb", "none.json", "bad.json", "empty.json"])
def test_a_signature_from_that_is_none(serve: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "empty.json").write_text("{}")
    with pytest.raises(UsageError, match=r"--signature_from .* cannot be read: .*; give the directory of a SavedModel"):
        Service(serve, v1="").find(signature_from=str(tmp_path / name))


def test_a_caller_who_may_only_predict_says_what_the_signature_is(serve: Any, tmp_path: Path) -> None:
    service = Service(serve, v1="")
    refusal = {"error": {"code": 403, "message": "not you", "status": "PERMISSION_DENIED"}}
    service.resources[f"/v1/{NAME}"] = Reply(403, json.dumps(refusal).encode())
    with pytest.raises(ModelNotFound, match=r"permission aiplatform\.endpoints\.get"):
        service.find()
    place = doubler(tmp_path)
    found = service.find(signature_from=place)
    assert (found.version, found.spec.deployed.kind) == (None, "shared")
    found = service.find(f"vertex://h.example.com/{NAME}", signature_from=place)
    assert found.spec.deployed.kind == "dedicated"


def test_an_endpoint_that_does_not_exist_is_named_as_the_user_wrote_it(serve: Any) -> None:
    service = Service(serve, v1="")
    uri = "vertex://projects/p/locations/l/endpoints/43"
    with pytest.raises(ModelNotFound, match=f"does not serve what --model {uri} names: .*43 does not exist; check"):
        service.find(uri)


def test_nobody_tells_what_a_peering_endpoint_takes(serve: Any, tmp_path: Path) -> None:
    service = Service(serve, v1="")
    uri = "vertex+http://127.0.0.1:1/v1/models/77"
    with pytest.raises(UsageError, match="nobody tells what a peering endpoint takes; give --signature_from"):
        service.find(uri)
    found = service.find(uri, signature_from=doubler(tmp_path))
    assert (found.version, found.spec.deployed.kind, found.signatures) == (77, "peering", {"serving_default": X_TO_Y})
    assert service.asked == []


def test_predict_calls_the_default_signature_only(serve: Any, tmp_path: Path) -> None:
    service = Service(serve, v1=save(tmp_path, {"y": (INT64, "y:0", [-1])}, "other"))
    assert pick_signature(service.find().signatures, "other").name == "other"
    with pytest.raises(SignatureError, match="signature 'other': predict calls 'serving_default' only"):
        pick_signature(service.find(f"vertex://{NAME}?method=predict").signatures, "other")


def test_a_managed_model(serve: Any, tmp_path: Path) -> None:
    service = Service(serve, v3=doubler(tmp_path))
    service.resources["/v1/projects/p/locations/l/models/9"] = service.resources[f"/v1/{MODELS}/9%403"]
    found = service.find("vertex://projects/p/locations/l/models/9")
    assert (found.signatures, found.version) == ({"serving_default": X_TO_Y}, 3)
    assert found.spec.managed == ManagedModel("p", "l", "9", "3"), "the version that the default is now"
    with pytest.raises(ModelNotFound, match="has no projects/p/locations/l/models/9@4"):
        service.find("vertex://projects/p/locations/l/models/9@4")
