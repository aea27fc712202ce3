"""`sluice batch` on SavedModels of every kind that people have: none of them is from our zoo."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.cli import main
from tests.saved_models import CASES, ModelCase
from tests.zoo_models import plain

# Outputs that cannot be a column, which the launch check refuses by name.
_LEFT_OUT = {"scalar_output": "p_threshold", "ragged_output": "p_letters"}


def to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return [to_json(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_json_in_parquet_out(case: ModelCase, cases: Callable[[str], str], tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.parquet"
    rows = [{name: to_json(value) for name, value in row.items()} for row in case.rows]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--signature", case.signature, "--output_prefix=p_", "--progress=none", "--model", cases(case.name)]
    if case.name in _LEFT_OUT:
        assert main(["batch", *flags, "--input", str(source), "--output", str(output)]) == 2
        flags.append(f"--exclude_columns={_LEFT_OUT[case.name]}")
    assert main(["batch", *flags, "--input", str(source), "--output", str(output)]) == 0
    found = pq.read_table(tmp_path / "out-00000-of-00001.parquet").to_pylist()
    assert len(found) == len(rows)
    for name, wanted in case.expected(case.rows).items():
        if f"p_{name}" != _LEFT_OUT.get(case.name):
            for row, value in zip(found, wanted, strict=True):
                assert_same(plain(row[f"p_{name}"]), plain(value), f"{case.name}: {name}")


def assert_same(found: Any, wanted: Any, what: str) -> None:
    if isinstance(wanted, list):
        assert isinstance(found, list) and len(found) == len(wanted), what
        for one, other in zip(found, wanted, strict=True):
            assert_same(plain(one), plain(other), what)
    elif isinstance(wanted, float | np.floating):
        assert found == pytest.approx(float(wanted), rel=1e-2 if "dtypes" in what else 1e-5, abs=1e-6), what
    else:
        assert found == wanted, what
