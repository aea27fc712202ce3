"""The servers that tests run, and what they are for: Beam's files, and ours on top, on gs://."""

import errno
import os
import sys
import tempfile
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from apache_beam.internal.gcp import auth
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from models import open_model
from models.versions import Version, find_version
from pipelines.inspect_model import describe
from tests.saved_models import CASES, build_case
from tests.servers import Gcs, answers, beam_uses, free_port, require, running
from transforms import beam_files
from transforms.beam_files import BeamFiles, match_files

ORDER = next(case for case in CASES if case.name == "tf2_function")  # with variables and an asset


def write(path: str, data: bytes) -> None:
    with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(data)


def read(path: str) -> bytes:
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return file.read()


def names(pattern: str) -> list[str]:
    return sorted(file.path for file in FileSystems.match([pattern])[0].metadata_list)


def upload(directory: str, target: str) -> list[str]:
    """Copies the files under a local directory; returns their names, sorted."""
    paths = sorted(str(path.relative_to(directory)) for path in Path(directory).rglob("*") if path.is_file())
    for path in paths:
        write(f"{target}/{path}", Path(directory, path).read_bytes())
    return paths


@pytest.fixture(scope="module")
def order_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build_case(ORDER, tmp_path_factory.mktemp("models"))


def test_a_server_that_is_there_is_given_back() -> None:
    assert require("/bin/server", "no server") == "/bin/server"


def test_a_server_that_is_missing_skips_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUIRE_SERVERS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no server: pip install server"):
        require(None, "no server: pip install server")


def test_a_server_that_is_missing_fails_the_test_where_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUIRE_SERVERS", "1")
    with pytest.raises(pytest.fail.Exception, match="REQUIRE_SERVERS=1: no server: pip install server"):
        require(None, "no server: pip install server")


def test_a_server_is_up_within_the_block_and_gone_after_it(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    assert not answers(url)
    command = [sys.executable, "-m", "http.server", "--bind=127.0.0.1", f"--directory={tmp_path}", str(port)]
    with running(command, lambda: answers(url)) as process_id:
        assert answers(url)
    assert not answers(url)
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, 0)


def test_a_server_that_ends_at_once_says_why() -> None:
    command = [sys.executable, "-c", "import sys; print('port is taken'); sys.exit(7)"]
    with pytest.raises(RuntimeError, match=r"ended with code 7: port is taken"), running(command, lambda: False):
        pytest.fail("the block must not run")


def test_a_server_that_never_answers_is_given_up() -> None:
    command = [sys.executable, "-c", "import threading; threading.Event().wait()"]
    with (
        pytest.raises(RuntimeError, match=r"does not answer after 0.2 s"),
        running(command, lambda: False, start_secs=0.2),
    ):
        pytest.fail("the block must not run")


def test_beam_is_sent_to_the_emulator_for_the_block_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "before")
    monkeypatch.setattr(auth._Credentials, "_credentials_init", False)
    with beam_uses(Gcs("http://127.0.0.1:1", "bkt")):
        assert os.environ["STORAGE_EMULATOR_HOST"] == "http://127.0.0.1:1"
        assert auth.get_service_credentials(PipelineOptions()) is None
    assert os.environ["STORAGE_EMULATOR_HOST"] == "before"
    assert not auth._Credentials._credentials_init


def test_it_is_the_emulator_that_answers(gcs: Gcs) -> None:
    write(gcs.path("probe"), b"x")
    with urllib.request.urlopen(f"{gcs.url}/storage/v1/b/{gcs.bucket}/o/probe?alt=media") as response:
        assert response.read() == b"x"


@pytest.mark.parametrize("data", [b"", b"one line\n", bytes(range(256)) * 80_000], ids=["none", "some", "20 MB"])
def test_bytes_come_back(gcs: Gcs, data: bytes) -> None:
    path = gcs.path(f"round trip/{len(data)} bytes.bin")
    write(path, data)
    assert read(path) == data
    assert FileSystems.exists(path)
    assert match_files(path)[0].size_in_bytes == len(data)


def test_a_glob_stops_at_slashes_and_two_stars_do_not(gcs: Gcs) -> None:
    for name in ("a.csv", "b.csv", "b.json", "c.csv/d.csv"):
        write(gcs.path(f"glob/{name}"), b"x")
    assert names(gcs.path("glob/*.csv")) == [gcs.path("glob/a.csv"), gcs.path("glob/b.csv")]
    assert names(gcs.path("glob/**.csv")) == [
        gcs.path("glob/a.csv"),
        gcs.path("glob/b.csv"),
        gcs.path("glob/c.csv/d.csv"),
    ]
    assert names(gcs.path("glob/nothing*")) == []


def test_rename_replaces_and_delete_takes_prefixes(gcs: Gcs) -> None:
    old, new = gcs.path("rename/old"), gcs.path("rename/new")
    write(new, b"earlier")
    write(old, b"later")
    FileSystems.rename([old], [new])
    assert (FileSystems.exists(old), read(new)) == (False, b"later")
    with pytest.raises(BeamIOError):
        FileSystems.rename([old], [new])
    assert read(new) == b"later"
    FileSystems.delete([gcs.path("rename/")])
    assert names(gcs.path("rename/**")) == []


def test_beam_files_match_and_read(gcs: Gcs) -> None:
    for name in (
        "7/saved_model.pb",
        "12/saved_model.pb",
        "12/variables/variables.index",
        ".sluice-x/saved_model.pb",
    ):
        write(gcs.path(f"match/{name}"), name.encode())
    assert BeamFiles().match(gcs.path("match/*/saved_model.pb")) == [
        gcs.path("match/12/saved_model.pb"),
        gcs.path("match/7/saved_model.pb"),
    ]
    assert BeamFiles().match(gs_nothing := gcs.path("nothing/*")) == [], gs_nothing
    with pytest.raises(OSError, match=r"gs://no-such-bucket/\* cannot be listed.*NotFound"):
        BeamFiles().match("gs://no-such-bucket/*")
    assert BeamFiles().read(gcs.path("match/7/saved_model.pb")) == b"7/saved_model.pb"


def test_a_local_copy_is_made_once_and_anew_when_the_model_changes(
    gcs: Gcs, order_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    opened: list[str] = []

    def counting_open(path: str) -> object:
        opened.append(path)
        return open_binary(path)

    open_binary = beam_files.open_binary
    monkeypatch.setattr(beam_files, "open_binary", counting_open)
    remote = gcs.path("copied/1")
    files = upload(order_model, remote)
    assert "assets/currencies.tsv" in files
    first = BeamFiles().local_copy(remote)
    assert first.startswith(str(tmp_path))
    assert sorted(opened) == [f"{remote}/{name}" for name in files]
    for name in files:
        assert Path(first, name).read_bytes() == Path(order_model, name).read_bytes()

    opened.clear()
    assert BeamFiles().local_copy(remote) == first
    assert opened == []

    write(f"{remote}/assets/currencies.tsv", b"NO\tNOK\n")
    second = BeamFiles().local_copy(remote)
    assert second != first
    assert len(opened) == len(files)
    assert Path(second, "assets/currencies.tsv").read_bytes() == b"NO\tNOK\n"
    assert Path(first, "assets/currencies.tsv").read_bytes() != b"NO\tNOK\n"  # a process may have it open
    assert BeamFiles().local_copy(str(tmp_path)) == str(tmp_path)


def test_a_copy_that_fails_half_way_is_not_taken_for_whole(
    gcs: Gcs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    remote = gcs.path("half/1")
    for name in ("a", "b"):
        write(f"{remote}/{name}", name.encode())

    def failing_open(path: str) -> object:
        if path.endswith("/b"):
            raise OSError(errno.EIO, "the line is cut")
        return open_binary(path)

    open_binary = beam_files.open_binary
    with monkeypatch.context() as patch:
        patch.setattr(beam_files, "open_binary", failing_open)
        with pytest.raises(OSError, match="the line is cut"):
            BeamFiles().local_copy(remote)
    copy = Path(BeamFiles().local_copy(remote))
    assert {path.name: path.read_text() for path in copy.iterdir()} == {"a": "a", "b": "b"}


def test_a_model_in_a_bucket_is_found_described_and_called(
    gcs: Gcs, order_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    base = gcs.path("served/order")
    upload(order_model, f"{base}/3")
    write(f"{base}/4/saved_model.pb", b"half of a mod")
    assert find_version(base, BeamFiles()) == Version(f"{base}/3", 3)

    found = describe(base, None, BeamFiles())
    assert [(each["version"], each["missing"] is None) for each in found["versions"]] == [(4, False), (3, True)]
    assert found["command"] == f"sluice batch --model {base} --input rows.jsonl --output predictions.jsonl"

    model = open_model(base, files=BeamFiles())
    try:
        row = {
            "amount": np.array([8.0], np.float32),
            "items": np.array([2]),
            "member": np.array([True]),
            "country": np.array([b"NO"], object),
        }
        outputs = model.call(row)
    finally:
        model.close()
    assert (outputs.version, outputs.arrays["currency"].tolist()) == (3, [b"NOK"])
