"""`sluice batch --failure_payload none` writes no value of a row to its failures or to standard error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sluice.models.protos import message_class
from sluice.models.tensors.tfrecord import write_records
from sluice.pipelines.cli import main
from tests.support.saved_models.by_hand import FLOAT, INT64, STRING, HandMade

SECRET = "Zq7Jane0Doe"


@pytest.fixture
def quoting(tmp_path: Path) -> str:
    """A model that quotes a row in its error: StringToNumber."""
    made = (
        HandMade()
        .node("age", "Placeholder", dtype=INT64, shape=[-1])
        .node("s", "Placeholder", dtype=STRING, shape=[-1])
    )
    made.node("y", "StringToNumber", "s", out_type=FLOAT).node("b", "Identity", "age", T=INT64)
    inputs = {"age": (INT64, "age:0", [-1]), "s": (STRING, "s:0", [-1])}
    return made.signature(inputs, {"y": (FLOAT, "y:0", [-1]), "b": (INT64, "b:0", [-1])}).write(tmp_path / "model")


def test_a_job_tells_nothing_of_its_rows(quoting: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [b"age,s", b"1,2", b'"' + SECRET.encode() + b'",2', b"1," + SECRET.encode(), SECRET.encode()]
    (tmp_path / "rows.csv").write_bytes(b"\n".join(rows) + b"\n")
    flags = [
        "--model",
        quoting,
        "--input",
        f"{tmp_path}/rows.csv",
        "--output",
        f"{tmp_path}/out.csv",
        "--max_failure_rate=1",
    ]
    assert main(["batch", "--progress=none", *flags, "--failure_payload=none"]) == 0
    written = "".join(file.read_text() for file in tmp_path.glob("out.failures-*"))
    failures = [json.loads(line) for line in written.splitlines()]
    assert sorted((failure["stage"], failure["payload"]) for failure in failures) == [
        ("decode", None),
        ("decode", None),
        ("predict", None),
    ]
    assert "column 'age': [withheld] is not int64" in written
    said = capfd.readouterr()
    assert SECRET not in written + said.out + said.err
    assert "1  decode InvalidRow: column 'age': \u2026 is not int64\n" in said.err
    assert "such as: column 'age': [withheld] is not int64" in said.err


def test_a_warm_up_that_fails_tells_nothing_of_its_requests(
    quoting: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = message_class("tensorflow.serving.PredictionLog")()
    for name, dtype in (("age", INT64), ("s", STRING)):
        tensor = log.predict_log.request.inputs[name]
        tensor.dtype = dtype
        tensor.tensor_shape.dim.add(size=1)
    log.predict_log.request.inputs["age"].int64_val.append(1)
    log.predict_log.request.inputs["s"].string_val.append(SECRET.encode())
    (Path(quoting) / "assets.extra").mkdir()
    with open(Path(quoting) / "assets.extra/tf_serving_warmup_requests", "wb") as file:
        write_records(file, [log.SerializeToString()])
    (tmp_path / "rows.csv").write_text("age,s\n1,2\n")
    flags = ["--model", quoting, "--input", f"{tmp_path}/rows.csv", "--output", f"{tmp_path}/out.csv", "--overwrite"]
    for mode, told in (("none", False), ("full", True)):
        assert main(["batch", *flags, f"--failure_payload={mode}", "--progress=none"]) == 0
        assert "stopped after 0 requests: " in caplog.text
        assert (SECRET in caplog.text) == told


def test_a_refused_launch_tells_nothing_of_the_rows(
    quoting: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.csv").write_text("age,s\n" + f"{SECRET},1\n" * 30)
    flags = ["--model", quoting, "--input", f"{tmp_path}/rows.csv", "--output", f"{tmp_path}/out.csv"]
    assert main(["batch", "--progress=none", *flags, "--failure_payload=hash"]) == 2
    said = capfd.readouterr()
    assert "The first: column 'age': [withheld] is not int64" in said.err
    assert SECRET not in said.out + said.err
    assert main(["batch", "--progress=none", *flags]) == 2
    assert SECRET in capfd.readouterr().err
