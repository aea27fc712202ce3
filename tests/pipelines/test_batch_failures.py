"""`sluice batch` where something is wrong: rows, files, the model, the job."""

import base64
import glob
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sluice.pipelines.cli import main
from sluice.transforms.encode.csv import CsvEncoder
from tests.support.docs import fence, paste
from tests.support.processes import Forked
from tests.support.saved_models.zoo import ZooSample, read_output


def batch(*flags: str) -> int:
    return main(["batch", "--progress=none", *flags])


def failures_of(output: Path) -> list[dict[str, Any]]:
    files = sorted(glob.glob(f"{output.with_suffix('')}.failures-*.jsonl"))
    return [json.loads(line) for file in files for line in Path(file).read_text().splitlines()]


def payload_of(failure: dict[str, Any]) -> bytes:
    text: str | None = failure["payload_text"]
    return base64.b64decode(failure["payload"]) if text is None else text.encode()


def written(output: Path) -> list[dict[str, Any]]:
    return [
        row for file in sorted(glob.glob(f"{output.with_suffix('')}-*{output.suffix}")) for row in read_output(file)
    ]


@pytest.fixture
def bad_csv(criteo: ZooSample, tmp_path: Path) -> tuple[Path, dict[int, bytes]]:
    """The sample with ten bad rows among its 700: the file, and the bad lines by their row."""
    lines = Path(criteo.path("csv")).read_bytes().splitlines()
    bad = {
        5: b"only,three,fields",
        50: lines[51].replace(lines[51].split(b",")[1], b"twelve", 1),
        51: lines[52] + b",one,more",
        120: b",".join([*lines[121].split(b",")[:3], b"99999999999999999999", *lines[121].split(b",")[4:]]),
        333: b",".join([*lines[334].split(b",")[:14], b"\xff\xfe", *lines[334].split(b",")[15:]]),
        699: b",".join([lines[700].split(b",")[0], b"", *lines[700].split(b",")[2:]]),
    }
    for row, line in bad.items():
        lines[row + 1] = line
    path = tmp_path / "bad.csv"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path, bad


def test_a_bad_row_costs_one_row(
    criteo: ZooSample, bad_csv: tuple[Path, dict[int, bytes]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, bad = bad_csv
    output, summary = tmp_path / "out.csv", tmp_path / "summary.json"
    flags = ["--summary_file", str(summary), "--model", criteo.model]
    assert batch(*flags, "--input", str(path), "--output", str(output)) == 0
    found = json.loads(summary.read_text())
    assert found["rows_in"] == 700 == found["predictions"] + found["failures"]
    assert found["failures_by_stage"] == {"bind": {"InvalidRow": 1}, "decode": {"InvalidRow": 5}}
    failures = failures_of(output)
    assert sorted(payload_of(failure) for failure in failures) == sorted(bad.values())
    data = path.read_bytes()
    for failure in failures:
        name, _, offset = failure["origin"].partition("#byte=")
        assert name == str(path)
        assert data[int(offset) :].startswith(payload_of(failure)), "the origin is where the row begins"
        assert (failure["model"], failure["version"]) == (criteo.model, 1), "whatever the stage"
    rows = written(output)
    expected = np.delete(np.array(criteo.expected()["score"]), list(bad))
    np.testing.assert_allclose([float(row["score"]) for row in rows], expected, rtol=1e-6)
    assert [reason["count"] for reason in found["reasons"]] == [2, 1, 1]
    assert found["reasons"][0]["reason"] == "expected \u2026 fields, found \u2026"
    said = capsys.readouterr().err
    assert "  2  decode InvalidRow: expected \u2026 fields, found \u2026\n" in said
    (command,) = [line for line in said.splitlines() if line.startswith("All reasons: ")]
    paste(f"{command.removeprefix('All reasons: ')} --json")
    shown = json.loads(capsys.readouterr().out)
    assert shown["failures"] == 6 == sum(reason["count"] for reason in shown["reasons"])
    assert [reason["reason"] for reason in shown["reasons"][:3]] == [each["reason"] for each in found["reasons"]]


def test_defaults_stand_for_nulls(criteo: ZooSample, bad_csv: tuple[Path, dict[int, bytes]], tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    flags = ["--column_defaults=I1=3", "--model", criteo.model]
    assert batch(*flags, "--input", str(bad_csv[0]), "--output", str(output)) == 0
    assert len(failures_of(output)) == 5 and len(written(output)) == 695


def test_too_many_failures_is_exit_3_with_failures_but_no_predictions(
    criteo: ZooSample, bad_csv: tuple[Path, dict[int, bytes]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.csv"
    flags = ["--max_failure_rate=0.005", "--model", criteo.model]
    assert batch(*flags, "--input", str(bad_csv[0]), "--output", str(output)) == 3
    said = capsys.readouterr().err
    assert "6 of 700 rows failed (0.9%), more than --max_failure_rate 0.005" in said
    assert "Why rows failed, the 3 most frequent reasons:\n" in said
    assert len(failures_of(output)) == 6
    assert written(output) == []
    assert [name for name in os.listdir(tmp_path) if name.startswith(".sluice")] == []


def test_output_that_exists_is_kept_or_replaced_as_a_whole(
    criteo: ZooSample, bad_csv: tuple[Path, dict[int, bytes]], tmp_path: Path
) -> None:
    output = tmp_path / "out.csv"
    command = ["--model", criteo.model, "--output", str(output)]
    stale = [tmp_path / f"out-0000{part}-of-00003.csv" for part in range(3)]
    for path in stale:
        path.write_text("an earlier run\n")
    (tmp_path / "out.failures-00000-of-00001.jsonl").write_text("{}\n")
    bystander = tmp_path / "out-of-order.csv"
    bystander.write_text("not ours\n")
    assert batch(*command, "--input", criteo.path("csv")) == 2
    assert stale[0].read_text() == "an earlier run\n"
    too_many = ["--overwrite", "--max_failure_rate=0", "--input", str(bad_csv[0])]
    assert batch(*command, *too_many) == 3
    assert stale[0].read_text() == "an earlier run\n", "a job that fails leaves the predictions of the one before"
    assert batch(*command, "--overwrite", "--input", criteo.path("csv")) == 0
    assert not any(path.exists() for path in stale)
    assert failures_of(output) == []
    assert bystander.read_text() == "not ours\n"


def test_input_that_is_gone_when_the_job_runs_fails_it(
    criteo: ZooSample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sluice.pipelines.batch import _run
    from sluice.pipelines.dataflow.runner import beam_options
    from sluice.pipelines.options.batch import BatchOptions
    from sluice.pipelines.plan.batch_job import plan_batch
    from sluice.pipelines.progress.phases import Phases

    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(Path(criteo.path("csv")).read_bytes())
    stale = tmp_path / "out-00000-of-00001.csv"
    stale.write_text("an earlier run\n")
    options = BatchOptions(input=str(source), model=criteo.model, output=str(output), overwrite=True, progress="none")
    plan = plan_batch(options)
    source.unlink()
    assert _run(options, plan, beam_options([]), Phases()) == 1
    assert "no file matches" in capsys.readouterr().err
    assert stale.read_text() == "an earlier run\n"


def test_rows_that_make_the_model_raise_are_found(cases: Callable[[str], str], tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    values = np.arange(5000, dtype=float)
    values[[17, 18, 3333]] = -1
    source.write_text("".join(f'{{"x": {value}, "n": {n}}}\n' for n, value in enumerate(values)))
    assert batch("--model", cases("picky"), "--input", str(source), "--output", str(output)) == 0
    failures = failures_of(output)
    assert [json.loads(payload_of(failure))["n"] for failure in failures] == [17, 18, 3333]
    assert {failure["stage"] for failure in failures} == {"predict"}
    assert {failure["error_type"] for failure in failures} == {"BadInput"}
    assert [row["n"] for row in written(output)] == [n for n in range(5000) if n not in (17, 18, 3333)]


def test_rows_are_exported_mended_and_scored_as_the_docs_say(
    cases: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_text("n,x\n" + "".join(f"{n},{-n if n in (7, 8) else n}\n" for n in range(100)))
    model = cases("picky")
    assert batch("--model", model, "--input", "data.csv", "--output", "out/predictions.csv") == 0
    export, head, score = fence("docs/batch.md", "--export_rows rows.csv").replace("path/to/model", model).splitlines()
    paste(export)
    assert Path("rows.csv").read_text() == "7,-7\n8,-8\n"
    paste(head)
    Path("mended.csv").write_text(Path("mended.csv").read_text().replace("-", ""))
    paste(score)
    assert [row["x"] for row in written(tmp_path / "out" / "mended.csv")] == ["7", "8"]


def test_a_model_that_raises_for_every_row_fails_the_job_not_isolated(
    cases: Callable[[str], str], tmp_path: Path
) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"x": -1}\n' * 3000)
    assert batch("--model", cases("picky"), "--input", str(source), "--output", str(output)) == 3
    failures = failures_of(output)
    assert len(failures) == 3000
    assert any("not isolated" in failure["error_message"] for failure in failures)
    assert written(output) == []


def test_a_model_that_cannot_be_loaded_fails_the_job_and_that_is_said_once(
    criteo: ZooSample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, output = tmp_path / "model", tmp_path / "out.csv"
    shutil.copytree(criteo.model, model)
    (variables,) = model.glob("1/variables/variables.data-*")
    variables.write_bytes(b"")  # the launch sees that it is there
    assert batch("--model", str(model), "--input", criteo.path("csv"), "--output", str(output)) == 1
    printed = capsys.readouterr().err
    assert printed.count("TensorFlow cannot load the SavedModel") == 1
    assert "Traceback" not in printed and written(output) == []


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet", "avro", "tfrecord"])
def test_a_truncated_file_fails_as_a_file_and_keeps_what_was_read(
    format_: str, criteo: ZooSample, tmp_path: Path
) -> None:
    whole = Path(criteo.path(format_)).read_bytes()
    cut, good = tmp_path / f"b-cut.{format_}", tmp_path / f"a-good.{format_}"
    cut.write_bytes(whole[: len(whole) - len(whole) // 10])
    good.write_bytes(whole)
    output = tmp_path / f"out.{format_}"
    assert batch("--model", criteo.model, "--input", str(tmp_path / f"*-*.{format_}"), "--output", str(output)) == 0
    failures, rows = failures_of(output), written(output)
    assert len(failures) == 1 and str(cut) in failures[0]["origin"]
    assert len(rows) >= 700
    if format_ in ("parquet", "avro", "tfrecord"):
        assert failures[0]["stage"] == "read"
    if format_ in ("csv", "jsonl", "tfrecord"):
        assert len(rows) > 1300, "the rows before the cut are kept"


def test_a_json_row_that_has_an_output_s_name_fails(criteo: ZooSample, tmp_path: Path) -> None:
    lines = Path(criteo.path("jsonl")).read_text().splitlines()
    lines[300] = lines[300][:-1] + ', "score": 0.5}'
    lines[301] = lines[301][:-1] + ', "note": "the \\"score\\" is a word here"}'
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(lines))
    assert batch("--model", criteo.model, "--input", str(source), "--output", str(output)) == 0
    (failure,) = failures_of(output)
    assert payload_of(failure).decode() == lines[300] and "--output_prefix" in failure["error_message"]
    assert len(written(output)) == 699


@pytest.mark.parametrize("mode,shown", [("hash", "sha256:"), ("none", None)])
def test_payloads_can_be_hidden(
    mode: str, shown: str | None, criteo: ZooSample, bad_csv: tuple[Path, dict[int, bytes]], tmp_path: Path
) -> None:
    output = tmp_path / "out.csv"
    flags = ["--failure_payload", mode, "--failures", str(tmp_path / "bad.jsonl"), "--model", criteo.model]
    assert batch(*flags, "--input", str(bad_csv[0]), "--output", str(output)) == 0
    files = tmp_path.glob("bad-*-of-*.jsonl")
    lines = [line for file in files for line in file.read_text().splitlines()]
    payloads = [json.loads(line)["payload"] for line in lines]
    assert len(payloads) == 6
    assert all(payload is None if shown is None else payload.startswith(shown) for payload in payloads)


def test_open_quotes_fail_every_row_and_name_the_flag(cases: Callable[[str], str], tmp_path: Path) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text('x,note\n1,"two\nlines"\n2,plain\n')
    command = ["--model", cases("picky"), "--input", str(source), "--output", str(output)]
    assert batch(*command) == 3
    failures = failures_of(output)
    assert len(failures) == 3 and all("--allow_quoted_newlines" in f["error_message"] for f in failures)
    assert batch(*command, "--allow_quoted_newlines", "--overwrite") == 0
    assert [(row["x"], row["note"]) for row in written(output)] == [("1", "two\nlines"), ("2", "plain")]


def run_until_a_batch_is_written(arguments: list[str]) -> int:
    """Runs a job in a process that is killed once it has written a batch."""
    write = CsvEncoder.write

    def write_and_die(self: CsvEncoder, batch: pa.RecordBatch) -> None:
        write(self, batch)
        os.kill(os.getpid(), signal.SIGKILL)

    CsvEncoder.write = write_and_die  # type: ignore[method-assign]
    return main(arguments)


def test_a_job_that_is_killed_leaves_nothing_that_looks_finished(criteo: ZooSample, tmp_path: Path) -> None:
    output = tmp_path / "out" / "pred.csv"
    command = ["batch", "--model", criteo.model, "--input", criteo.path("csv"), "--output", str(output)]
    assert Forked(run_until_a_batch_is_written, command).wait() == -signal.SIGKILL
    assert glob.glob(f"{output.parent}/*") == [], "only hidden files are left"
    assert main([*command, "--progress=none"]) == 0, "and the next run is not refused"
    assert len(written(output)) == 700
