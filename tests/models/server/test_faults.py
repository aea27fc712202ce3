"""What goes wrong on purpose, and what is counted."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from sluice.models.errors import UsageError
from sluice.models.protos import message_class
from sluice.models.server.faults import Faults, Gate
from sluice.models.server.reference import ReferenceServer
from sluice.models.server.status import StatusError
from tests.support.fakes import PATIENCE_SECS
from tests.support.serving.model_servers import GrpcClient, RestClient, arrays, model_server, predict_request

X = {"x": np.array([4.0, 9.0], np.float32)}


@pytest.fixture(scope="module")
def running(cases: Callable[[str], str]) -> Iterator[tuple[ReferenceServer, GrpcClient, RestClient]]:
    with model_server({"picky": cases("picky")}, seed=1, max_message_bytes=10_000) as server:
        clients = GrpcClient(server.grpc_port), RestClient(server.rest_port)
        yield server, *clients
        for client in clients:
            client.close()


@pytest.fixture
def server(running: Any) -> Iterator[ReferenceServer]:
    yield running[0]
    running[0].faults = Faults()


@pytest.fixture
def client(running: Any) -> GrpcClient:
    return running[1]


@pytest.fixture
def rest(running: Any) -> RestClient:
    return running[2]


def outcome(client: GrpcClient, inputs: Any = X, timeout: float = PATIENCE_SECS) -> str:
    try:
        client.predict("picky", inputs, timeout)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    return "OK"


def test_calls_and_rows_are_counted(server: ReferenceServer, client: GrpcClient, rest: RestClient) -> None:
    before = server.stats
    client.predict("picky", X)
    assert rest.predict("picky", {"instances": [1.0, 4.0, 9.0]})[0] == 200
    assert outcome(client, {"y": X["x"]}).startswith("INVALID_ARGUMENT")
    after = server.stats
    assert after.received - before.received == 3
    assert after.calls - before.calls == {("picky", 1): 2}
    assert after.rows - before.rows == {("picky", 1): 5}
    assert after.batch_sizes - before.batch_sizes == {2: 1, 3: 1}
    assert after.errors - before.errors == {"INVALID_ARGUMENT": 1}
    assert after.active == 0


def test_errors_have_the_code_that_was_asked_for(server: ReferenceServer, client: GrpcClient, rest: RestClient) -> None:
    server.faults = Faults(error_rate=1, error_code="ABORTED")
    assert outcome(client).startswith("ABORTED: an error that the reference server was told to return")
    assert rest.predict("picky", {"instances": [1.0]})[0] == 409
    server.faults = Faults()
    assert outcome(client) == "OK"


def test_the_first_calls_fail_and_then_no_more(server: ReferenceServer, client: GrpcClient) -> None:
    server.faults = Faults(first_errors=2)
    assert [outcome(client)[:11] for _ in range(4)] == ["UNAVAILABLE", "UNAVAILABLE", "OK", "OK"]
    server.faults = Faults(first_errors=1)
    assert [outcome(client)[:11] for _ in range(2)] == ["UNAVAILABLE", "OK"]


def test_larger_batches_are_refused_as_by_tf_serving(
    server: ReferenceServer, client: GrpcClient, rest: RestClient
) -> None:
    server.faults = Faults(max_rows=2)
    text = "Task size 3 is larger than maximum input batch size 2"
    assert outcome(client) == "OK"
    assert outcome(client, {"x": np.zeros(3, np.float32)}) == f"INVALID_ARGUMENT: {text}"
    assert rest.predict("picky", {"inputs": [1, 2, 3]}) == (400, {"error": text})


def test_an_answer_may_lack_a_row(server: ReferenceServer, client: GrpcClient, rest: RestClient) -> None:
    server.faults = Faults(wrong_rows=True)
    assert arrays(client.predict("picky", X))["root"].tolist() == [2.0]
    assert rest.predict("picky", {"instances": [4, 9, 16]}) == (200, {"predictions": [2.0, 3.0]})


def test_calls_take_longer(server: ReferenceServer, client: GrpcClient) -> None:
    server.faults = Faults(latency_ms=30)
    begin = time.monotonic()
    assert outcome(client) == "OK"
    assert time.monotonic() - begin >= 0.03


def test_a_call_that_hangs_ends_with_its_client(server: ReferenceServer, client: GrpcClient) -> None:
    server.faults = Faults(hang_rate=1)
    assert outcome(client, timeout=0.1).startswith("DEADLINE_EXCEEDED")
    server.faults = Faults()
    assert outcome(client) == "OK"


def test_calls_beyond_the_limit_are_refused(server: ReferenceServer, client: GrpcClient) -> None:
    server.faults = Faults(max_concurrency=2, hang_rate=1)
    hanging = [client.predictions.Predict.future(predict_request("picky", X), timeout=PATIENCE_SECS) for _ in range(2)]
    assert server.wait_active(2)
    assert outcome(client) == "RESOURCE_EXHAUSTED: 2 calls are under way already"
    assert server.stats.peak == 2
    for call in hanging:
        call.cancel()


def test_larger_messages_are_refused_by_grpc_itself(server: ReferenceServer, client: GrpcClient) -> None:
    before = server.stats.received
    refused = outcome(client, {"x": np.zeros(5000, np.float32)})
    assert refused.startswith("RESOURCE_EXHAUSTED: ")
    assert "larger than max (20" in refused
    assert server.stats.received == before


def test_what_there_is_not_is_unimplemented(client: GrpcClient) -> None:
    asked = [
        (client.predictions.Classify, message_class("tensorflow.serving.ClassificationRequest")()),
        (client.predictions.Regress, message_class("tensorflow.serving.RegressionRequest")()),
        (client.predictions.MultiInference, message_class("tensorflow.serving.MultiInferenceRequest")()),
        (client.models.HandleReloadConfigRequest, b""),
    ]
    for method, request in asked:
        with pytest.raises(grpc.RpcError, match="the reference server of Sluice has no") as error:
            method(request, timeout=PATIENCE_SECS)
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_long_texts_are_cut_as_by_tf_serving(client: GrpcClient) -> None:
    text = outcome(client, {f"input_{number:04}": X["x"] for number in range(200)})
    assert text.endswith("...TRUNCATED")
    assert len(text) == len("INVALID_ARGUMENT: ") + 1024 + len("...TRUNCATED")


def test_a_server_ends_while_calls_hang(cases: Callable[[str], str]) -> None:
    before = set(threading.enumerate())  # some may end meanwhile, by themselves
    faults = Faults(hang_rate=1)
    with model_server({"picky": cases("picky")}, faults=faults, tensor_content=True, poll_secs=0.01) as server:
        client, rest = GrpcClient(server.grpc_port), RestClient(server.rest_port)
        server.faults = Faults()
        tensor = client.predict("picky", X).outputs["root"]
        assert len(tensor.tensor_content) == 8
        server.faults = faults
        with ThreadPoolExecutor(2) as pool:
            over_grpc = pool.submit(outcome, client)
            over_rest = pool.submit(rest.request, "POST", "/v1/models/picky:predict", {"instances": [1.0]})
            assert server.wait_active(2)
            server.close()
            assert over_grpc.result(PATIENCE_SECS).startswith("UNAVAILABLE")  # not by its own deadline
            assert over_rest.exception(PATIENCE_SECS) is not None or over_rest.result().status == 503
        assert outcome(client).startswith("UNAVAILABLE")
        client.close()
        rest.close()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"latency_ms": -1}, "--latency_ms is -1; it cannot be negative"),
        ({"error_rate": 1.5}, "--error_rate is 1.5"),
        ({"hang_rate": -0.5}, "--hang_rate is -0.5"),
        ({"error_code": "OK"}, "--error_code is 'OK'; it is one of CANCELLED, UNKNOWN, "),
    ],
)
def test_faults_that_make_no_sense(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as error:
        Faults(**fields)
    assert text in str(error.value)


def test_a_seed_gives_the_same_errors_again() -> None:
    def failed(gate: Gate) -> bool:
        try:
            with gate.call(threading.Event()):
                return False
        except StatusError:
            return True

    gates = [Gate(Faults(error_rate=0.3), seed) for seed in (5, 5, 6)]
    first, again, other = ([failed(gate) for _ in range(200)] for gate in gates)
    assert first == again != other
    assert 30 <= sum(first) <= 90
    assert gates[0].stats.errors == {"UNAVAILABLE": sum(first)}
