"""The REST side of the reference server: HTTP, URLs, and how tensors are written in JSON."""

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from sluice.models.server import http_server
from sluice.models.server.reference import ReferenceServer
from sluice.models.server.rest_request import parse_request, to_array
from sluice.models.server.rest_response import render_answer
from sluice.models.server.status import StatusError
from tests.support.serving.model_servers import RestClient, model_server

FLOAT, DOUBLE, INT32, UINT8, INT8, STRING, INT64, BOOL = 1, 2, 3, 4, 6, 7, 9, 10
UINT16, HALF, UINT32, UINT64 = 17, 19, 22, 23


@pytest.fixture(scope="module")
def server(cases: Callable[[str], str]) -> Iterator[ReferenceServer]:
    names = ("picky", "raw_bytes", "dtypes", "string_only", "tf2_function")
    with model_server({**{name: cases(name) for name in names}, "a b": cases("picky")}) as made:
        yield made


@pytest.fixture(scope="module")
def rest(server: ReferenceServer) -> Iterator[RestClient]:
    client = RestClient(server.rest_port)
    yield client
    client.close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/models/picky", 404),
        ("POST", "/v1", 404),
        ("GET", "/v1/models/picky/", 400),
        ("GET", "/v1/models/picky/versions/x", 400),
        ("GET", "/v1/models/picky/versions/1/labels/x", 400),
        ("GET", "/v1/models/picky:predict", 400),
        ("GET", "/v1/models/picky/metadata/x", 400),
        ("POST", "/v1/models/picky", 400),
        ("POST", "/v1/models/picky:explain", 400),
        ("POST", "/v1/models/picky:PREDICT", 400),
        ("PUT", "/v1/models/picky", 400),
        ("DELETE", "/v1/models/picky:predict", 400),
    ],
)
def test_urls_that_there_are_not(method: str, path: str, status: int, rest: RestClient) -> None:
    response = rest.request(method, path, b"{}" if method == "POST" else None)
    assert response.status == status
    if status == 400:
        assert json.loads(response.data) == {"error": f"Malformed request: {method} {path}"}


def test_urls_are_decoded_and_their_case_does_not_matter(rest: RestClient) -> None:
    assert rest.predict("a%20b", {"instances": [4.0]}) == (200, {"predictions": [2.0]})
    assert rest.request("POST", "/V1/Models/picky/Versions/1:predict", {"instances": [4.0]}).status == 200
    assert rest.get("picky/METADATA") == rest.get("picky")  # the status, as http_rest_api_handler.cc has it
    status, answer = rest.get("")
    assert (status, answer) == (400, {"error": "Malformed request: GET /v1/models/"})
    response = rest.request("GET", "/v1/models")
    assert (response.status, json.loads(response.data)) == (400, {"error": "Missing model name in request."})
    query = "Could not find any versions of model picky?x=1"  # a query is taken for a part of the name
    assert rest.get("picky?x=1") == (404, {"error": query})
    too_long = "9" * 20
    status, answer = rest.get(f"picky/versions/{too_long}")
    assert (status, answer) == (400, {"error": f"Failed to convert version: {too_long} to numeric."})


@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_what_there_is_not_yet_says_so(verb: str, rest: RestClient) -> None:
    response = rest.request("POST", f"/v1/models/picky:{verb}", {"examples": [{"x": 4.0}]})
    assert response.status == 501
    assert json.loads(response.data) == {"error": f"the reference server of Sluice has no {verb}"}


def test_requests_and_answers_may_be_compressed(rest: RestClient) -> None:
    body = gzip.compress(json.dumps({"instances": [4.0]}).encode())
    response = rest.request("POST", "/v1/models/picky:predict", body, Content_Encoding="gzip", Accept_Encoding="gzip")
    assert response.headers["Content-Encoding"] == "gzip"
    assert json.loads(response.data) == {"predictions": [2.0]}  # urllib3 has decompressed it
    plain = rest.request("POST", "/v1/models/picky:predict", {"instances": [4.0]})
    assert "Content-Encoding" not in plain.headers
    broken = rest.request("POST", "/v1/models/picky:predict", body[:-9], Content_Encoding="gzip")
    assert (broken.status, json.loads(broken.data)) == (400, {"error": "JSON Parse error: The document is empty"})


def test_a_body_that_is_too_large_unpacked_is_taken_for_none(rest: RestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps({"instances": [4.0] * 100}).encode()
    body = gzip.compress(text)
    monkeypatch.setattr(http_server, "_MAX_UNPACKED", len(text))
    whole = rest.request("POST", "/v1/models/picky:predict", body, Content_Encoding="gzip")
    assert json.loads(whole.data) == {"predictions": [2.0] * 100}
    monkeypatch.setattr(http_server, "_MAX_UNPACKED", len(text) - 1)
    refused = rest.request("POST", "/v1/models/picky:predict", body, Content_Encoding="gzip")
    assert (refused.status, json.loads(refused.data)) == (400, {"error": "JSON Parse error: The document is empty"})
    assert rest.request("POST", "/v1/models/picky:predict", text).status == 200, "the limit is for compressed bodies"


def test_requests_may_come_in_chunks(rest: RestClient) -> None:
    for _ in range(2):
        response = rest._pool.request("POST", "/v1/models/picky:predict", body=iter([b'{"instances":', b" [4.0]}"]))
        assert json.loads(response.data) == {"predictions": [2.0]}


def test_a_connection_serves_many_requests(rest: RestClient) -> None:
    pool = rest._pool
    before = pool.num_connections, pool.num_requests
    for _ in range(3):
        assert rest.predict("picky", {"instances": [4.0]})[0] == 200
        assert rest.predict("nope", {"instances": [4.0]})[0] == 404
    assert pool.num_connections - before[0] == 0
    assert pool.num_requests - before[1] == 6


def test_only_loopback_is_served(server: ReferenceServer) -> None:
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.2", server.rest_port)) != 0
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.2", server.grpc_port)) != 0


def test_what_is_no_number_goes_in_and_out(rest: RestClient) -> None:
    body = b'{"inputs": {"amount": [NaN, Infinity, -Infinity], "items": [1, 2, 3], "member": [false, false, false], '
    body += b'"country": ["a", "b", "c"]}}'
    response = rest.request("POST", "/v1/models/tf2_function:predict", body)
    assert response.status == 200
    assert b'"price": [NaN, Infinity, -Infinity]' in response.data


def test_strings_that_are_not_text_pass_through(rest: RestClient) -> None:
    response = rest.request("POST", "/v1/models/string_only:predict", b'{"instances": ["a\xff"]}')
    assert response.data == b'{"predictions": [{"length": 2, "upper": "A\xff"}]}'


def test_the_error_of_a_model_has_its_status(rest: RestClient) -> None:
    status, answer = rest.predict("picky", {"instances": [-1.0]})
    assert status == 400
    assert "x must not be negative" in answer["error"]
    status, answer = rest.predict("picky", {"signature_name": "nope", "instances": [1.0]})
    assert (status, answer["error"]) == (400, 'Serving signature name: "nope" not found in signature def')
    status, answer = rest.predict("dtypes", {"inputs": {"int8": [1]}})
    assert (status, answer["error"]) == (400, "Missing named input: bfloat16 in 'inputs' object.")


ONE, TWO = {"x": FLOAT}, {"x": FLOAT, "s": STRING}


def parse(body: Any, dtypes: dict[str, int]) -> dict[str, Any]:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return {name: array.tolist() for name, array in parse_request(encoded, lambda _: dtypes)[1].items()}


@pytest.mark.parametrize(
    ("body", "dtypes", "inputs"),
    [
        ({"instances": [1, 2.5]}, ONE, {"x": [1.0, 2.5]}),
        ({"instances": [[1], [2]]}, ONE, {"x": [[1.0], [2.0]]}),
        ({"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}, ONE, {"x": [[1.0, 2.0], [3.0, 4.0]]}),
        (
            {"instances": [{"x": 1, "s": "a"}, {"s": {"b64": "/w=="}, "x": 2}]},
            TWO,
            {"x": [1.0, 2.0], "s": [b"a", b"\xff"]},
        ),
        ({"instances": [{"b64": "/w"}]}, {"s": STRING}, {"s": [b"\xff"]}),
        ({"instances": ["gr\u00fcn", ""]}, {"s": STRING}, {"s": ["gr\u00fcn".encode(), b""]}),
        ({"inputs": [1, 2]}, ONE, {"x": [1.0, 2.0]}),
        ({"inputs": 1}, ONE, {"x": 1.0}),
        ({"inputs": {"b64": "YQ=="}}, {"s": STRING}, {"s": b"a"}),
        ({"inputs": {"x": [1], "s": ["a", "b"], "more": []}}, TWO, {"x": [1.0], "s": [b"a", b"b"]}),
        ({"inputs": {"x": []}}, ONE, {"x": []}),
        ({"instances": [True]}, {"x": BOOL}, {"x": [True]}),
        ({"instances": [2**63]}, {"x": UINT64}, {"x": [2**63]}),
        ({"instances": [300, -1]}, {"x": UINT8}, {"x": [44, 255]}),  # TensorFlow keeps the low bits
        ({"instances": [2**60 + 1, 1e308]}, {"x": DOUBLE}, {"x": [2.0**60, 1e308]}),
        ({"instances": [2**24 + 1, 1e39, -1e39]}, ONE, {"x": [2.0**24, float("inf"), -float("inf")]}),
        ({"instances": [2**70]}, {"x": DOUBLE}, {"x": [2.0**70]}),
        ({"instances": [{"b64": "YQ=="}]}, {"s": STRING, "t": STRING}, {"s": [b"a"]}),  # the call lacks "t"
        ({"instances": [{"b64": " YW\nI"}]}, {"s": STRING}, {"s": [b"ab"]}),
        (b'{"instances": [NaN, -Infinity]}', ONE, {"x": [pytest.approx(float("nan"), nan_ok=True), -float("inf")]}),
    ],
)
def test_tensors_in_requests(body: Any, dtypes: dict[str, int], inputs: dict[str, Any]) -> None:
    assert parse(body, dtypes) == inputs


ELEMENT = "Failed to process element: "


@pytest.mark.parametrize(
    ("body", "dtypes", "text"),
    [
        (b"", ONE, "JSON Parse error: The document is empty"),
        (b"{", ONE, "JSON Parse error: "),
        (b"[" * 20_000, ONE, "JSON Parse error: Invalid value. at offset: 20000"),
        ([1], ONE, "JSON Value: [1] Is not object"),
        ({"inputs": [[[]]] * 2 + [[1] * 10**5]}, ONE, "Encountered list at unexpected size: 100000 at level: 1"),
        (b'{"inputs": ' + b"[" * 70 + b"1" + b"]" * 70 + b"}", ONE, "tensor parsing error: a tensor of rank 70"),
        ({"instances": [{"b64": "YQ=="}]}, {"x": FLOAT, "y": FLOAT}, "Type: Object is not of expected type: float"),
        ({}, ONE, "Missing 'inputs' or 'instances' key"),
        ({"instances": [1]}, {}, "Failed to get input map for signature: DEFAULT"),
        ({"instances": [1], "signature_name": 1}, ONE, "'signature_name' key must be a string value."),
        ({"instances": [1], "inputs": [1]}, ONE, "expecting only one of 'inputs' or 'instances' keys to exist"),
        ({"instances": 1}, ONE, "Expecting 'instances' to be an list/array"),
        ({"instances": []}, ONE, "No values in 'instances' array"),
        ({"instances": [1]}, TWO, "instances is a plain list, but expecting list of objects as multiple input tensors"),
        ({"instances": [{"x": 1}, 2]}, ONE, "Expecting object but got list at item 1 of input list"),
        ({"instances": [1, {"x": 1}]}, ONE, "Expecting value/list but got object at item 1 of input list"),
        (
            {"instances": [1, "a"]},
            ONE,
            ELEMENT + "1 of 'instances' list. Error: INVALID_ARGUMENT: "
            'JSON Value: "a" Type: String is not of expected type: float',
        ),
        (
            {"instances": [{"x": 1, "s": "a"}, {"x": 1, "s": 1}]},
            TWO,
            ELEMENT + "1 key: s of 'instances' list. Error: INVALID_ARGUMENT: "
            "JSON Value: 1 Type: Number is not of expected type: string",
        ),
        ({"instances": [{"x": 1, "y": 1}]}, ONE, "Error: INVALID_ARGUMENT: JSON object: does not have named input: y"),
        ({"instances": [{"x": 1}]}, TWO, " keys must be equal to: s,x"),
        ({"instances": [[1], [1, 2]]}, ONE, "Expecting tensor size: 1 but got: 2"),
        ({"instances": [[[1, 2]], [[1], [2]]]}, ONE, "Expecting shape [1,2] but got: [2,1]"),
        ({"instances": [{"b64": "!"}]}, {"s": STRING}, "Unable to base64 decode"),
        ({"instances": [{"b64": "YQ="}]}, {"s": STRING}, "Unable to base64 decode"),
        ({"instances": [{"b64": "YWI=="}]}, {"s": STRING}, "Unable to base64 decode"),
        ({"instances": [{"b64": "YWJjZ"}]}, {"s": STRING}, "Unable to base64 decode"),
        ({"inputs": [1]}, TWO, "inputs is a plain value/list, but expecting an object as multiple input tensors"),
        ({"inputs": {"x": [1]}}, TWO, "Missing named input: s in 'inputs' object."),
        ({"inputs": [[1], 2]}, ONE, "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ({"inputs": [1, [2]]}, ONE, "Encountered list at unexpected level: 1 expected < 1"),
        ({"inputs": [[1], [2, 3]]}, ONE, "Encountered list at unexpected size: 2 at level: 1 expected size: 1"),
        ({"inputs": [{"b64": 1}]}, {"s": STRING}, "not formatted correctly for base64 data"),
        ({"inputs": [{"b64": "YQ=="}]}, ONE, "Type: Object is not of expected type: float"),
        ({"inputs": [None]}, ONE, "JSON Value: null Type: Null is not of expected type: float"),
        ({"inputs": [True]}, ONE, "JSON Value: true Type: True is not of expected type: float"),
        ({"inputs": [1]}, {"x": BOOL}, "Type: Number is not of expected type: bool"),
        ({"inputs": [1.0]}, {"x": INT64}, "JSON Value: 1.0 Type: Number is not of expected type: int64"),
        ({"inputs": [2**31]}, {"x": INT8}, "is not of expected type: int8"),
        ({"inputs": [-1]}, {"x": UINT32}, "is not of expected type: uint32"),
        ({"inputs": [2**63]}, {"x": INT64}, "is not of expected type: int64"),
        ({"inputs": [1]}, {"x": HALF}, "Conversion of JSON Value: 1 to type: half"),
        ({"inputs": [1]}, {"x": UINT16}, "Conversion of JSON Value: 1 to type: uint16"),
        ({"inputs": [1]}, {"x": 8}, "Conversion of JSON Value: 1 to type: DataType 8"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(body: Any, dtypes: dict[str, int], text: str) -> None:
    with pytest.raises(StatusError) as error:
        parse(body, dtypes)
    assert text in error.value.message
    assert error.value.code == ("UNIMPLEMENTED" if text.startswith("Conversion") else "INVALID_ARGUMENT")


@given(
    st.sampled_from([(FLOAT, "float32"), (DOUBLE, "float64"), (INT32, "int32"), (INT64, "int64"), (UINT64, "uint64")]),
    st.data(),
)
def test_numbers_come_back_as_they_were(dtype: tuple[int, str], data: st.DataObject) -> None:
    array = data.draw(arrays_of.arrays(dtype[1], arrays_of.array_shapes(max_dims=3, max_side=4)))
    answer = json.loads(render_answer({"y": array}, "inputs"))["outputs"]
    if dtype[0] in (FLOAT, DOUBLE):
        np.testing.assert_array_equal(np.array(answer, dtype[1]), array)
    else:
        np.testing.assert_array_equal(to_array(answer, dtype[0]), array)


@pytest.mark.parametrize(
    ("outputs", "form", "body"),
    [
        ({"y": np.array([0.1, 1.0], np.float32)}, "instances", '{"predictions": [0.1, 1.0]}'),
        ({"y": np.array([16777216, 1e-9], np.float32)}, "inputs", '{"outputs": [16777216.0, 1e-09]}'),
        (
            {"b": np.array([[1], [2]]), "a": np.array([True, False])},
            "instances",
            '{"predictions": [{"a": true, "b": [1]}, {"a": false, "b": [2]}]}',
        ),
        ({"b": np.array([1]), "a": np.array(2)}, "inputs", '{"outputs": {"a": 2, "b": [1]}}'),
        ({"y_bytes": np.array([[b"a"]], object)}, "instances", '{"predictions": [[{"b64": "YQ=="}]]}'),
        ({"y": np.array(["\u00fc".encode()], object)}, "inputs", '{"outputs": ["\u00fc"]}'),
        ({"y": np.zeros((0, 2))}, "instances", '{"predictions": []}'),
        ({"a": np.zeros((0, 2)), "b": np.zeros(0, object)}, "instances", '{"predictions": []}'),
    ],
)
def test_tensors_in_answers(outputs: dict[str, np.ndarray], form: Any, body: str) -> None:
    assert render_answer(outputs, form) == body.encode()


@pytest.mark.parametrize(
    ("outputs", "form", "text"),
    [
        ({}, "inputs", "Cannot convert empty tensor map to JSON"),
        ({"y": np.array(1)}, "instances", "Tensor name: y has no shape information "),
        (
            {"a": np.zeros((0, 2)), "b": np.zeros(1)},
            "instances",
            "Tensor name: b has inconsistent batch size: 1 expecting: 0",
        ),
        (
            {"a": np.zeros(2), "b": np.zeros(3)},
            "instances",
            "Tensor name: b has inconsistent batch size: 3 expecting: 2",
        ),
        ({"y": np.zeros(1, np.float16)}, "inputs", "Failed to write JSON value for tensor type: half"),
        ({"y": np.zeros(1, ml_dtypes.bfloat16)}, "inputs", "Failed to write JSON value for tensor type: bfloat16"),
        ({"y": np.zeros(1, np.complex64)}, "inputs", "Failed to write JSON value for tensor type: complex64"),
    ],
)
def test_answers_that_have_no_json(outputs: dict[str, np.ndarray], form: Any, text: str) -> None:
    with pytest.raises(StatusError) as error:
        render_answer(outputs, form)
    assert (error.value.code, error.value.message) == ("INVALID_ARGUMENT", text)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("NOT_FOUND", 404),
        ("FAILED_PRECONDITION", 400),
        ("RESOURCE_EXHAUSTED", 429),
        ("UNAVAILABLE", 503),
        ("ABORTED", 409),
    ],
)
def test_http_statuses_of_codes(code: str, status: int) -> None:
    assert StatusError(code, "").http_status == status
    assert {StatusError(each, "").http_status for each in ("INTERNAL", "UNKNOWN", "DATA_LOSS")} == {500}
