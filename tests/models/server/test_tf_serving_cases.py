"""TF Serving's own test cases, as tables, put to the reference server.

Each table names the test of github.com/tensorflow/serving (2.20, commit 9d981c5) whose cases it has: the questions and
the answers are TF Serving's, the words are ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from sluice.models.protos import message_class
from sluice.models.server.rest_request import parse_request
from sluice.models.server.rest_response import render_answer
from sluice.models.server.status import StatusError
from tests.support.fakes import PATIENCE_SECS
from tests.support.saved_models.by_hand import FLOAT, STRING, half_plus_two
from tests.support.serving.model_servers import GrpcClient, RestClient, model_server
from tests.support.sizes import size

DOUBLE, INT32 = 2, 3
DEPTH = size(50_000, soak=500_000)  # far beyond the depth of Python's stack
MAX, MIN = 1.7976931348623157e308, 2.2250738585072014e-308
INT, INTS = {"default": INT32}, {"int_tensor": INT32, "str_tensor": STRING}
BOTH_ROWS = {"int_tensor": [[1, 2], [3, 4], [5, 6]], "str_tensor": ["foo", "bar"]}


def parse(body: Any, dtypes: dict[str, int]) -> tuple[str, dict[str, Any], str]:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    signature, inputs, form = parse_request(encoded, lambda _: dtypes)
    return signature, {name: array.tolist() for name, array in inputs.items()}, form


# util/json_tensor_test.cc, the tests named in the comments.
@pytest.mark.parametrize(
    ("body", "dtypes", "inputs"),
    [
        ({"instances": [[1, 2], [3, 4], [5, 6]]}, INT, {"default": [[1, 2], [3, 4], [5, 6]]}),  # SingleUnnamedTensor
        (  # DeeplyNestedWellFormed
            b'{"instances":[1], "nested":' + b"[" * DEPTH + b"]" * DEPTH + b"}",
            INT,
            {"default": [1]},
        ),
        (  # MixedInputForFloatTensor
            {"instances": [1, 2.0, 3, 5.003, 0.007]},
            {"x": FLOAT},
            {"x": np.array([1, 2, 3, 5.003, 0.007], np.float32).tolist()},
        ),
        ({"instances": [1.0, 2, 0.662, 0]}, {"x": DOUBLE}, {"x": [1.0, 2.0, 0.662, 0.0]}),  # MixedInputForDoubleTensor
        ({"instances": [1435774380]}, {"x": FLOAT}, {"x": [1435774336.0]}),  # FloatTensorWithPrecisionLoss
        ({"instances": [1435774380.0]}, {"x": FLOAT}, {"x": [1435774336.0]}),
        ({"instances": [MAX, -MAX]}, {"x": FLOAT}, {"x": [np.inf, -np.inf]}),  # FloatTensorThatExceedsMaxReturnsInf
        ({"instances": [MIN, -MIN]}, {"x": FLOAT}, {"x": [0.0, -0.0]}),  # FloatTensorThatExceedsMinReturnsZero
        (b'{"instances": [[1,2],[3,4]]}X', INT, {"default": [[1, 2], [3, 4]]}),  # TensorFromNonNullTerminatedBuffer
        (  # SingleUnnamedTensorBase64Scalars
            {"instances": [{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}]},
            {"s": STRING},
            {"s": [b"hello", b"world"]},
        ),
        ({"instances": [[{"b64": "aGVsbG8="}]]}, {"s": STRING}, {"s": [[b"hello"]]}),  # SingleUnnamedTensorBase64Lists
        (  # SingleNamedTensorBase64
            {"instances": [{"s": [[{"b64": "aGVsbG8="}], [{"b64": "d29ybGQ="}]]}]},
            {"s": STRING},
            {"s": [[[b"hello"], [b"world"]]]},
        ),
        (  # MultipleNamedTensor
            {"instances": [BOTH_ROWS, {"int_tensor": [[7, 8], [9, 0], [1, 2]], "str_tensor": ["baz", "bat"]}]},
            INTS,
            {
                "int_tensor": [[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 0], [1, 2]]],
                "str_tensor": [[b"foo", b"bar"], [b"baz", b"bat"]],
            },
        ),
        ({"inputs": {"default": [[[1, 2], [3, 4]]]}}, INT, {"default": [[[1, 2], [3, 4]]]}),  # ...ColumnarFormat
        ({"inputs": [[[1, 2], [3, 4]]]}, INT, {"default": [[[1, 2], [3, 4]]]}),
        (  # MultipleNamedTensorColumnarFormat
            {"inputs": {"int_tensor": [[[1, 2]]], "str_tensor": {"b64": "aGVsbG8="}}},
            INTS,
            {"int_tensor": [[[1, 2]]], "str_tensor": b"hello"},
        ),
    ],
)
@pytest.mark.soak
def test_requests(body: Any, dtypes: dict[str, int], inputs: dict[str, Any]) -> None:
    assert parse(body, dtypes)[1] == inputs


def test_a_request_names_its_signature_and_its_form() -> None:  # SingleUnnamedTensorWithSignature
    named = {"signature_name": "predict_images", "instances": [[1, 2]]}
    assert parse(named, INT)[::2] == ("predict_images", "instances")
    assert parse({"inputs": [[1, 2]]}, INT)[::2] == ("", "inputs")


# util/json_tensor_test.cc: SingleUnnamedTensorErrors, MultipleNamedTensorErrors, DeeplyNestedMalformed
@pytest.mark.parametrize(
    ("body", "dtypes", "text"),
    [
        (b"", INT, "document is empty"),
        (
            b'{"signature_name":' + b"[" * DEPTH + b"]" * DEPTH + b"}",
            INT,
            "key must be a string value",
        ),
        ({"signature_name": 5, "instances": [[1, 2]]}, INT, "must be a string value"),
        ({"instances": [[1, 2]], "inputs": [[1, 2]]}, INT, "Not formatted correctly"),
        ({"instances": [[1, 2], [3, 4], [5, 6, 7]]}, INT, "Expecting tensor size"),
        ({"instances": [[1, 2], [3, 4], [[5, 6]]]}, INT, "Expecting shape"),
        ({"instances": [1, [1]]}, INT, "Expecting shape"),
        ({"instances": [[1, 2], ["a", "b"]]}, INT, "not of expected type"),
        (
            {"instances": [BOTH_ROWS, {**BOTH_ROWS, "int_tensor": [[[7, 8], [9, 0], [1, 2]]]}]},
            INTS,
            "Expecting shape",
        ),
        (
            {"instances": [{**BOTH_ROWS, "int_tensor": [[1, 2], [3, 4], [5, 6], [7, 8]]}, BOTH_ROWS]},
            INTS,
            "Expecting tensor size",
        ),
        ({"instances": [BOTH_ROWS, [1, 20, 30], BOTH_ROWS]}, INTS, "Expecting object but got list"),
        (
            {"instances": [["baz", "bar"], {"str_tensor": ["baz", "bat"]}]},
            {"str_tensor": STRING},
            "Expecting value/list but got object",
        ),
    ],
)
@pytest.mark.soak
def test_requests_that_are_wrong(body: Any, dtypes: dict[str, int], text: str) -> None:
    with pytest.raises(StatusError, match=text) as error:
        parse(body, dtypes)
    assert error.value.code == "INVALID_ARGUMENT"


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def strings(*values: bytes) -> np.ndarray:
    return np.array(values, object)


CUBE = np.array([[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 0], [1, 2]]], np.int32)
SEVERAL = {
    "double_scalar_tensor": np.array([8.0, 9.0]),
    "float_tensor": np.array([[1.0], [2.0]], np.float32),
    "int_tensor": CUBE,
    "str_tensor": strings(b"foo", b"bar", b"baz", b"bat").reshape(2, 2),
    "str_tensor_bytes": strings(b"hello", b"world", b"tf", b"serving").reshape(2, 2),
}


# util/json_tensor_test.cc, the tests FromJson*
@pytest.mark.parametrize(
    ("outputs", "form", "answer"),
    [
        ({"int_tensor": CUBE}, "instances", {"predictions": CUBE.tolist()}),
        ({"int_tensor": CUBE}, "inputs", {"outputs": CUBE.tolist()}),
        ({"int_tensor": np.arange(1, 6)}, "instances", {"predictions": [1, 2, 3, 4, 5]}),
        ({"int_tensor": np.arange(1, 6)}, "inputs", {"outputs": [1, 2, 3, 4, 5]}),
        (
            {"str_tensor_bytes": SEVERAL["str_tensor_bytes"]},
            "instances",
            {"predictions": [[{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}], [{"b64": "dGY="}, {"b64": "c2VydmluZw=="}]]},
        ),
        (
            SEVERAL,
            "instances",
            {
                "predictions": [
                    {
                        "double_scalar_tensor": 8.0,
                        "float_tensor": [1.0],
                        "int_tensor": [[1, 2], [3, 4], [5, 6]],
                        "str_tensor": ["foo", "bar"],
                        "str_tensor_bytes": [{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}],
                    },
                    {
                        "double_scalar_tensor": 9.0,
                        "float_tensor": [2.0],
                        "int_tensor": [[7, 8], [9, 0], [1, 2]],
                        "str_tensor": ["baz", "bat"],
                        "str_tensor_bytes": [{"b64": "dGY="}, {"b64": "c2VydmluZw=="}],
                    },
                ]
            },
        ),
        ({"y": floats(9000000, 999999, 0.5, 0.0003, 0.00003, 555557.5)}, "instances", None),
        ({"y": floats(np.inf, 3, -np.inf)}, "instances", {"predictions": [np.inf, 3.0, -np.inf]}),
        ({"int_tensor": np.zeros((0, 2), np.int32)}, "instances", {"predictions": []}),
        ({"s": np.zeros((0, 1, 2), object), "f": np.zeros((0, 3, 4))}, "instances", {"predictions": []}),
    ],
)
def test_answers(outputs: dict[str, np.ndarray], form: Any, answer: Any) -> None:
    found = json.loads(render_answer(outputs, form))
    assert found == (answer or {"predictions": [9e06, 999999.0, 0.5, 0.0003, 3e-05, 555557.5]})


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({}, "empty tensor map"),
        ({"tensor": np.ones(2, np.complex64)}, "tensor type: complex64"),
        ({"tensor": np.array(1)}, "no shape information"),
        ({"int_tensor": np.ones((2, 3)), "str_tensor": np.ones((1, 3))}, "inconsistent batch size"),
        ({"int_tensor": np.ones((0, 2)), "str_tensor": np.ones((1, 2))}, "inconsistent batch size"),
    ],
)
def test_answers_that_there_cannot_be(outputs: dict[str, np.ndarray], text: str) -> None:
    with pytest.raises(StatusError, match=text):
        render_answer(outputs, "instances")


class Clients:
    def __init__(self, server: Any) -> None:
        self.grpc, self.rest = GrpcClient(server.grpc_port), RestClient(server.rest_port)


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    base = tmp_path_factory.mktemp("models")
    shapeless = half_plus_two().signature({"x": (FLOAT, "x:0", None)}, {"y": (FLOAT, "y:0", None)})
    shapeless.signature({"inputs": (FLOAT, "x:0", None)}, {"outputs": (FLOAT, "y:0", None)}, "regress_x2_to_y3")
    shapeless.constant("text", "gr\u00fcn".encode()).signature({}, {"text": (STRING, "text:0", [])}, "scalar_string")
    shapeless.node("s", "Placeholder", dtype=STRING, shape=[-1]).node("t", "Placeholder", dtype=STRING, shape=[-1])
    shapeless.node("joined", "Add", "s", "t", T=STRING)
    two = {"s": (STRING, "s:0", [-1]), "t": (STRING, "t:0", [-1])}
    shapeless.signature(two, {"joined": (STRING, "joined:0", [-1])}, "two_strings").write(base / "half" / "123")
    with model_server({"half_plus_two": str(base / "half")}, labels={"stable": 123}) as server:
        made = Clients(server)
        yield made
        made.grpc.close()
        made.rest.close()


HALF = "/v1/models/half_plus_two"


# model_servers/http_rest_api_handler_test.cc: UnsupportedApiCalls, PredictModelNameVersionErrors, PredictRequestErrors
@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("GET", "/v1/foo", b"", 400, "Malformed request"),
        ("POST", "/v1/foo", b"", 400, "Malformed request"),
        ("GET", "/v1/models", b"", 400, "Missing model name"),
        ("GET", "/v1/models/debug/model_name", b"", 400, "Malformed request"),
        ("POST", "/v1/models", b"", 400, "Malformed request"),
        ("GET", "/v1/models/foo:predict", b"", 400, "Malformed request"),
        ("GET", "/v1/models/foo/version/50:predict", b"", 400, "Malformed request"),
        ("POST", "/v1/models/foo/version/50:regress", b"", 400, "Malformed request"),
        ("POST", "/v1/models/foo/versions/HELLO:regress", b"", 400, "Malformed request"),
        ("POST", f"/v1/models/foo/versions/{2**64 - 1}:regress", b"", 400, "Failed to convert version"),
        ("POST", "/v1/models/foo/metadata", b"", 400, "Malformed request"),
        ("POST", "/v1/models/foo/label/some_label:regress", b"", 400, "Malformed request"),
        ("POST", "/v1/models/foo/versions/50/labels/some_label:regress", b"", 400, "Malformed request"),
        ("POST", "/v1/models/foo:predict", b'{"instances": [1]}', 404, ""),
        ("POST", "/v1/models/foo/versions/50:predict", b'{"instances": [1]}', 404, ""),
        ("POST", f"{HALF}99:predict", b'{"instances": [1]}', 404, ""),
        ("POST", f"{HALF}:predict", b"", 400, "JSON Parse error: The document is empty"),
        ("POST", f"{HALF}:predict", b"instances = [1, 2]", 400, "JSON Parse error: Invalid value"),
        ("POST", f"{HALF}:predict", b'{"instances": ["x", "y"]}', 400, "not of expected type: float"),
        ("POST", f"{HALF}/labels/none:predict", b'{"instances": ["x"]}', 400, "Unrecognized servable version label"),
        ("POST", f"{HALF}:predict", b'{"signature_name": 100}', 400, "'signature_name' key must be a string value."),
    ],
)
def test_calls_that_fail_over_rest(
    method: str, path: str, body: bytes, status: int, text: str, clients: Clients
) -> None:
    response = clients.rest.request(method, path, body)
    assert (response.status, response.headers["Content-Type"]) == (status, "application/json")
    assert text in json.loads(response.data)["error"]


# The same file: Predict, GetStatus. Regress and Classify, which the reference server does not have, are left out.
@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        (":predict", {"instances": [[1.0, 2.0], [3.0, 4.0]]}, {"predictions": [[2.5, 3.0], [3.5, 4.0]]}),
        ("/versions/123:predict", {"instances": [1.0, 2.0]}, {"predictions": [2.5, 3.0]}),
        ("/labels/stable:predict", {"instances": [1.0, 2.0]}, {"predictions": [2.5, 3.0]}),
        ("/versions/123:predict", {"signature_name": "serving_default", "inputs": [3.0, 4.0]}, {"outputs": [3.5, 4.0]}),
    ],
)
def test_predictions_over_rest(path: str, body: Any, answer: Any, clients: Clients) -> None:
    response = clients.rest.request("POST", HALF + path, body)
    assert (response.status, json.loads(response.data)) == (200, answer)


@pytest.mark.parametrize("path", ["", "/versions/123", "/labels/stable"])
def test_the_status_over_rest(path: str, clients: Clients) -> None:
    states = [{"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]
    assert json.loads(clients.rest.request("GET", HALF + path).data) == {"model_version_status": states}


# servables/tensorflow/predict_impl_test.cc
@pytest.mark.parametrize(
    ("spec", "inputs", "outputs", "code"),
    [
        (None, {}, [], "INVALID_ARGUMENT"),  # MissingOrEmptyModelSpec
        ({}, {}, [], "INVALID_ARGUMENT"),
        ({"name": "test"}, {}, [], "NOT_FOUND"),
        ({"name": "half_plus_two"}, {}, [], "INVALID_ARGUMENT"),  # EmptyInputList
        (
            {"name": "half_plus_two"},
            {"key": b"any_key"},
            [],
            "INVALID_ARGUMENT",
        ),  # InputTensorsDontMatchModelSpecInputs
        ({"name": "half_plus_two"}, {"x": 2.0}, ["output_filter"], "INVALID_ARGUMENT"),  # OutputFiltersDontMatch...
        ({"name": "half_plus_two"}, {"x": 2.0}, ["y", "y"], "INVALID_ARGUMENT"),
        ({"name": "half_plus_two"}, {"x": b"any_key"}, ["y"], "INVALID_ARGUMENT"),  # InputTensorsHaveWrongType
        ({"name": "half_plus_two"}, {"x": 2.0}, ["y"], {"y": 3.0}),  # PredictionSuccess
        ({"name": "half_plus_two"}, {"x": 2.0}, [], {"y": 3.0}),
        (  # PredictionWithNamedRegressionSignature
            {"name": "half_plus_two", "signature_name": "regress_x2_to_y3"},
            {"inputs": 2.0},
            [],
            {"outputs": 3.0},
        ),
    ],
)
def test_predictions_over_grpc(spec: Any, inputs: Any, outputs: Any, code: Any, clients: Clients) -> None:
    request = message_class("tensorflow.serving.PredictRequest")(output_filter=outputs)
    if spec is not None:
        request.model_spec.SetInParent()
        for field, value in spec.items():
            setattr(request.model_spec, field, value)
    for name, value in inputs.items():
        field = ("string_val", STRING) if isinstance(value, bytes) else ("float_val", FLOAT)
        getattr(request.inputs[name], field[0]).append(value)
        request.inputs[name].dtype = field[1]
    send = clients.grpc.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    if isinstance(code, str):
        with pytest.raises(grpc.RpcError) as error:
            send(request.SerializeToString(), timeout=PATIENCE_SECS)
        assert error.value.code().name == code  # type: ignore[attr-defined]
        return
    answer = send(request.SerializeToString(), timeout=PATIENCE_SECS)
    response = message_class("tensorflow.serving.PredictResponse").FromString(answer)
    assert {name: tensor.float_val[0] for name, tensor in response.outputs.items()} == code
    assert not any(tensor.tensor_shape.dim for tensor in response.outputs.values())
    assert response.model_spec.signature_name == spec.get("signature_name", "serving_default")


# Not of TF Serving's tests, but of its code: each ended the connection without an answer once.
@pytest.mark.parametrize(
    ("body", "status", "answer"),
    [
        (b'{"signature_name": "two_strings", "instances": [{"s": "\\ud800", "t": ""}]}', 400, "surrogate pair"),
        (b'{"signature_name": "two_strings", "instances": [{"b64": "YQ=="}]}', 400, "input size does not match"),
        (b'{"signature_name": "two_strings", "inputs": {"s": [1e400], "t": [1]}}', 400, "Number too big"),
        (b'{"signature_name": "two_strings", "inputs": {"s": ["a"], "t": ["b"]}}', 200, '{"outputs": ["ab"]}'),
    ],
)
def test_every_request_has_an_answer(body: bytes, status: int, answer: str, clients: Clients) -> None:
    response = clients.rest.request("POST", f"{HALF}:predict", body)
    assert response.status == status
    assert answer in response.data.decode()


def test_a_scalar_string_is_an_answer(clients: Clients) -> None:
    response = clients.grpc.predict("half_plus_two", {}, signature="scalar_string")
    assert list(response.outputs["text"].string_val) == ["gr\u00fcn".encode()]
    assert not response.outputs["text"].tensor_shape.dim
