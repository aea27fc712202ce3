"""The gRPC client: what it sends, and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.models.endpoints.grpc import fetch_signatures
from sluice.models.errors import (
    BadInput,
    BadOutput,
    CallError,
    MessageTooLarge,
    Overloaded,
    Refused,
    ServerFault,
    SignatureError,
    TimedOut,
    Unavailable,
)
from sluice.models.interface import EndpointOptions, Outputs
from sluice.models.signature import Signature, TensorSpec
from sluice.models.tensors.tensor_proto import from_tensor
from sluice.models.uri import parse_model_uri
from tests.support.fakes import PATIENCE_SECS, X_TO_Y, double, x_feeds
from tests.support.serving.grpc_servers import (
    Server,
    aborting,
    assert_doubles,
    described,
    doubled,
    opened,
    respond,
    serving,
)


@pytest.fixture(name="serve")
def serve_fixture() -> Iterator[Callable[..., Server]]:
    with serving() as start:
        yield start


def test_signatures_and_version(serve: Any) -> None:
    server = serve(metadata=described(X_TO_Y, version=12))
    fetched = fetch_signatures(parse_model_uri(server.uri()), EndpointOptions(), PATIENCE_SECS)
    assert fetched == ({"serving_default": X_TO_Y}, 12)
    assert list(server.requests[0].metadata_field) == ["signature_def"]


@pytest.mark.parametrize(
    ("path", "version", "label"),
    [("m", None, ""), ("m/versions/3", 3, ""), ("m/versions/0", 0, ""), ("m/labels/stable", None, "stable")],
)
def test_the_model_that_is_asked_for(serve: Any, path: str, version: int | None, label: str) -> None:
    server = serve(doubled, described(X_TO_Y))
    model = opened(server.uri(path), signature=None)
    assert (model.remote, model.uri, model.version) == (True, server.uri(path), version)
    assert_doubles(model)
    assert len(server.requests) == 2
    for request in server.requests:
        spec = request.model_spec
        assert (spec.name, spec.version_label, spec.HasField("version")) == ("m", label, version is not None)
        assert spec.version.value == (version or 0)


def test_a_request_has_all_that_the_signature_says(serve: Any) -> None:
    server = serve(doubled)
    model = opened(server.uri(), X_TO_Y.with_outputs(("y",)))
    assert list(model.call({**x_feeds(5), "other": np.zeros(1)}).arrays) == ["y"]
    request = server.requests[0]
    assert request.model_spec.signature_name == "serving_default"
    assert list(request.output_filter) == ["y"]
    assert {name: from_tensor(tensor).tolist() for name, tensor in request.inputs.items()} == {"x": [5]}


def test_a_given_signature_is_not_asked_for(serve: Any) -> None:
    server = serve(doubled)
    assert opened(server.uri()).signature is X_TO_Y
    assert server.requests == []


def test_the_signature_and_outputs_that_are_asked_for(serve: Any) -> None:
    other = Signature("other", X_TO_Y.method, X_TO_Y.inputs, X_TO_Y.outputs)
    server = serve(doubled, described(X_TO_Y, other))
    model = opened(server.uri(), None, {"signature": "other", "outputs": ("text",)})
    assert model.signature == other.with_outputs(("text",))
    with pytest.raises(SignatureError, match="no signature 'third'; it has other, serving_default"):
        opened(server.uri(), None, {"signature": "third"})
    with pytest.raises(SignatureError, match="no output z"):
        opened(server.uri(), None, {"outputs": ("z",)})


def test_rows_are_bound_with_defaults(serve: Any) -> None:
    model = opened(serve(doubled).uri(), options={"defaults": (("x", 9),)})
    bound = model.bind(pa.RecordBatch.from_pydict({"x": pa.array([1, None, 3])}))
    assert model.call(bound.groups[0].feeds).arrays["y"].tolist() == [2, 18, 6]


@given(
    half=st.lists(st.floats(width=16), min_size=1, max_size=4),
    words=st.lists(st.binary(max_size=300), min_size=1, max_size=4),
)
def test_values_come_back_as_they_were_sent(serve: Any, half: list[float], words: list[bytes]) -> None:
    arrays = {
        "half": np.array(half, np.float16),
        "brain": np.array(half, np.float32).astype(ml_dtypes.bfloat16),
        "words": np.array([words, words], object),
        "none": np.zeros((0, 3), np.float32),
    }
    specs = tuple(TensorSpec(name, "float32", None) for name in arrays)
    server = serve(lambda request, _: respond(Outputs({n: from_tensor(t) for n, t in request.inputs.items()})))
    model = opened(server.uri(), Signature("s", X_TO_Y.method, specs, specs))
    outputs = model.call(arrays)
    model.close()
    server.stop()
    assert outputs.version is None
    for name, array in arrays.items():
        assert outputs.arrays[name].dtype == array.dtype
        assert outputs.arrays[name].tolist() == array.tolist() or array.tobytes() == outputs.arrays[name].tobytes()


def test_tensorflow_servings_own_messages_and_service() -> None:
    """The server side as tensorflow-serving-api has it, and TensorFlow's own arrays."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request: Any, context: Any) -> Any:
            x = tf.make_ndarray(request.inputs["x"])
            response = predict_pb2.PredictResponse()
            response.model_spec.version.value = 7
            response.outputs["y"].CopyFrom(tf.make_tensor_proto(2 * x))
            response.outputs["text"].CopyFrom(tf.make_tensor_proto([str(value).encode() for value in x]))
            return response

    server = grpc.server(ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    assert_doubles(opened(f"grpc://127.0.0.1:{port}/m"))
    server.stop(0).wait()


def test_headers_go_with_every_call(serve: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one")
    server = serve(doubled, described(X_TO_Y))
    options = {"headers": (("X-Team", "ads"),), "token_file": str(tmp_path / "token")}
    model = opened(server.uri(), None, **options)
    model.call(x_feeds(1))
    (tmp_path / "token").write_text("the second")
    with pytest.raises(Unavailable, match="holds more than a token"):
        model.call(x_feeds(1))
    (tmp_path / "token").write_text("second")
    model.call(x_feeds(1))
    assert [headers["x-team"] for headers in server.headers] == ["ads"] * 3
    assert [headers["authorization"] for headers in server.headers] == ["Bearer one", "Bearer one", "Bearer second"]


CODES = {
    "INVALID_ARGUMENT": BadInput,
    "UNAVAILABLE": Unavailable,
    "RESOURCE_EXHAUSTED": Overloaded,
    "UNAUTHENTICATED": Refused,
    "INTERNAL": ServerFault,
    "DEADLINE_EXCEEDED": TimedOut,
}


@pytest.mark.parametrize("code", CODES)
def test_codes(serve: Any, code: str) -> None:
    server = serve(aborting(code, "some reason"))
    with pytest.raises(CallError, match="some reason") as caught:
        opened(server.uri()).call(x_feeds(1))
    assert type(caught.value) is CODES[code]


def test_a_method_that_is_not_there(serve: Any) -> None:
    with pytest.raises(Refused, match="UNIMPLEMENTED"):
        opened(serve().uri()).call(x_feeds(1))


def test_a_request_over_the_servers_limit(serve: Any) -> None:
    model = opened(serve(doubled, max_bytes=10_000).uri())
    with pytest.raises(MessageTooLarge, match=r"message larger than max \(\d+ vs. 10000\)"):
        model.call(x_feeds(*range(2000)))
    assert_doubles(model)


def test_answers_and_requests_beyond_the_4_mb_that_grpc_takes_by_default(serve: Any) -> None:
    outputs = opened(serve(doubled).uri(), X_TO_Y.with_outputs(("y",))).call({"x": np.arange(600_000)})
    assert (outputs.arrays["y"] == 2 * np.arange(600_000)).all()


EMPTY = np.array([], object)
UNUSABLE = {
    "garbage": (b"\xff\xffgarbage", "not with a PredictResponse"),
    "truncated": (respond(double(x_feeds(1))).SerializeToString()[:-4], "not with a PredictResponse"),
    "empty": (b"", r"the answer lacks output 'text'; it has \[\]"),
    "one lacks": (respond(Outputs({"text": EMPTY})).SerializeToString(), r"lacks output 'y'; it has \['text'\]"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_answers_that_cannot_be_used(serve: Any, name: str) -> None:
    answer, words = UNUSABLE[name]
    with pytest.raises(BadOutput, match=words):
        opened(serve(lambda *_: answer).uri()).call(x_feeds(1))


def test_an_output_whose_content_does_not_fit_is_named(serve: Any) -> None:
    response = respond(double(x_feeds(1)))
    response.outputs["y"].tensor_content = b"1234567"
    with pytest.raises(BadOutput, match="output 'y': a int64 tensor of 1 values has 7 bytes, not 8"):
        opened(serve(lambda *_: response).uri()).call(x_feeds(1))
