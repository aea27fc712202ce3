"""`sluice batch` with everything on gs://: model, input, output and failures."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from sluice.pipelines.cli import main
from sluice.transforms.core.beam_files import match_files, open_binary
from tests.support.saved_models.zoo import ZooSample
from tests.support.servers import Gcs


def upload(local: str, remote: str) -> None:
    with FileSystems.create(remote, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(Path(local).read_bytes())


def names(pattern: str) -> list[str]:
    return [file.path for file in match_files(pattern)]


@pytest.fixture(scope="module")
def remote(gcs: Gcs, criteo: ZooSample) -> Gcs:
    """The model as version 1, and the samples, in the bucket."""
    for path in Path(criteo.model).rglob("*"):
        if path.is_file():
            upload(str(path), gcs.path(f"model/{path.relative_to(criteo.model)}"))
    for format_ in ("csv", "parquet", "avro", "jsonl", "tfrecord"):
        upload(criteo.path(format_), gcs.path(f"in/criteo.{format_}"))
    return gcs


@pytest.mark.parametrize("format_", ["csv", "parquet", "avro", "jsonl", "tfrecord"])
def test_model_input_and_output_on_gcs(format_: str, remote: Gcs, criteo: ZooSample) -> None:
    output = remote.path(f"out-{format_}/pred.parquet")
    flags = [
        "--model",
        remote.path("model"),
        "--input",
        remote.path(f"in/*.{format_}"),
        "--columns=",
        "--progress=none",
    ]
    assert main(["batch", *flags, "--output", output]) == 0
    assert names(remote.path(f"out-{format_}/*")) == [remote.path(f"out-{format_}/pred-00000-of-00001.parquet")]
    with open_binary(remote.path(f"out-{format_}/pred-00000-of-00001.parquet")) as file:
        table = pq.read_table(pa.BufferReader(io.BytesIO(file.read()).getvalue()))
    np.testing.assert_allclose(table["score"].to_numpy(), criteo.expected()["score"], rtol=1e-6)
    assert main(["batch", *flags, "--output", output]) == 2, "output that exists is refused"


def test_bad_rows_on_gcs_are_written_beside_the_output(remote: Gcs, criteo: ZooSample, tmp_path: Path) -> None:
    source = tmp_path / "bad.csv"
    lines = Path(criteo.path("csv")).read_bytes().splitlines()
    source.write_bytes(b"\n".join([*lines[:100], b"too,short", *lines[100:]]))
    upload(str(source), remote.path("bad/in.csv"))
    flags = ["--model", remote.path("model"), "--input", remote.path("bad/in.csv"), "--progress=none"]
    assert main(["batch", *flags, "--output", remote.path("bad/out.csv")]) == 0
    with open_binary(remote.path("bad/out.failures-00000-of-00001.jsonl")) as file:
        failure = json.loads(file.read())
    assert failure["origin"].startswith(remote.path("bad/in.csv#byte="))
    assert main(["batch", *flags, "--output", remote.path("bad/none.csv"), "--max_failure_rate=0"]) == 3
    assert names(remote.path("bad/none-*.csv")) == []
    hidden = FileSystems.match([remote.path("bad/**")])[0].metadata_list
    assert [file.path for file in hidden if ".sluice-" in file.path] == []
