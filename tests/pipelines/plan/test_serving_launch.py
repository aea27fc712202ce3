"""What is checked of a model's server before a job starts, and what `sluice inspect` shows of it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sluice.pipelines.cli import main
from tests.support.saved_models.zoo import ZooSample
from tests.support.servers import free_port
from tests.support.serving.backends import GRPC, REST, SERVED, VERTEX, Uris, tells_features


def refusal(flags: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(flags) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1, text
    return text


def job(model: str, sample: ZooSample, directory: Path, *flags: str) -> list[str]:
    paths = [f"--input={sample.path('csv')}", f"--output={directory}/out/pred.csv"]
    return ["batch", "--progress=none", f"--model={model}", *paths, *flags]


def without_model(uri: str) -> str:
    """A URI of the same server, up to the model's name."""
    return uri.rsplit("/", 1)[0]


@pytest.mark.parametrize(
    "scheme,path", [("grpc", "m"), ("http", "v1/models/m"), ("grpcs", "m"), ("https", "v1/models/m")]
)
def test_a_server_that_is_down_is_named(
    scheme: str, path: str, criteo: ZooSample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"127.0.0.1:{free_port()}"
    uri = f"{scheme}://{address}/{path}"
    text = refusal(job(uri, criteo, tmp_path), capsys)
    assert address in text and "check that TF Serving runs there" in text
    assert address in refusal(["inspect", f"--model={uri}"], capsys)
    assert list((tmp_path / "out").glob("*")) == []


@pytest.mark.parametrize("backend", SERVED)
def test_what_the_server_does_not_serve(
    backend: str, criteo: ZooSample, zoo_uris: Uris, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = zoo_uris(backend, "criteo")
    wrong_versions = () if backend == VERTEX else (f"{uri}/versions/99", f"{uri}/labels/stable")
    for wrong in (f"{without_model(uri)}/criteoo", *wrong_versions):
        text = refusal(job(wrong, criteo, tmp_path), capsys)
        assert wrong in text and "check the name, and the version or label" in text


def test_the_other_protocols_port(
    criteo: ZooSample, zoo_uris: Uris, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grpc_port = without_model(zoo_uris(GRPC, "criteo")).rsplit(":", 1)[1]
    rest_port = zoo_uris(REST, "criteo").split("/")[2].rsplit(":", 1)[1]
    flags = ["--rpc_timeout_secs=5"]
    text = refusal(job(f"grpc://127.0.0.1:{rest_port}/criteo", criteo, tmp_path, *flags), capsys)
    assert f"127.0.0.1:{rest_port}" in text and "http://" in text
    text = refusal(job(f"http://127.0.0.1:{grpc_port}/v1/models/criteo", criteo, tmp_path, *flags), capsys)
    assert f"127.0.0.1:{grpc_port}" in text and "8501" in text


@pytest.mark.parametrize("backend", SERVED)
def test_model_and_input_are_checked_against_each_other(
    backend: str, criteo: ZooSample, zoo_uris: Uris, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = zoo_uris(backend, "criteo")
    text = refusal(job(uri, criteo, tmp_path, "--signature=serving_defualt"), capsys)
    assert "did you mean --signature serving_default" in text
    source = tmp_path / "in.csv"
    source.write_bytes(Path(criteo.path("csv")).read_bytes().replace(b"C7", b"C_7", 1))
    given = [flag for flag in job(uri, criteo, tmp_path) if not flag.startswith("--input=")]
    text = refusal([*given, f"--input={source}"], capsys)
    assert "the model takes 'C7', which the input" in text and "give --map C7=C_7" in text
    if not tells_features(backend):
        flags = job(uri, criteo, tmp_path, "--signature=serving_examples")
        assert "takes serialized tf.Examples" in refusal(flags, capsys)


@pytest.mark.parametrize("backend", SERVED)
def test_records_go_whole_to_a_signature_that_parses_them(
    backend: str, criteo: ZooSample, zoo_uris: Uris, tmp_path: Path
) -> None:
    flags = [f"--input={criteo.path('tfrecord')}", f"--output={tmp_path}/out.tfrecord", "--progress=none"]
    uri = zoo_uris(backend, "criteo")
    assert main(["batch", f"--model={uri}", "--signature=serving_examples", *flags]) == 0


@pytest.mark.parametrize("backend", SERVED)
def test_inspect_shows_what_a_server_shows(
    backend: str, criteo: ZooSample, zoo_uris: Uris, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "--model", criteo.model, "--json"]) == 0
    on_disk = json.loads(capsys.readouterr().out)
    uri = zoo_uris(backend, "criteo")
    assert main(["inspect", "--model", uri, "--json"]) == 0
    served = json.loads(capsys.readouterr().out)
    assert (served["uri"], served["directory"], served["version"], served["versions"]) == (uri, None, 1, [])
    for key in ("signatures", "columns", "sample_row", "output_columns", "bigquery_schema"):
        assert served[key] == on_disk[key], key
    assert main(["inspect", "--model", uri]) == 0
    assert "Version  1, served now" in capsys.readouterr().out


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_dataflow_does_not_reach_this_machine(
    host: str, criteo: ZooSample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = job(f"grpc://{host}:8500/m", criteo, tmp_path, "--runner=DataflowRunner")
    assert "which Dataflow's workers cannot reach" in refusal(flags, capsys)


def test_access_that_cannot_be(cases: Callable[[str], str], criteo: ZooSample, tmp_path: Path,
                               capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    token = tmp_path / "token"
    flag = f"--rpc_token_file={token}"
    assert "cannot be read" in refusal([*job("grpcs://serving.example:8500/m", criteo, tmp_path), flag], capsys)
    token.write_text("secret")
    text = refusal([*job("grpc://serving.example:8500/m", criteo, tmp_path), flag], capsys)
    assert "grpcs://" in text and "secret" not in text
