"""Versions that come, go, and fail to load, and labels for them, in a server that keeps running."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from sluice.models.errors import ModelNotFound
from sluice.models.protos import message_class
from sluice.models.server.reference import ReferenceServer
from sluice.models.server.store import ModelConfig, Spec
from tests.support.fakes import PATIENCE_SECS
from tests.support.serving.model_servers import GrpcClient, RestClient, arrays, model_server

CELSIUS = {"celsius": np.array([100.0])}


class Base:
    """A directory of versions of a model."""

    def __init__(self, directory: Path, source: str) -> None:
        self.path, self._source = directory, source
        directory.mkdir()

    def __str__(self) -> str:
        return str(self.path)

    def add(self, name: str) -> None:
        shutil.copytree(self._source, self.path / name)

    def add_broken(self, name: str) -> None:
        """Writes one that is complete, and of an op that TensorFlow does not have."""
        made = message_class("tensorflow.SavedModel")(saved_model_schema_version=1)
        meta_graph = made.meta_graphs.add()
        meta_graph.meta_info_def.tags.append("serve")
        meta_graph.graph_def.node.add(name="x", op="NoSuchOp")
        (self.path / name).mkdir()
        (self.path / name / "saved_model.pb").write_bytes(made.SerializeToString())

    def remove(self, name: str) -> None:
        shutil.rmtree(self.path / name)


@pytest.fixture
def base(tmp_path: Path, cases: Callable[[str], str]) -> Base:
    return Base(tmp_path / "base", cases("no_variables"))


@pytest.fixture
def connect() -> Iterator[Callable[[ReferenceServer], GrpcClient]]:
    made: list[GrpcClient] = []

    def to(server: ReferenceServer) -> GrpcClient:
        made.append(GrpcClient(server.grpc_port))
        return made[-1]

    yield to
    for client in made:
        client.close()


def version_of(client: GrpcClient, **fields: Any) -> int | str:
    """The version that answers, or the text of the refusal."""
    try:
        response = client.predict("m", CELSIUS, **fields)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    assert arrays(response)["fahrenheit"].tolist() == [212.0]
    return int(response.model_spec.version.value)


def states(server: ReferenceServer) -> list[tuple[str, str, str]]:
    rest = RestClient(server.rest_port)
    _, answer = rest.get("m")
    rest.close()
    entries = answer["model_version_status"]
    return [(each["version"], each["state"], each["status"]["error_code"]) for each in entries]


def test_the_newest_version_replaces_the_one_before(base: Base, connect: Callable[..., GrpcClient]) -> None:
    for name in ("1", "0007", "not a version"):
        base.add(name)
    with model_server({"m": str(base)}) as server:
        client = connect(server)
        assert server.store.loaded() == {"m": [7]}
        assert version_of(client) == 7
        assert version_of(client, version=1) == "NOT_FOUND: Servable not found for request: Specific(m, 1)"
        base.add("12")
        assert version_of(client) == 7
        server.poll()
        assert version_of(client) == 12
        assert states(server) == [("12", "AVAILABLE", "OK"), ("7", "END", "OK")]


def test_a_version_removed_from_disk_is_unloaded(base: Base, connect: Callable[..., GrpcClient]) -> None:
    base.add("1")
    base.add("2")
    with model_server({"m": str(base)}) as server:
        client = connect(server)
        base.remove("2")
        server.poll()
        assert version_of(client) == 1
        base.remove("1")
        server.poll()
        assert version_of(client) == "NOT_FOUND: Servable not found for request: Latest(m)"
        assert states(server) == [("2", "END", "OK"), ("1", "END", "OK")]
        base.add("3")
        server.poll()
        assert version_of(client) == 3


def test_versions_stand_side_by_side(base: Base, connect: Callable[..., GrpcClient]) -> None:
    for name in ("1", "2", "3"):
        base.add(name)
    with model_server({"m": str(base)}, versions="all", labels={"stable": 1, "canary": 3, "gone": 9}) as server:
        client = connect(server)
        assert server.store.loaded() == {"m": [1, 2, 3]}
        assert [version_of(client, version=number) for number in (1, 2, 3)] == [1, 2, 3]
        assert [version_of(client, label=label) for label in ("stable", "canary")] == [1, 3]
        assert version_of(client, label="gone") == "NOT_FOUND: Servable not found for request: Specific(m, 9)"
        server.store.set_labels("m", {"stable": 2})
        assert version_of(client, label="stable") == 2
        refused = "INVALID_ARGUMENT: Unrecognized servable version label: canary"
        assert version_of(client, label="canary") == refused
        base.remove("3")
        server.poll()
        assert version_of(client) == 2
        assert server.stats.calls == {("m", 1): 2, ("m", 2): 3, ("m", 3): 2}


def test_versions_that_are_named(base: Base) -> None:
    for name in ("1", "2", "3"):
        base.add(name)
    with model_server({"m": ModelConfig(str(base), (1, 2)), "n": str(base)}) as server:
        assert server.store.loaded() == {"m": [1, 2], "n": [3]}
    with pytest.raises(ModelNotFound, match="has no version 4"):
        ReferenceServer({"m": ModelConfig(str(base), (1, 4))})
    with pytest.raises(ModelNotFound, match="served as version 3; it has no version 4"):
        ReferenceServer({"m": ModelConfig(f"{base}/3", (4,))})


def test_the_last_good_version_stays_where_the_new_one_does_not_load(
    base: Base, connect: Callable[..., GrpcClient]
) -> None:
    base.add("1")
    with model_server({"m": str(base)}) as server:
        client = connect(server)
        base.add_broken("2")
        (base.path / "3").mkdir()  # being written: not complete yet
        server.poll()
        assert version_of(client) == 1
        assert states(server) == [("2", "END", "INTERNAL"), ("1", "AVAILABLE", "OK")]
        base.remove("2")
        base.add("2")
        server.poll()
        assert version_of(client) == 2


def test_a_model_that_cannot_be_served_is_an_error(base: Base, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="there is nothing at this path"):
        ReferenceServer({"m": str(tmp_path / "nothing")})
    base.add_broken("1")
    with pytest.raises(ModelNotFound, match="NoSuchOp"):
        ReferenceServer({"m": str(base)})


def test_one_saved_model_is_served_under_the_number_of_its_directory(base: Base) -> None:
    base.add("5")
    base.add("model")
    with model_server({"m": f"{base}/5/", "n": f"{base}/model"}, versions="all") as server:
        assert server.store.loaded() == {"m": [5], "n": [1]}
        os.rename(base.path / "5", base.path / "elsewhere")
        server.poll()
        assert server.store.loaded() == {"m": [], "n": [1]}


def test_a_version_is_unloaded_when_its_last_call_is_done(base: Base) -> None:
    base.add("1")
    base.add("2")
    with model_server({"m": str(base)}) as server:
        with server.store.use(Spec("m")) as servable:
            base.remove("2")
            poll = threading.Thread(target=server.poll)
            poll.start()
            poll.join(0.2)
            assert poll.is_alive()
            signature = servable.signatures["serving_default"]
            fed, fetched = signature.inputs["celsius"].name, signature.outputs["fahrenheit"].name
            assert servable.run({fed: np.array([0.0])}, [fetched])[0].tolist() == [32.0]
        poll.join(PATIENCE_SECS)
        assert not poll.is_alive()
        assert server.store.loaded() == {"m": [1]}


def test_signatures_of_a_version_share_its_variables(
    cases: Callable[[str], str], connect: Callable[..., GrpcClient]
) -> None:
    one = {"x": np.array([1.0], np.float32)}
    with model_server({"m": cases("counter")}) as server:
        client = connect(server)
        for _ in range(2):
            client.predict("m", one, signature="add")
        assert arrays(client.predict("m", one))["count"].tolist() == [2.0]


def test_inputs_with_defaults_may_be_left_out(cases: Callable[[str], str], connect: Callable[..., GrpcClient]) -> None:
    x = np.array([1.0, 2.0], np.float32)
    with model_server({"m": cases("defaults")}) as server:
        client = connect(server)
        assert arrays(client.predict("m", {"x": x}))["sum"].tolist() == [11.0, 12.0]
        assert arrays(client.predict("m", {"x": x, "y": x}))["sum"].tolist() == [2.0, 4.0]
        with pytest.raises(grpc.RpcError, match="Signature input alias: x"):
            client.predict("m", {"y": x})
        with pytest.raises(
            grpc.RpcError, match=r"Inputs contains invalid name\. Used request inputs: x, request input: x,z"
        ):
            client.predict("m", {"x": x, "z": x})
