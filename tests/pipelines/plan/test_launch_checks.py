"""What `sluice batch` refuses before it starts: exit code 2, one line that says what, and nothing written."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sluice.pipelines.cli import main
from tests.support.saved_models.zoo import ZooSample


def refusal(flags: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["batch", "--progress=none", *flags]) == 2
    return capsys.readouterr().err


@pytest.fixture
def command(criteo: ZooSample, tmp_path: Path) -> Callable[..., list[str]]:
    """Flags of a job that would run, with some of them replaced."""

    def make(**flags: str) -> list[str]:
        usual = {"model": criteo.model, "input": criteo.path("csv"), "output": str(tmp_path / "out" / "pred.csv")}
        return [f"--{name}={value}" for name, value in (usual | flags).items()]

    return make


CASES = [
    ({"model": "/nowhere"}, ["/nowhere", "there is nothing at this path", "model.export(DIRECTORY)"]),
    ({"model": "ftp://host/model"}, ["ftp://", "scheme"]),
    ({"input": "/nowhere/*.csv"}, ["/nowhere/*.csv", "no file matches"]),
    ({"signature": "serving_defualt"}, ["serving_defualt", "did you mean --signature serving_default"]),
    ({"output": "/proc/nowhere/out.csv"}, ["/proc/nowhere/out", "cannot be written"]),
    ({"failures": "/tmp/x*.jsonl"}, ["--failures /tmp/x*.jsonl", "cannot hold"]),
    ({"output": "x/../y.jsonl", "failures": "./y.jsonl"}, ["--failures ./y.jsonl names the files of --output"]),
    ({"output": "out"}, ["format is not clear", "--output_format"]),
    ({"output_format": "avro"}, ["ends like csv", "avro"]),
    ({"max_failure_rate": "1.5"}, ["--max_failure_rate 1.5", "between 0 and 1"]),
    ({"max_batch_size": "-1"}, ["--max_batch_size is -1", "0 or more"]),
    ({"rpc_timeout_secs": "0"}, ["--rpc_timeout_secs 0", "more than 0"]),
    ({"rpc_ca_file": "/nowhere.pem"}, ["--rpc_ca_file /nowhere.pem cannot be read"]),
    ({"csv_delimiter": "||"}, ["--csv_delimiter", "one ASCII character"]),
    ({"column_defaults": "I1=x"}, ["I1=x", "int64"]),
    ({"column_defaults": "I1=99999999999999999999"}, ["I1=9999", "int64"]),
    ({"column_defaults": "I99=1"}, ["I99", "no such column"]),
    ({"columns": "idd"}, ["idd", "did you mean 'id'"]),
    ({"exclude_columns": "score"}, ["every output"]),
    ({"input_schema": "/nowhere.json"}, ["/nowhere.json", "cannot be read"]),
    ({"device": "GPU/0"}, ["--device GPU/0", "no device has such a name"]),
    ({"device": "CPU:0,GPU:7"}, ["--device GPU:7", "no such device here; it has CPU:0"]),
    ({"runer": "DirectRunner"}, ["--runer", "did you mean --runner"]),
]


@pytest.mark.parametrize("flags,words", CASES, ids=[next(iter(flags)) for flags, _ in CASES])
def test_wrong_flags_are_refused_with_the_remedy(
    flags: dict[str, str],
    words: list[str],
    command: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = refusal(command(**flags), capsys)
    assert all(word in text for word in words), text
    assert text.count("\n") == 1
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []


def test_input_that_the_job_would_replace_is_refused(
    criteo: ZooSample, command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in-00000-of-00001.csv"
    source.write_bytes(Path(criteo.path("csv")).read_bytes())
    flags = command(input=str(tmp_path / "in-*.csv"), output=str(tmp_path / "in.csv"), overwrite="true")
    assert "which the job would replace" in refusal(flags, capsys)


@pytest.mark.parametrize("prefix", ["", "./", "out/", "./out//", "out/../out/"])
def test_relative_output_that_exists_is_refused(
    prefix: str,
    command: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    flags = command(output=f"{prefix}pred.csv")
    assert main(["batch", "--progress=none", *flags]) == 0
    assert "exists; give --overwrite" in refusal(flags, capsys)


def _with_header(criteo: ZooSample, path: Path, old: str, new: str) -> str:
    path.write_text(Path(criteo.path("csv")).read_text().replace(old, new, 1))
    return str(path)


def test_a_missing_column_names_the_nearest(
    criteo: ZooSample, command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _with_header(criteo, tmp_path / "in.csv", '"I13"', '"i13"')
    text = refusal(command(input=source), capsys)
    assert "the model takes 'I13', which the input" in text and "give --map I13=i13" in text


def test_a_column_of_another_type_names_both_types(
    cases: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": ["a", "b"]}), tmp_path / "in.parquet")
    flags = [f"--model={cases('picky')}", f"--input={tmp_path}/in.parquet", f"--output={tmp_path}/out.parquet"]
    text = refusal(flags, capsys)
    assert "column 'x': the model takes float32" in text and "string" in text


def test_a_text_column_that_never_fits_is_refused(
    cases: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text("x\n" + "many\n" * 50)
    flags = [f"--model={cases('picky')}", f"--input={tmp_path}/in.csv", f"--output={tmp_path}/out.csv"]
    text = refusal(flags, capsys)
    assert "none of the first 50 rows" in text and "column 'x': 'many' is not float" in text


def test_an_output_named_like_an_input_column_is_refused(
    criteo: ZooSample, command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _with_header(criteo, tmp_path / "in.csv", '"label"', '"score"')
    assert "--output_prefix" in refusal(command(input=source), capsys)
    assert main(["batch", "--progress=none", *command(input=source, output_prefix="p_")]) == 0


def test_lists_in_csv_are_refused_with_the_formats_that_work(
    zoo_samples: dict[str, ZooSample], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = zoo_samples["census"]
    flags = [f"--model={sample.model}", f"--input={sample.path('csv')}", f"--output={tmp_path}/out.csv"]
    text = refusal(flags, capsys)
    assert "probabilities" in text and "--flatten" in text and "parquet" in text


def test_an_output_without_rows_is_refused_unless_left_out(
    cases: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = cases("scalar_output")
    (tmp_path / "in.jsonl").write_text('{"x": 1.0}\n')
    flags = [f"--model={model}", f"--input={tmp_path}/in.jsonl", f"--output={tmp_path}/out.jsonl"]
    text = refusal(flags, capsys)
    assert "'threshold' has rank 0" in text and "--exclude_columns" in text
    assert main(["batch", "--progress=none", "--exclude_columns=threshold", *flags]) == 0
