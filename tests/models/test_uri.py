"""--model URIs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sluice.models.errors import UsageError
from sluice.models.uri import Endpoint, ModelSpec, parse_model_uri


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
