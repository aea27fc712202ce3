"""Input files of jobs -> instances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.cloud.aiplatform_v1 import types

from sluice.models.server.vertex.files import LocalJobFiles
from sluice.models.server.vertex.instances import Instance, Reader

ROW = {"a": 1, "b": [2.5], "c": "x"}


def read(tmp_path: Path, form: str, text: str, **config: Any) -> list[Instance]:
    (tmp_path / "in").write_text(text)
    made = types.BatchPredictionJob.InstanceConfig(**config)
    return list(Reader(LocalJobFiles(), form, made, strict=True).read(f"{tmp_path}/in"))


@pytest.mark.parametrize(
    ("config", "sent", "shown"),
    [
        ({}, ROW, {"instance": ROW}),
        ({"key_field": "c"}, {"a": 1, "b": [2.5]}, {"key": "x"}),
        ({"included_fields": ["b", "a"]}, {"b": [2.5], "a": 1}, {"instance": ROW}),
        ({"excluded_fields": ["a"], "key_field": "c"}, {"b": [2.5]}, {"key": "x"}),
        ({"included_fields": ["b", "a"], "instance_type": "array"}, [[2.5], 1], {"instance": ROW}),
        ({"instance_type": "object"}, ROW, {"instance": ROW}),
    ],
)
def test_json_lines(config: dict[str, Any], sent: Any, shown: Any, tmp_path: Path) -> None:
    (found,) = read(tmp_path, "jsonl", '{"a": 1, "b": [2.5], "c": "x"}\n', **config)
    assert (found.sent, found.shown, found.error) == (sent, shown, "")


@pytest.mark.parametrize(
    ("text", "config"),
    [("[1]", {"key_field": "c"}), ("{}", {"key_field": "c"}), ("{}", {"included_fields": ["a"]}), ('{"a": ', {})],
)
def test_lines_that_are_no_instances(text: str, config: dict[str, Any], tmp_path: Path) -> None:
    (found,) = read(tmp_path, "jsonl", text, **config)
    assert found.error


def test_rows_of_csv_are_arrays(tmp_path: Path) -> None:
    text = 'a,key,b\n1,k,"x,y"\n2.5,1_0,nan\n1,2\n'
    first, second, third = read(tmp_path, "csv", text)
    assert (first.sent, first.columns()) == ([1, "k", "x,y"], {"a": 1, "key": "k", "b": "x,y"})
    assert second.sent == [2.5, "1_0", "nan"], "only what is a number in JSON is one"
    assert third.error
    first, second, _ = read(tmp_path, "csv", text, key_field="key")
    assert (first.sent, first.shown, first.columns()) == ([1, "x,y"], {"key": "k"}, {"key": "k"})
