"""What the reference server answers: the same questions go to TF Serving where it is installed."""

import base64
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from sluice.models.protos import message_class
from tests.models.saved_model.test_saved_models import feed_row
from tests.support.fakes import PATIENCE_SECS
from tests.support.saved_models.cases import CASES, ModelCase
from tests.support.serving.model_servers import (
    HAS_TENSORFLOW_MODEL_SERVER,
    GrpcClient,
    RestClient,
    arrays,
    model_server,
    predict_request,
    tensorflow_model_server,
)

BY_NAME = {case.name: case for case in CASES}
# Kinds that differ in what a server must do for them.
KINDS = [
    "tf2_function",
    "string_only",
    "raw_bytes",
    "dtypes",
    "vector_inputs",
    "image",
    "multi_label",
    "tf1_estimator",
    "tf1_estimator_predict",
    "tf1_predict",
    "no_variables",
    "unknown_rank",
    "scalar_output",
]
# The others that are asked for here.
REFUSING = ["picky", "ragged_output", "sparse_output"]


class Clients:
    def __init__(self, server: Any) -> None:
        self.grpc, self.rest = GrpcClient(server.grpc_port), RestClient(server.rest_port)


@pytest.fixture(scope="module", params=["reference"] + ["tensorflow_model_server"] * HAS_TENSORFLOW_MODEL_SERVER)
def clients(request: pytest.FixtureRequest, cases: Callable[[str], str]) -> Iterator[Clients]:
    models = {name: cases(name) for name in (*KINDS, *REFUSING)}
    run = tensorflow_model_server if request.param == "tensorflow_model_server" else model_server
    with run(models, labels={"stable": 1, "gone": 7}) as server:
        made = Clients(server)
        yield made
        made.grpc.close()
        made.rest.close()


@pytest.fixture(scope="module")
def signatures(clients: Clients) -> Callable[[ModelCase], Any]:
    def of(case: ModelCase) -> Any:
        request = message_class("tensorflow.serving.GetModelMetadataRequest")(metadata_field=["signature_def"])
        request.model_spec.name = case.name
        response = clients.grpc.predictions.GetModelMetadata(request, timeout=PATIENCE_SECS)
        definitions = message_class("tensorflow.serving.SignatureDefMap").FromString(
            response.metadata["signature_def"].value
        )
        return definitions.signature_def[case.signature]

    return of


def stack(case: ModelCase, signature: Any) -> dict[str, np.ndarray]:
    rows = [feed_row(case, signature, row) for row in case.rows]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("name", KINDS)
def test_grpc_answers_what_the_model_should(name: str, clients: Clients, signatures: Callable[..., Any]) -> None:
    case = BY_NAME[name]
    response = clients.grpc.predict(name, stack(case, signatures(case)), signature=case.signature)
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == (name, 1, case.signature)
    found = arrays(response)
    expected = case.expected(case.rows)
    assert set(found) - set(expected) <= {"threshold"}
    for output, values in expected.items():
        assert_same(found[output].tolist(), values)


def test_the_stubs_and_tensors_of_tensorflow_serving_agree(clients: Clients, signatures: Callable[..., Any]) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    stub = prediction_service_pb2_grpc.PredictionServiceStub(clients.grpc.channel)
    for name in KINDS:
        case = BY_NAME[name]
        inputs = stack(case, signatures(case))
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = name, case.signature
        for key, array in inputs.items():
            request.inputs[key].CopyFrom(tf.make_tensor_proto(array))
        found = stub.Predict(request, timeout=PATIENCE_SECS).outputs
        wanted = arrays(clients.grpc.predict(name, inputs, signature=case.signature))
        assert {key: tf.make_ndarray(tensor).tolist() for key, tensor in found.items()} == {
            key: array.tolist() for key, array in wanted.items()
        }


@pytest.mark.parametrize("form", ["instances", "inputs"])
@pytest.mark.parametrize("name", sorted({*KINDS} - {"dtypes"}))
def test_rest_answers_what_the_model_should(
    name: str, form: str, clients: Clients, signatures: Callable[..., Any]
) -> None:
    case = BY_NAME[name]
    columns = {
        key: to_json(array.tolist(), name != "string_only") for key, array in stack(case, signatures(case)).items()
    }
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    body = {"signature_name": case.signature, form: columns if form == "inputs" else rows}
    status, answer = clients.rest.predict(name, body)
    if name == "scalar_output" and form == "instances":  # its threshold has no row for each instance
        assert (status, answer) == (400, {"error": "Tensor name: threshold has no shape information "})
        return
    assert status == 200, answer
    expected = {key: to_json(values, key.endswith("_bytes")) for key, values in case.expected(case.rows).items()}
    assert_same(by_column(answer, form, list(expected)), expected)


def by_column(answer: Any, form: str, outputs: list[str]) -> dict[str, Any]:
    """The outputs by name, as they stand in one of the two forms."""
    found = answer["outputs" if form == "inputs" else "predictions"]
    if len(outputs) == 1 and not (isinstance(found, dict) and outputs[0] in found):
        return {outputs[0]: found}
    return {name: found[name] if form == "inputs" else [row[name] for row in found] for name in outputs}


def to_json(value: Any, as_base64: bool) -> Any:
    if isinstance(value, list):
        return [to_json(each, as_base64) for each in value]
    if not isinstance(value, bytes):
        return value
    return {"b64": base64.b64encode(value).decode()} if as_base64 else value.decode()


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == (pytest.approx(expected, rel=1e-6) if isinstance(expected, float) else expected)


ORDER = {
    "amount": np.array([8.0, 1.0], np.float32),
    "items": np.array([2, 3]),
    "member": np.array([True, False]),
    "country": np.array([b"NO", b"IT"], object),
}
X = {"x": np.array([4.0, 9.0], np.float32)}
TEXT = {"text": np.array([b"a b"], object)}
NO_TENSOR = "Tensor :0, specified in either feed_devices or fetch_devices was not found in the Graph"


def without(name: str) -> dict[str, np.ndarray]:
    return {key: array for key, array in ORDER.items() if key != name}


REFUSED: dict[str, tuple[tuple[Any, ...], dict[str, Any], str, str]] = {
    "no model": (("nope", X), {}, "NOT_FOUND", "Servable not found for request: Latest(nope)"),
    "no name": (("", X), {}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    "no version": (("picky", X), {"version": 3}, "NOT_FOUND", "Servable not found for request: Specific(picky, 3)"),
    "no label": (("picky", X), {"label": "x"}, "INVALID_ARGUMENT", "Unrecognized servable version label: x"),
    "label of a version that is not loaded": (
        ("picky", X),
        {"label": "gone"},
        "NOT_FOUND",
        "Servable not found for request: Specific(picky, 7)",
    ),
    "no signature": (
        ("picky", X),
        {"signature": "nope"},
        "FAILED_PRECONDITION",
        'Serving signature key "nope" not found.',
    ),
    "no default signature": (
        ("tf1_predict", X),
        {},
        "FAILED_PRECONDITION",
        'Serving signature key "serving_default" not found.',
    ),
    "not a signature to call": (
        ("picky", {}),
        {"signature": "__saved_model_init_op"},
        "INTERNAL",
        "Expected prediction signature method_name to be one of {tensorflow/serving/predict, "
        "tensorflow/serving/classify, tensorflow/serving/regress}. Was: ",
    ),
    "input missing": (
        ("tf2_function", without("items")),
        {},
        "INVALID_ARGUMENT",
        "input size does not match signature: 3!=4 len({amount,country,member}) != len({amount,country,items,member}). "
        "Sent extra: {}. Missing but required: {items}.",
    ),
    "input too many": (
        ("picky", {**X, "y": X["x"]}),
        {},
        "INVALID_ARGUMENT",
        "input size does not match signature: 2!=1 len({x,y}) != len({x}). Sent extra: {y}. Missing but required: {}.",
    ),
    "input of another name": (
        ("picky", {"z": X["x"]}),
        {},
        "INVALID_ARGUMENT",
        "Signature input alias: x(feed name: serving_default_x:0) not found in request and no default value provided. "
        "Inputs expected to be in the request {z}, or default input alias set: ",
    ),
    "wrong dtype": (
        ("picky", {"x": np.array([4, 9])}),
        {},
        "INVALID_ARGUMENT",
        "Expects arg[0] to be float but int64 is provided",
    ),
    "wrong rank": (("picky", {"x": np.array([[4.0]], np.float32)}), {}, "INVALID_ARGUMENT", None),
    "uneven rows": (("tf2_function", {**ORDER, "items": np.array([1, 2, 3])}), {}, "INVALID_ARGUMENT", None),
    "the model refuses": (
        ("picky", {"x": np.array([-1.0], np.float32)}),
        {},
        "INVALID_ARGUMENT",
        None,
    ),
    "no such output": (
        ("string_only", TEXT),
        {"outputs": ["upper", "nope"]},
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: nope Outputs expected to be in the set {length,upper}.",
    ),
    "output named twice": (
        ("string_only", TEXT),
        {"outputs": ["upper", "upper"]},
        "INVALID_ARGUMENT",
        "duplicate output tensor alias: upper",
    ),
    "ragged output": (("ragged_output", TEXT), {}, "INVALID_ARGUMENT", NO_TENSOR),
    "sparse output": (("sparse_output", TEXT), {"outputs": ["words"]}, "INVALID_ARGUMENT", NO_TENSOR),
}


@pytest.mark.parametrize("what", REFUSED)
def test_grpc_refuses_with_the_code_and_text_of_tf_serving(what: str, clients: Clients) -> None:
    arguments, fields, code, text = REFUSED[what]
    with pytest.raises(grpc.RpcError) as error:
        clients.grpc.predict(*arguments, **fields)
    assert error.value.code().name == code
    assert text is None or error.value.details() == text


def test_a_tensor_that_does_not_parse_is_named(clients: Clients) -> None:
    request = predict_request("picky", X)
    request.inputs["x"].tensor_content = b"123"
    with pytest.raises(grpc.RpcError) as error:
        clients.grpc.predictions.Predict(request, timeout=PATIENCE_SECS)
    assert (error.value.code().name, error.value.details()) == ("INVALID_ARGUMENT", "tensor parsing error: x")


def test_a_request_without_a_model_is_refused(clients: Clients) -> None:
    with pytest.raises(grpc.RpcError) as error:
        clients.grpc.predictions.Predict(message_class("tensorflow.serving.PredictRequest")(), timeout=PATIENCE_SECS)
    assert (error.value.code().name, error.value.details()) == ("INVALID_ARGUMENT", "Missing ModelSpec")


def test_only_the_outputs_asked_for_are_computed(clients: Clients) -> None:
    assert set(clients.grpc.predict("string_only", TEXT, outputs=["length"]).outputs) == {"length"}
    # The ragged outputs of this model cannot be fetched; its dense one can.
    assert arrays(clients.grpc.predict("ragged_output", TEXT, outputs=["count"]))["count"].tolist() == [2]


def test_a_version_can_be_asked_for_by_number_and_by_label(clients: Clients) -> None:
    for fields in ({"version": 1}, {"label": "stable"}):
        response = clients.grpc.predict("picky", X, **fields)
        assert response.model_spec.version.value == 1
        assert arrays(response)["root"].tolist() == [2.0, 3.0]
    for path in ("picky/versions/1", "picky/labels/stable", "picky"):
        assert clients.rest.predict(path, {"instances": [4.0]}) == (200, {"predictions": [2.0]})


def test_metadata_has_every_signature_and_the_version(clients: Clients) -> None:
    status, answer = clients.rest.get("tf1_estimator/labels/stable/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": "tf1_estimator", "signature_name": "", "version": "1"}
    definitions = answer["metadata"]["signature_def"]["signature_def"]
    assert set(definitions) == {"serving_default", "classification", "regression", "predict"}
    assert definitions["regression"]["method_name"] == "tensorflow/serving/regress"
    assert definitions["predict"]["inputs"]["examples"] == {
        "dtype": "DT_STRING",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
        "name": "input_example_tensor:0",
    }


@pytest.mark.parametrize(
    ("fields", "name", "code", "text"),
    [
        ([], "picky", "INVALID_ARGUMENT", "GetModelMetadataRequest must specify at least one metadata_field"),
        (["nope"], "picky", "INVALID_ARGUMENT", None),
        (["signature_def"], "nope", "NOT_FOUND", "Servable not found for request: Latest(nope)"),
    ],
)
def test_metadata_refuses(fields: list[str], name: str, code: str, text: str | None, clients: Clients) -> None:
    request = message_class("tensorflow.serving.GetModelMetadataRequest")(metadata_field=fields)
    request.model_spec.name = name
    with pytest.raises(grpc.RpcError) as error:
        clients.grpc.predictions.GetModelMetadata(request, timeout=PATIENCE_SECS)
    assert error.value.code().name == code
    assert text is None or error.value.details() == text


def test_status_tells_the_versions(clients: Clients) -> None:
    request = message_class("tensorflow.serving.GetModelStatusRequest")()
    request.model_spec.name = "picky"
    (entry,) = clients.grpc.models.GetModelStatus(request, timeout=PATIENCE_SECS).model_version_status
    assert (entry.version, entry.state) == (1, message_class("tensorflow.serving.ModelVersionStatus").AVAILABLE)
    available = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in ("picky", "picky/versions/1", "picky/labels/stable"):
        assert clients.rest.get(path) == (200, {"model_version_status": [available]})
    request.model_spec.version.value = 3
    with pytest.raises(grpc.RpcError) as error:
        clients.grpc.models.GetModelStatus(request, timeout=PATIENCE_SECS)
    assert (error.value.code().name, error.value.details()) == ("NOT_FOUND", "Could not find version 3 of model picky")
    missing = {"error": "Could not find any versions of model nope"}
    assert clients.rest.get("nope") == (404, missing)
