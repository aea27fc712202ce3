"""`sluice batch` on SavedModels of every kind that people have: none of them is from our zoo."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from sluice.pipelines.cli import main
from tests.support.saved_models.cases import CASES, ModelCase
from tests.support.saved_models.zoo import plain
from tests.support.serving.backends import NOT_OVER_REST, SAVED_MODEL, SERVED, Uris, is_refused, tells_features

# Outputs that cannot be a column, which the launch check refuses by name; of a server, all that is not dense.
_LEFT_OUT = {"scalar_output": ["threshold"], "ragged_output": ["letters"]}
_LEFT_OUT_SERVED = {
    "scalar_output": ["threshold"],
    "ragged_output": ["letters", "spans", "words"],
    "sparse_output": ["words"],
}
# BigQuery's names for what a feature of a tf.Example holds.
_FIELD_TYPES = {"int64": "INTEGER", "float": "FLOAT", "bytes": "BYTES"}


def to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return [to_json(each) for each in value] if isinstance(value, list) else value


def jobs() -> Iterator[tuple[ModelCase, str]]:
    """Every model here and at one server; at all servers where the job depends on what serves the model."""
    for number, case in enumerate(CASES):
        yield case, SAVED_MODEL
        depends = case.example_spec is not None or case.name in {*_LEFT_OUT_SERVED, *NOT_OVER_REST}
        yield from ((case, backend) for backend in (SERVED if depends else [SERVED[number % len(SERVED)]]))


@pytest.mark.parametrize(("case", "backend"), list(jobs()), ids=lambda each: getattr(each, "name", each))
def test_json_in_parquet_out(case: ModelCase, backend: str, uris: Uris, tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.parquet"
    rows = [{name: to_json(value) for name, value in row.items()} for row in case.rows]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    uri = uris(backend, case.name)
    flags = ["--signature", case.signature, "--output_prefix=p_", "--progress=none", "--model", uri]
    if case.example_spec is not None and not tells_features(backend):
        assert main(["batch", *flags, "--input", str(source), "--output", str(output)]) == 2
        flags.append(f"--input_schema={write_schema(tmp_path, case.example_spec)}")
    left_out = (_LEFT_OUT if backend == SAVED_MODEL else _LEFT_OUT_SERVED).get(case.name, [])
    if left_out:
        assert main(["batch", *flags, "--input", str(source), "--output", str(output)]) == 2
        flags.append("--exclude_columns=" + ",".join(f"p_{name}" for name in left_out))
    if is_refused(case.name, backend):
        assert main(["batch", *flags, "--input", str(source), "--output", str(output)]) == 2
        return
    assert main(["batch", *flags, "--input", str(source), "--output", str(output)]) == 0
    found = pq.read_table(tmp_path / "out-00000-of-00001.parquet").to_pylist()
    assert len(found) == len(rows)
    for name, wanted in case.expected(case.rows).items():
        if name not in left_out:
            for row, value in zip(found, wanted, strict=True):
                assert_same(plain(row[f"p_{name}"]), plain(value), f"{case.name}: {name}")


def write_schema(directory: Path, features: dict[str, str]) -> Path:
    path = directory / "schema.json"
    path.write_text(json.dumps([{"name": n, "type": _FIELD_TYPES[k], "mode": "REPEATED"} for n, k in features.items()]))
    return path


def assert_same(found: Any, wanted: Any, what: str) -> None:
    if isinstance(wanted, list):
        assert isinstance(found, list) and len(found) == len(wanted), what
        for one, other in zip(found, wanted, strict=True):
            assert_same(plain(one), plain(other), what)
    elif isinstance(wanted, float | np.floating):
        assert found == pytest.approx(float(wanted), rel=1e-2 if "dtypes" in what else 1e-5, abs=1e-6), what
    else:
        assert found == wanted, what
