"""The benchmark's contenders do the same work, and the README quotes what the benchmark wrote."""

import csv
import glob
from pathlib import Path

import numpy as np
import pytest

from benchmarks.contenders import CONTENDERS, count_rows
from models.protos import message_class
from models.tfrecord import read_records
from tests.zoo_models import ZooSample

ROOT = Path(__file__).parent.parent


def scores(prefix: str) -> list[float]:
    found = []
    for path in sorted(glob.glob(f"{prefix}*")):
        if path.endswith(".csv"):
            with open(path, newline="", encoding="utf-8") as file:
                found += [float(row["score"]) for row in csv.DictReader(file)]
        else:
            with open(path, "rb") as records:
                found += [_score(record) for _, record in read_records(records)]
    return found


def _score(record: bytes) -> float:
    example = message_class("tensorflow.Example").FromString(record)
    return float(example.features.feature["score"].float_list.value[0])


# tfx_bsl gives PredictionLogs, and takes seconds for a few rows: it is left to the benchmark itself.
PAIRS = [(format_, name) for format_, each in CONTENDERS.items() for name in each if not name.startswith("tfx_bsl")]


@pytest.mark.parametrize("format_,name", PAIRS, ids=lambda text: text.replace(" ", "_"))
def test_contenders_write_the_same_scores(format_: str, name: str, criteo: ZooSample, tmp_path: Path) -> None:
    prefix = str(tmp_path / "out")
    CONTENDERS[format_][name](criteo.path(format_), criteo.model, prefix)
    assert count_rows(prefix) == criteo.rows
    np.testing.assert_allclose(sorted(scores(prefix)), sorted(criteo.expected()["score"]), rtol=1e-5)


@pytest.mark.parametrize(
    "results,page", [("RESULTS.md", "README.md"), ("SERVING.md", "docs/serving.md")], ids=["batch", "serving"]
)
def test_the_docs_quote_the_benchmark(results: str, page: str) -> None:
    written = (ROOT / "benchmarks" / results).read_text()
    quoted = (ROOT / page).read_text()
    rows = [line for line in written.splitlines() if line.startswith("| ") and "rows/s" not in line]
    assert len(rows) >= 8
    assert [row for row in rows if row not in quoted] == []
