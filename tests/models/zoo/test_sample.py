"""Sample files of the zoo: read back, every format holds the same rows."""

import os
from pathlib import Path
from typing import Any

import fastavro
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from sluice.models import zoo
from sluice.models.errors import UsageError
from sluice.models.protos import message_class
from sluice.models.tensors import tfrecord
from sluice.models.zoo.base import ZooModel
from sluice.models.zoo.sample import WRITERS, sample_chunks, write_samples

SAMPLE_ROWS = 60


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Every model's sample input in every format, written in chunks that do not divide the rows."""
    base = tmp_path_factory.mktemp("samples")
    formats = tuple(WRITERS)
    return {
        name: dict(
            zip(formats, write_samples(zoo.get(name), str(base), SAMPLE_ROWS, formats, chunk_rows=25), strict=True)
        )
        for name in zoo.NAMES
    }


@pytest.fixture(params=zoo.NAMES)
def model(request: pytest.FixtureRequest) -> ZooModel:
    return zoo.get(request.param)


def read_csv(path: str) -> list[dict[str, Any]]:
    """Reads every field as text, as a reader that infers nothing does."""
    with open(path) as file:
        names = file.readline().strip().replace('"', "").split(",")
    options = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    return pyarrow.csv.read_csv(path, convert_options=options).to_pylist()


def read_avro(path: str) -> list[dict[str, Any]]:
    with open(path, "rb") as file:
        return list(fastavro.reader(file))


def read_tfrecord(path: str) -> list[dict[str, Any]]:
    """Reads tf.Examples; a feature of one value stands for a scalar."""
    rows = []
    with open(path, "rb") as file:
        for _, record in tfrecord.read_records(file):
            features = message_class("tensorflow.Example").FromString(record).features.feature
            lists = {name: list(getattr(f, f.WhichOneof("kind")).value) for name, f in features.items()}
            rows.append({name: values[0] if len(values) == 1 else values for name, values in lists.items()})
    return rows


def typed(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Returns rows read from a file as columns of the schema: text parsed, bytes decoded."""

    def convert(value: Any, type_: pa.DataType) -> Any:
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, str) and not pa.types.is_string(type_):
            return orjson.loads(value)
        return value

    assert all(sorted(row) == sorted(schema.names) for row in rows)
    return pa.RecordBatch.from_arrays(
        [pa.array([convert(row[f.name], f.type) for row in rows], f.type) for f in schema], schema=schema
    )


READERS = {
    "csv": read_csv,
    "jsonl": lambda path: [orjson.loads(line) for line in Path(path).read_bytes().splitlines()],
    "parquet": lambda path: pyarrow.parquet.read_table(path).to_pylist(),
    "avro": read_avro,
    "tfrecord": read_tfrecord,
}


@pytest.mark.parametrize("format_", WRITERS)
def test_every_format_holds_the_same_rows(model: ZooModel, format_: str, samples: dict[str, dict[str, str]]) -> None:
    path = samples[model.name][format_]
    assert os.path.basename(path) == f"{model.name}.{format_}"
    expected = next(sample_chunks(model, SAMPLE_ROWS, seed=2))
    assert typed(READERS[format_](path), expected.schema).equals(expected)


@pytest.mark.parametrize("format_", WRITERS)
def test_ids_keep_their_leading_zeros(format_: str, samples: dict[str, dict[str, str]]) -> None:
    row = READERS[format_](samples["natality"][format_])[42]
    assert row["id"] in ("0000042", b"0000042")


def test_images_are_flat_json_in_csv_and_jsonl(samples: dict[str, dict[str, str]]) -> None:
    assert len(orjson.loads(read_csv(samples["mnist"]["csv"])[0]["image"])) == 784
    assert len(READERS["jsonl"](samples["mnist"]["jsonl"])[0]["image"]) == 784


def test_floats_print_as_short_as_they_were_made(samples: dict[str, dict[str, str]]) -> None:
    for format_ in ("csv", "jsonl"):
        weights = [row["actual_weight_pounds"] for row in READERS[format_](samples["natality"][format_])]
        assert max(len(str(weight)) for weight in weights) <= len("12.34")


@pytest.mark.parametrize("format_", WRITERS)
def test_files_do_not_depend_on_the_chunks(format_: str, tmp_path: Path, samples: dict[str, dict[str, str]]) -> None:
    (path,) = write_samples(zoo.get("census"), str(tmp_path), SAMPLE_ROWS, (format_,))
    assert READERS[format_](path) == READERS[format_](samples["census"][format_])


def test_files_of_another_seed_hold_other_rows(tmp_path: Path, samples: dict[str, dict[str, str]]) -> None:
    (path,) = write_samples(zoo.get("census"), str(tmp_path), SAMPLE_ROWS, ("csv",), seed=9)
    assert Path(path).read_bytes() != Path(samples["census"]["csv"]).read_bytes()


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"orc; there are csv, jsonl, parquet, avro, tfrecord"):
        write_samples(zoo.get("census"), str(tmp_path / "out"), 5, ("csv", "orc"))
    assert not (tmp_path / "out").exists()
