"""--model URIs."""

from __future__ import annotations

import pytest

from models.errors import UsageError
from models.uri import ModelSpec, parse_model_uri


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
