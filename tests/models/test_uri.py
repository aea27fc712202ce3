"""--model URIs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sluice.models.errors import UsageError
from sluice.models.uri import Endpoint, ManagedModel, ModelSpec, parse_base_url, parse_model_uri


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("model", "model"),
        (" /models/m/ ", "/models/m"),
        ("file:///models/m//", "/models/m"),
        ("gs://bucket/m/", "gs://bucket/m"),
        ("/", "/"),
        ("file:///", "/"),
        ("C:model", "C:model"),
    ],
)
def test_directories(uri: str, path: str) -> None:
    assert parse_model_uri(uri) == ModelSpec(path)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("", "--model is empty"),
        ("  ", "--model is empty"),
        ("s3://bucket/m", "'s3://' is not a scheme"),
        ("gs://", "names no bucket"),
    ],
)
def test_what_no_backend_serves(uri: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_model_uri(uri)


GRPC = Endpoint("grpc", "models", 8500, "m")
REST = Endpoint("rest", "models", 8501, "m")


@pytest.mark.parametrize(
    ("uri", "endpoint", "version"),
    [
        ("grpc://models:8500/m", GRPC, None),
        ("grpc://models/m", GRPC, None),
        ("GRPC://Models:8500/m", GRPC, None),
        ("grpc://models:9000/m", replace(GRPC, port=9000), None),
        ("grpc://models:0/m", replace(GRPC, port=0), None),
        ("grpc://models/m/versions/12", GRPC, 12),
        ("grpc://models/m/versions/0", GRPC, 0),
        ("grpc://models/m/versions/9223372036854775807", GRPC, 2**63 - 1),
        ("grpc://models/m/labels/stable", replace(GRPC, label="stable"), None),
        ("grpc://models/m/labels/12", replace(GRPC, label="12"), None),
        ("grpcs://models/m", replace(GRPC, port=443, tls=True), None),
        ("grpcs://models:8500/m", replace(GRPC, tls=True), None),
        ("grpc://127.0.0.1/m", replace(GRPC, host="127.0.0.1"), None),
        ("grpc://[::1]:8500/m", replace(GRPC, host="::1"), None),
        ("grpc://models/my%20model%2Fb", replace(GRPC, name="my model/b"), None),
        ("http://models:8501/v1/models/m", REST, None),
        ("http://models:8501/v1/models/m:predict", REST, None),
        ("http://models/v1/models/m", replace(REST, port=80), None),
        ("https://models/v1/models/m", replace(REST, port=443, tls=True), None),
        ("https://models:8501/v1/models/m/versions/3", replace(REST, tls=True), 3),
        ("http://models:8501/v1/models/m/versions/3:predict", REST, 3),
        ("http://models:8501/v1/models/m/labels/stable", replace(REST, label="stable"), None),
        ("http://models:8501/team/a/v1/models/m", replace(REST, path="/team/a"), None),
    ],
)
def test_endpoints(uri: str, endpoint: Endpoint, version: int | None) -> None:
    assert parse_model_uri(uri) == ModelSpec(uri, version, endpoint)


def test_a_trailing_slash_says_nothing() -> None:
    assert parse_model_uri(" grpc://models/m/ ") == ModelSpec("grpc://models/m", None, GRPC)


@pytest.mark.parametrize(
    ("host", "address"), [("models", "models:8500"), ("10.0.0.1", "10.0.0.1:8500"), ("::1", "[::1]:8500")]
)
def test_addresses(host: str, address: str) -> None:
    assert replace(GRPC, host=host).address == address


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("grpc://", "is not of the form grpc://HOST:PORT/NAME"),
        ("grpc://models:8500", "is not of the form grpc://HOST:PORT/NAME; /versions/N or /labels/L may follow"),
        ("grpc:///m", "is not of the form"),
        ("grpc://models/m/1", "is not of the form"),
        ("grpc://models/m//versions/1", "is not of the form"),
        ("grpc://models/m/versions/1/x", "is not of the form"),
        ("grpc://me:secret@models/m", "is not of the form"),
        ("grpc://models/m?x=1", "is not of the form"),
        ("grpc://models/m#x", "is not of the form"),
        ("grpcs://models", "is not of the form grpcs://HOST:PORT/NAME"),
        ("grpc://models:port/m", "Port could not be cast.*; give grpc://HOST:PORT/NAME"),
        ("grpc://models:65536/m", "Port out of range.*; give grpc://HOST:PORT/NAME"),
        ("grpc://[::1/m", "; give grpc://HOST:PORT/NAME"),
        ("http://models:8501/m", "is not of the form http://HOST:PORT/v1/models/NAME"),
        ("http://models:8501/v1/models/", "is not of the form"),
        ("grpc://models/m/versions/x", "'versions/x' is neither /versions/NUMBER nor /labels/LABEL"),
        ("grpc://models/m/versions/-1", "'versions/-1' is neither"),
        ("grpc://models/m/versions/٣", "'versions/٣' is neither"),
        ("grpc://models/m/versions/9223372036854775808", "is neither"),
        ("http://models/v1/models/m/label/stable", "'label/stable' is neither"),
    ],
)
def test_endpoints_that_are_none(uri: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_model_uri(uri)


ENDPOINT = "projects/p-1/locations/europe-west4/endpoints/42"
VERTEX = Endpoint("vertex", "europe-west4-aiplatform.googleapis.com", 443, ENDPOINT, True, method="rawPredict")
MANAGED = ManagedModel("p", "us-central1", "9")


@pytest.mark.parametrize(
    ("uri", "endpoint"),
    [
        (f"vertex://{ENDPOINT}", VERTEX),
        (f"vertex://{ENDPOINT}?method=rawPredict", VERTEX),
        (f"vertex://{ENDPOINT}?method=predict", replace(VERTEX, method="predict")),
        (
            "vertex://projects/example.com:p/locations/global/endpoints/my-model",
            replace(VERTEX, host="aiplatform.googleapis.com",
                    name="projects/example.com:p/locations/global/endpoints/my-model"),
        ),
        (f"vertex://42.europe-west4-7.prediction.vertexai.goog/{ENDPOINT}",
         replace(VERTEX, host="42.europe-west4-7.prediction.vertexai.goog")),
        (f"vertex://10.0.0.1:8443/{ENDPOINT}", replace(VERTEX, host="10.0.0.1", port=8443)),
        (f"vertex://[::1]:8443/{ENDPOINT}?method=predict",
         replace(VERTEX, host="::1", port=8443, method="predict")),
        (f"vertex+http://proxy:8600/{ENDPOINT}", replace(VERTEX, host="proxy", port=8600, tls=False)),
    ],
)  # fmt: skip
def test_endpoints_of_vertex(uri: str, endpoint: Endpoint) -> None:
    spec = parse_model_uri(uri)
    assert spec == ModelSpec(uri, None, endpoint)
    assert not spec.is_here and spec.managed is None


@pytest.mark.parametrize(
    ("uri", "host", "port", "name", "version"),
    [
        (
            "vertex+http://42.aiplatform.googleapis.com/v1/models/77:predict",
            "42.aiplatform.googleapis.com",
            80,
            "77",
            77,
        ),
        ("vertex+http://127.0.0.1:8600/v1/models/77", "127.0.0.1", 8600, "77", 77),
        ("vertex+http://h/v1/models/named", "h", 80, "named", None),
    ],
)
def test_a_peering_endpoint_has_no_tls(uri: str, host: str, port: int, name: str, version: int | None) -> None:
    endpoint = Endpoint("vertex", host, port, name)
    assert parse_model_uri(uri) == ModelSpec(uri, version, endpoint)
    assert (endpoint.tls, endpoint.method) == (False, "")


@pytest.mark.parametrize(
    ("uri", "managed", "name"),
    [
        ("vertex://projects/p/locations/us-central1/models/9", MANAGED, "projects/p/locations/us-central1/models/9"),
        (
            "vertex://projects/p/locations/us-central1/models/9@3",
            replace(MANAGED, version="3"),
            "projects/p/locations/us-central1/models/9@3",
        ),
        (
            "vertex://projects/p/locations/us-central1/models/9@golden/",
            replace(MANAGED, version="golden"),
            "projects/p/locations/us-central1/models/9@golden",
        ),
    ],
)
def test_managed_models(uri: str, managed: ManagedModel, name: str) -> None:
    spec = parse_model_uri(uri)
    assert spec == ModelSpec(uri.rstrip("/"), managed=managed)
    assert (spec.endpoint, spec.is_here, managed.name) == (None, False, name)


@pytest.mark.parametrize(
    "uri",
    [
        "vertex://",
        "vertex://projects/p",
        "vertex://projects/p/locations/l/endpoints/",
        "vertex://projects/p/locations/l/endpoints/42/x",
        "vertex://projects/p/locations/l/endpoints/42@3",
        "vertex://projects/p/locations/l/endpoints/42?method=explain",
        "vertex://projects/p/locations/l/endpoints/42?x=1",
        "vertex://projects/p/locations/l/endpoints/42#x",
        "vertex://projects/p/locations/evil.example.com/endpoints/42",
        "vertex://projects/p/locations/l%2Fx/endpoints/42",
        "vertex://projects/p/locations/L/endpoints/42",
        "vertex://me:secret@h/projects/p/locations/l/endpoints/42",
        "vertex://h#x/projects/p/locations/l/endpoints/42",
        "vertex://h/projects/p/locations/l/models/9",
        "vertex://projects/p/locations/l/models/9@3?method=predict",
        "vertex://h/v1/models/77:predict",
        "vertex+http://projects/p/locations/l/endpoints/42",
        "vertex+http://projects/p/locations/l/models/9",
        "vertex+http:///v1/models/77",
        "vertex+http://h/v1/models/",
        "vertex+http://h/v1/models/77:explain",
    ],
)
def test_what_is_of_no_form_of_vertex(uri: str) -> None:
    with pytest.raises(UsageError, match=r"is not of a form of Vertex AI; give vertex://projects/P.*@VERSION") as error:
        parse_model_uri(uri)
    assert uri.rstrip("/") in str(error.value)


@pytest.mark.parametrize("port", ["port", "65536"])
def test_a_port_of_vertex_that_is_none(port: str) -> None:
    with pytest.raises(UsageError, match=r"[Pp]ort .*; give vertex://"):
        parse_model_uri(f"vertex://h:{port}/{ENDPOINT}")


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("http://127.0.0.1:8600", "127.0.0.1", 8600, False),
        ("https://example.com/", "example.com", 443, True),
        ("HTTP://h", "h", 80, False),
        ("http://[::1]:80", "::1", 80, False),
    ],
)
def test_base_urls(url: str, host: str, port: int, tls: bool) -> None:
    assert parse_base_url(url, "--vertex_endpoint") == Endpoint("vertex", host, port, "", tls)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8600", "ftp://h", "http://", "http://h/v1", "http://h?x", "http://u@h", "http://h:x"]
)
def test_base_urls_that_are_none(url: str) -> None:
    with pytest.raises(UsageError, match=r"--vertex_endpoint .*; give http://HOST:PORT or https://HOST:PORT"):
        parse_base_url(url, "--vertex_endpoint")
