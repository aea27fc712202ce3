"""`sluice batch` end to end: every model of the zoo in every format, and the shapes that files come in."""

import glob
import gzip
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sluice.models.cache import clear_cache
from sluice.pipelines.cli import main
from sluice.pipelines.options.config import config_text
from tests.support.saved_models.zoo import FORMATS, ZooSample, plain, read_output
from tests.support.serving.backends import BACKENDS, SAVED_MODEL, Uris


def batch(*flags: str) -> int:
    return main(["batch", "--progress=none", *flags])


def output_of(path: Path) -> str:
    """The one file of an --output that ends in an extension."""
    return str(path.parent / f"{path.stem}-00000-of-00001{path.suffix}")


def assert_predictions(rows: list[dict], sample: ZooSample, tolerance: float) -> None:
    """Checks every output of every row, and that the rows came through whole and in order."""
    assert [plain(row["id"]) for row in rows] == [f"{number:07d}" for number in range(sample.rows)]
    for name, values in sample.expected().items():
        found = [plain(row[name]) for row in rows]
        if isinstance(found[0], str) and not isinstance(plain(values[0]), str):  # CSV holds text
            found = [json.loads(value) for value in found]
        if isinstance(plain(values[0]), str):
            assert found == [plain(value) for value in values]
        else:
            wanted = np.array([plain(value) for value in values], np.float64)
            np.testing.assert_allclose(np.array(found, np.float64), wanted, rtol=tolerance, atol=tolerance)


# Every model in every format, and each of both with every backend.
_MODELS = ["criteo", "natality", "census", "mnist"]
_PAIRS = [
    (name, format_, BACKENDS[(row + column) % len(BACKENDS)])
    for row, name in enumerate(_MODELS)
    for column, format_ in enumerate(FORMATS)
]


@pytest.mark.parametrize(("name", "format_", "backend"), _PAIRS)
def test_predictions_are_those_of_the_model_called_directly(
    name: str, format_: str, backend: str, zoo_samples: dict[str, ZooSample], zoo_uris: Uris, tmp_path: Path
) -> None:
    sample = zoo_samples[name]
    output = tmp_path / f"out.{format_}"
    flags = ["--model", zoo_uris(backend, name), *(["--flatten"] if format_ == "csv" else [])]
    assert batch("--input", sample.path(format_), "--output", str(output), *flags) == 0
    assert_predictions(read_output(output_of(output)), sample, 1e-6)


def test_predictions_of_one_call_are_equal_bit_for_bit(criteo: ZooSample, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    assert batch("--model", criteo.model, "--input", criteo.path("parquet"), "--output", str(output)) == 0
    found = np.array([row["score"] for row in read_output(output_of(output))], np.float32)
    assert found.tobytes() == np.array(criteo.expected()["score"], np.float32).tobytes()


_FLAT = list(itertools.permutations(("csv", "parquet", "avro"), 2))
_TO_ROWS = [("csv", "jsonl"), ("parquet", "tfrecord"), ("avro", "jsonl")]


@pytest.mark.parametrize("source,target", [*_FLAT, *_TO_ROWS])
def test_any_columnar_format_goes_into_any_other(source: str, target: str, criteo: ZooSample, tmp_path: Path) -> None:
    output = tmp_path / f"out.{target}"
    assert batch("--model", criteo.model, "--input", criteo.path(source), "--output", str(output)) == 0
    assert_predictions(read_output(output_of(output)), criteo, 1e-6)


@pytest.mark.parametrize("source", ["jsonl", "tfrecord"])
def test_row_formats_go_into_others_with_a_schema(source: str, criteo: ZooSample, tmp_path: Path) -> None:
    output, schema = tmp_path / "out.csv", tmp_path / "schema.json"
    command = ["--model", criteo.model, "--input", criteo.path(source), "--output", str(output)]
    assert batch(*command) == 2  # the types of id and label are not known
    schema.write_text('[{"name": "id", "type": "STRING"}, {"name": "label", "type": "INTEGER"}]')
    assert batch(*command, "--input_schema", str(schema)) == 0
    assert_predictions(read_output(output_of(output)), criteo, 1e-6)


@pytest.mark.parametrize("format_", ["csv", "jsonl", "tfrecord"])
def test_gzip_in_and_out(format_: str, criteo: ZooSample, tmp_path: Path) -> None:
    packed = tmp_path / f"in.{format_}.gz"
    packed.write_bytes(gzip.compress(Path(criteo.path(format_)).read_bytes()))
    output = tmp_path / f"out.{format_}.gz"
    assert batch("--model", criteo.model, "--input", str(packed), "--output", str(output)) == 0
    written = tmp_path / f"out-00000-of-00001.{format_}.gz"
    plain_file = tmp_path / f"plain.{format_}"
    plain_file.write_bytes(gzip.decompress(written.read_bytes()))
    assert_predictions(read_output(str(plain_file)), criteo, 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_and_files_around_the_batch_size(backend: str, criteo: ZooSample, zoo_uris: Uris, tmp_path: Path) -> None:
    lines = Path(criteo.path("csv")).read_bytes().splitlines(keepends=True)
    expected = criteo.expected()["score"]
    for rows in (1, 63, 64, 65, 128, 700) if backend == SAVED_MODEL else (64, 65):
        source, output = tmp_path / f"{rows}.csv", tmp_path / f"out{rows}.csv"
        source.write_bytes(b"".join(lines[: rows + 1]).rstrip(b"\n"))
        flags = ["--max_batch_size=64", "--model", zoo_uris(backend, "criteo")]
        assert batch(*flags, "--input", str(source), "--output", str(output)) == 0
        scores = [float(row["score"]) for row in read_output(output_of(output))]
        np.testing.assert_allclose(scores, expected[:rows], rtol=1e-6)


@pytest.mark.parametrize("text", ["", "header", "header\n"])
def test_nothing_to_read_is_an_empty_output(text: str, criteo: ZooSample, tmp_path: Path) -> None:
    source, output, summary = tmp_path / "in.csv", tmp_path / "out.csv", tmp_path / "summary.json"
    header = Path(criteo.path("csv")).read_text().splitlines()[0]
    source.write_text(text.replace("header", header))
    flags = ["--summary_file", str(summary), "--model", criteo.model]
    clear_cache()  # so that this job loads the model
    assert batch(*flags, "--input", str(source), "--output", str(output)) == 0
    assert read_output(output_of(output)) == []
    assert json.loads(summary.read_text())["rows_in"] == 0


def test_globs_read_every_file_and_files_are_spread_over_workers(criteo: ZooSample, tmp_path: Path) -> None:
    lines = Path(criteo.path("csv")).read_bytes().splitlines(keepends=True)
    for part in range(4):
        rows = lines[1 + 175 * part : 1 + 175 * (part + 1)]
        (tmp_path / f"part-{part}.csv").write_bytes(b"".join([lines[0], *rows]))
    output = tmp_path / "out.jsonl"
    flags = ["--direct_num_workers=2", "--direct_running_mode=multi_threading", "--model", criteo.model]
    assert batch(*flags, "--input", str(tmp_path / "part-*.csv"), "--output", str(output)) == 0
    files = sorted(glob.glob(str(tmp_path / "out-*")))
    assert len(files) == 2, "two workers write two shards"
    assert [name[-15:] for name in files] == ["0000-of-00002.jsonl"[-15:], "0001-of-00002.jsonl"[-15:]]
    rows = sorted((row for file in files for row in read_output(file)), key=lambda row: row["id"])
    np.testing.assert_allclose([row["score"] for row in rows], criteo.expected()["score"], rtol=1e-6)


def test_csv_lines_are_carried_as_they_are(cases, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = cases("tf1_predict")
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    inputs = "x,y" if _takes(model, ("x", "y")) else ",".join(_inputs(model))
    source.write_text(f'zip,{inputs},note\r\n00501,1.50,2,"a, ""b"""\r\n00502,  3,4e0,\r\n')
    assert batch("--model", model, "--signature", "predict", "--input", str(source), "--output", str(output)) == 0
    lines = Path(output_of(output)).read_text().splitlines()
    assert lines[1].startswith('00501,1.50,2,"a, ""b""",')
    assert lines[2].startswith("00502,  3,4e0,,")


def _inputs(model: str) -> list[str]:
    from sluice.models.files import LocalFiles
    from sluice.models.saved_model.signature_reader import read_signatures
    from sluice.models.saved_model.versions import read_meta_graph

    signature = read_signatures(read_meta_graph(model, LocalFiles()))["predict"]
    return [spec.name for spec in signature.inputs]


def _takes(model: str, names: tuple[str, ...]) -> bool:
    return tuple(_inputs(model)) == names


def test_columns_outputs_and_model_columns_are_chosen(zoo_samples: dict[str, ZooSample], tmp_path: Path) -> None:
    sample = zoo_samples["census"]
    output = tmp_path / "out.jsonl"
    flags = ["--columns=id", "--exclude_columns=p_probabilities", "--output_prefix=p_", "--add_model_columns"]
    assert batch(*flags, "--model", sample.model, "--input", sample.path("csv"), "--output", str(output)) == 0
    rows = read_output(output_of(output))
    assert set(rows[0]) == {"id", "p_class_id", "p_classes", "_model", "_version"}
    assert (rows[0]["_model"], rows[0]["_version"]) == (sample.model, 1)


def test_examples_go_straight_to_a_model_that_parses_them(criteo: ZooSample, tmp_path: Path) -> None:
    for source in ("tfrecord", "csv", "parquet"):
        output = tmp_path / f"out.{source}"
        flags = ["--signature=serving_examples", "--model", criteo.model]
        assert batch(*flags, "--input", criteo.path(source), "--output", str(output)) == 0
        assert_predictions(read_output(output_of(output)), criteo, 1e-6)


def test_a_newer_version_is_used_and_an_incomplete_one_ignored(criteo: ZooSample, tmp_path: Path) -> None:
    base = tmp_path / "model"
    shutil.copytree(f"{criteo.model}/1", base / "3")
    shutil.copytree(f"{criteo.model}/1", base / "7")
    next((base / "7" / "variables").glob("variables.data-*")).unlink()
    output = tmp_path / "out.jsonl"
    flags = ["--add_model_columns", "--model", str(base)]
    assert batch(*flags, "--input", criteo.path("jsonl"), "--output", str(output)) == 0
    assert {row["_version"] for row in read_output(output_of(output))} == {3}


def test_the_summary_file_and_what_is_printed(
    criteo: ZooSample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, summary = tmp_path / "out.csv", tmp_path / "summary.json"
    job = tmp_path / "job.yaml"
    flags = {"model": criteo.model, "input": [criteo.path("csv")], "summary_file": str(summary), "job_name": "nightly"}
    job.write_text(config_text(flags | {"output": "replaced"}))
    clear_cache()  # so that this job loads the model
    assert batch("--config", str(job), "--output", str(output)) == 0
    found = json.loads(summary.read_text())
    assert (found["rows_in"], found["predictions"], found["failures"]) == (700, 700, 0)
    assert found["output_files"] == [output_of(output)]
    assert found["rows_per_second"] > 0
    assert (found["options"]["output"], found["options"]["max_failure_rate"]) == (str(output), 0.1)
    assert found["beam_options"]["job_name"] == "nightly"
    assert list(found["phases"]) == ["imports", "plan", "model_load", "run", "commit"]
    assert all(secs is not None for secs in found["phases"].values())
    assert found["phases"]["run"] == found["seconds"] > found["phases"]["commit"]
    printed = capsys.readouterr().err
    assert "Rows in" in printed and "700" in printed


def test_the_module_is_the_same_entry(criteo: ZooSample, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    command = [sys.executable, "-m", "sluice", "batch", "--model", criteo.model, "--input", criteo.path("csv")]
    done = subprocess.run([*command, "--output", str(output)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(read_output(output_of(output))) == 700
    assert "Traceback" not in done.stderr and "WARNING" not in done.stderr
