"""The zoo's models and samples of their input, made once per run."""

import csv
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sluice.models import zoo
from sluice.models.protos import message_class
from sluice.models.tensors.tfrecord import read_records
from sluice.models.zoo.base import ZooModel
from sluice.models.zoo.export import export_model
from sluice.models.zoo.quality import run_signature
from sluice.models.zoo.sample import sample_chunks, write_samples
from tests.support.shared import SharedDirectory

FORMATS = ("csv", "jsonl", "parquet", "avro", "tfrecord")
SUFFIXES = {"csv": ".csv", "jsonl": ".jsonl", "parquet": ".parquet", "avro": ".avro", "tfrecord": ".tfrecord"}


@dataclasses.dataclass(frozen=True)
class ZooSample:
    """A model, and rows for it in every format.

    Attributes:
      model: the base path of the model's versions.
      directory: holds the samples, NAME.FORMAT.
    """

    name: str
    model: str
    directory: str
    rows: int

    def path(self, format_: str) -> str:
        return f"{self.directory}/{self.name}.{format_}"

    def batch(self) -> pa.RecordBatch:
        """Returns the sample's rows: id, features and label."""
        chunks = list(sample_chunks(zoo.get(self.name), self.rows, seed=2))
        return pa.Table.from_batches(chunks).combine_chunks().to_batches()[0]

    def expected(self) -> dict[str, list[Any]]:
        """Returns the outputs of the SavedModel for all rows at once, called directly in its own Session."""
        outputs = run_signature(f"{self.model}/1", self.batch(), "serving_default")
        return {name: array.tolist() for name, array in outputs.items()}


# What each is trained on: enough for the quality that tests ask of it.
_TRAINING_ROWS = {"mnist": 8000}


class ZooSamples(Mapping[str, ZooSample]):
    """Every model of the zoo by name; it is trained when it is asked for."""

    def __init__(self, shared: SharedDirectory, rows: int) -> None:
        self._shared = shared
        self._rows = rows

    def __getitem__(self, name: str) -> ZooSample:
        directory = self._shared.made(f"zoo_{name}", lambda directory: _make(zoo.get(name), directory, self._rows))
        return ZooSample(name, f"{directory}/model", str(directory), self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(zoo.NAMES)

    def __len__(self) -> int:
        return len(zoo.NAMES)


def _make(model: ZooModel, directory: Path, rows: int) -> None:
    """Trains and exports the model, and writes samples in every format."""
    export_model(model, str(directory / "model"), rows=_TRAINING_ROWS.get(model.name, 4000))
    write_samples(model, str(directory), rows, FORMATS, seed=2)


def read_output(path: str) -> list[dict[str, Any]]:
    """Returns the rows of an output file, read with the plain library of its format."""
    if path.endswith(".csv"):
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    if path.endswith(".jsonl"):
        return [json.loads(line) for line in Path(path).read_text().splitlines()]
    if path.endswith(".parquet"):
        return pq.read_table(path).to_pylist()
    with open(path, "rb") as file:
        if path.endswith(".avro"):
            return list(fastavro.reader(file))
        return [_example_row(record) for _, record in read_records(file)]


def _example_row(record: bytes) -> dict[str, Any]:
    row = {}
    for name, feature in message_class("tensorflow.Example").FromString(record).features.feature.items():
        values = list(getattr(feature, feature.WhichOneof("kind")).value)
        row[name] = values[0] if len(values) == 1 else values
    return row


def plain(value: Any) -> Any:
    """Returns an output value in the form that tests compare, whatever its format."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, list) and len(value) == 1:
        return plain(value[0])
    if isinstance(value, list | np.ndarray):
        return [plain(each) for each in value]
    return value
