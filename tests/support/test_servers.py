"""Tests of the servers that tests run: Beam's file system and ours on gs://, Pub/Sub and BigQuery."""

import errno
import os
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from apache_beam.internal.gcp import auth
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from sluice.models.cache import open_model
from sluice.models.saved_model.versions import Version, find_version
from sluice.pipelines.commands import pubsub_emulator
from sluice.pipelines.commands.inspect_model import describe
from sluice.transforms.core import beam_files
from sluice.transforms.core.beam_files import BeamFiles, match_files
from tests.support.fakes import PATIENCE_SECS
from tests.support.servers import (
    BigQuery,
    Gcs,
    Pubsub,
    answers,
    beam_uses,
    bigquery_clients_use,
    free_port,
    pubsub_clients_use,
    require,
    running,
)


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
def order_model(cases: Callable[[str], str]) -> str:
    return cases("tf2_function")  # with variables and an asset


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


def test_clients_are_sent_to_the_emulators_for_the_block_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "before")
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    with pubsub_clients_use(Pubsub("127.0.0.1:1")), bigquery_clients_use(BigQuery("http://127.0.0.1:1", "")):
        assert os.environ["PUBSUB_EMULATOR_HOST"] == "127.0.0.1:1"
        assert os.environ["BIGQUERY_EMULATOR_HOST"] == "http://127.0.0.1:1"
    assert os.environ["PUBSUB_EMULATOR_HOST"] == "before"
    assert "BIGQUERY_EMULATOR_HOST" not in os.environ


def test_messages_are_published_pulled_and_acknowledged(pubsub: Pubsub) -> None:
    topic = pubsub.make_topic()
    subscription = pubsub.make_subscription(topic, ack_deadline_seconds=10)
    payloads = [b"%d" % number for number in range(2500)]
    ids = pubsub.publish(topic, payloads, {"of": "all"})
    assert len(set(ids)) == 2500
    received = pubsub.pull_all(subscription, 2500)
    assert {each.message.message_id: each.message.data for each in received} == dict(zip(ids, payloads, strict=True))
    assert {tuple(each.message.attributes.items()) for each in received} == {(("of", "all"),)}
    assert pubsub.pull_all(subscription, 1, secs=0.5) == []


def test_more_than_4_mb_are_pulled_at_once(pubsub: Pubsub) -> None:
    topic = pubsub.make_topic()
    subscription = pubsub.make_subscription(topic)
    pubsub.publish(topic, [bytes(1_000_000)] * 8)
    assert {each.message.data for each in pubsub.pull_all(subscription, 8)} == {bytes(1_000_000)}


def test_messages_have_attributes_and_keys_of_their_own(pubsub: Pubsub) -> None:
    topic = pubsub.make_topic()
    subscription = pubsub.make_subscription(topic, enable_message_ordering=True)
    pubsub.publish(topic, [b"a", b"b"], [{"n": "1"}, {"n": "2"}], ordering_key="k")
    received = [each.message for each in pubsub.pull_all(subscription, 2)]
    assert [(each.data, dict(each.attributes), each.ordering_key) for each in received] == [
        (b"a", {"n": "1"}, "k"),
        (b"b", {"n": "2"}, "k"),
    ]


def test_a_message_that_is_not_acknowledged_comes_again(pubsub: Pubsub) -> None:
    topic = pubsub.make_topic()
    subscription = pubsub.make_subscription(topic)
    pubsub.publish(topic, [b"x"])
    (first,) = pubsub.pull_all(subscription, 1, ack=False)
    pubsub.subscriber.modify_ack_deadline(subscription=subscription, ack_ids=[first.ack_id], ack_deadline_seconds=0)
    (second,) = pubsub.pull_all(subscription, 1)
    assert (second.message.message_id, second.message.data) == (first.message.message_id, b"x")


def test_googles_own_client_goes_to_the_emulator(pubsub: Pubsub) -> None:
    from google.cloud.pubsub import PublisherClient

    topic = pubsub.make_topic()
    subscription = pubsub.make_subscription(topic)
    PublisherClient().publish(topic, b"x").result(timeout=PATIENCE_SECS)
    assert [each.message.data for each in pubsub.pull_all(subscription, 1)] == [b"x"]


def test_the_pubsub_emulator_that_a_demo_runs_is_gone_after_it(pubsub: Pubsub) -> None:
    with pubsub_emulator.running_emulator() as host:
        assert host != pubsub.host
        assert answers(f"http://{host}/")
    assert not answers(f"http://{host}/")


def test_a_pubsub_emulator_is_found_by_its_jar_or_by_gcloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, bin_directory = tmp_path / "sdk", tmp_path / "bin"
    jar = root / "platform/pubsub-emulator/lib/cloud-pubsub-emulator-0.8.20-all.jar"
    for path in (jar, root / "bin" / "gcloud", bin_directory / "java"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\necho {root}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(bin_directory))
    monkeypatch.delenv(pubsub_emulator.JAR_VARIABLE, raising=False)
    assert pubsub_emulator.find_emulator() is None

    found = [str(bin_directory / "java"), "-jar", str(jar)]
    (bin_directory / "gcloud").symlink_to(root / "bin" / "gcloud")
    assert pubsub_emulator.find_emulator() == found
    (bin_directory / "gcloud").unlink()
    (bin_directory / "gcloud").write_text((root / "bin" / "gcloud").read_text())  # a wrapper: it is asked
    (bin_directory / "gcloud").chmod(0o755)
    assert pubsub_emulator.find_emulator() == found
    monkeypatch.setenv(pubsub_emulator.JAR_VARIABLE, str(tmp_path / "no.jar"))
    assert pubsub_emulator.find_emulator() is None
    monkeypatch.setenv(pubsub_emulator.JAR_VARIABLE, str(jar))
    assert pubsub_emulator.find_emulator() == found
    (bin_directory / "java").unlink()
    assert pubsub_emulator.find_emulator() is None


def test_rows_of_a_table_are_written_and_read(bigquery: BigQuery) -> None:
    table = bigquery.make_table(
        [{"name": "id", "type": "INTEGER", "mode": "REQUIRED"}, {"name": "of", "type": "STRING", "mode": "REPEATED"}]
    )
    assert bigquery.rows(table) == []
    rows = [{"id": number, "of": ["a", "é"]} for number in range(3)]
    assert bigquery.client.insert_rows_json(table, rows) == []
    assert sorted(bigquery.rows(table), key=lambda row: row["id"]) == rows
    assert bigquery.make_dataset() != bigquery.make_dataset()


def test_googles_own_client_goes_to_the_bigquery_emulator(bigquery: BigQuery) -> None:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.bigquery import Client

    dataset = bigquery.make_dataset()
    client = Client(bigquery.project, credentials=AnonymousCredentials())
    assert client.get_dataset(dataset).full_dataset_id == dataset.replace(".", ":")


def test_rows_of_a_table_are_read_as_arrow(bigquery: BigQuery) -> None:
    import grpc
    import pyarrow as pa
    from google.cloud.bigquery_storage_v1 import BigQueryReadClient, types
    from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

    table = bigquery.make_table([{"name": "id", "type": "INTEGER"}])
    bigquery.client.insert_rows_json(table, [{"id": 7}])
    project, dataset, name = table.split(".")
    with grpc.insecure_channel(bigquery.grpc) as channel:
        client = BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))
        session = client.create_read_session(
            parent=f"projects/{project}",
            read_session=types.ReadSession(
                table=f"projects/{project}/datasets/{dataset}/tables/{name}", data_format=types.DataFormat.ARROW
            ),
            max_stream_count=1,
        )
        schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
        (answer,) = client.read_rows(session.streams[0].name)
        batch = pa.ipc.read_record_batch(pa.py_buffer(answer.arrow_record_batch.serialized_record_batch), schema)
        assert batch.to_pylist() == [{"id": 7}]
