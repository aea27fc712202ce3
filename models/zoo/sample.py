"""Sample input for a model of the zoo, in every file format that Sluice reads."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import fastavro
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from sluice.models.errors import UsageError
from sluice.models.tensors import tfrecord
from sluice.models.zoo.base import ZooModel, to_numpy

ID = "id"
ID_DIGITS = 7
CHUNK_ROWS = 50_000
# Some formats turn a chunk of lists into Python objects; this many numbers need some 100 MB.
CHUNK_VALUES = 3_000_000

AVRO_TYPES: dict[pa.DataType, Any] = {
    pa.string(): "string",
    pa.int64(): "long",
    pa.float32(): "float",
    pa.list_(pa.float32()): {"type": "array", "items": "float"},
}


def sample_chunks(model: ZooModel, rows: int, seed: int, chunk_rows: int = CHUNK_ROWS) -> Iterator[pa.RecordBatch]:
    """Yields rows [0, rows): the row's number as `id`, a string with leading zeros, then the features and the label.

    The rows do not depend on `chunk_rows`.
    """
    for start in range(0, rows, chunk_rows):
        batch = model.make_rows(min(chunk_rows, rows - start), seed, start)
        numbers = pa.array(np.arange(start, start + batch.num_rows)).cast(pa.string())
        ids = pc.utf8_lpad(numbers, width=ID_DIGITS, padding="0")
        yield pa.RecordBatch.from_arrays([ids, *batch.columns], names=[ID, *batch.schema.names])


def write_samples(
    model: ZooModel,
    out_dir: str,
    rows: int,
    formats: Sequence[str] = ("csv", "jsonl", "parquet", "avro", "tfrecord"),
    seed: int = 2,
    chunk_rows: int | None = None,
) -> list[str]:
    """Writes `out_dir/NAME.FORMAT` for every format and returns the paths.

    Args:
      seed: of the rows; another than that of the training, or the model has seen the rows.
      chunk_rows: rows in memory at a time; None: 50,000, or fewer if a row has a long list.

    Raises:
      UsageError: a format is not known; nothing is written.
    """
    unknown = [name for name in formats if name not in WRITERS]
    if unknown:
        raise UsageError(f"no sample format {', '.join(unknown)}; there are {', '.join(WRITERS)}")
    os.makedirs(out_dir, exist_ok=True)
    first = next(sample_chunks(model, 1, seed))
    chunk_rows = chunk_rows or min(CHUNK_ROWS, CHUNK_VALUES // _longest_list(first))
    paths = []
    for name in formats:
        path = os.path.join(out_dir, f"{model.name}.{name}")
        WRITERS[name](path, first.schema, sample_chunks(model, rows, seed, chunk_rows))
        paths.append(path)
    return paths


def write_csv(path: str, schema: pa.Schema, chunks: Iterator[pa.RecordBatch]) -> None:
    """Writes a header and rows; a list as its JSON in a quoted field, because CSV has no lists."""
    flat = pa.schema([(f.name, pa.string() if pa.types.is_list(f.type) else f.type) for f in schema])
    # No quotes where none are needed, as in users' files: 0000042 must survive without quotes too.
    style = "none" if flat.types == schema.types else "needed"
    options = pyarrow.csv.WriteOptions(quoting_style=style)
    with pyarrow.csv.CSVWriter(path, flat, write_options=options) as writer:
        for chunk in chunks:
            columns = [_json_text(c) if pa.types.is_list(c.type) else c for c in chunk.columns]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=flat))


def write_jsonl(path: str, schema: pa.Schema, chunks: Iterator[pa.RecordBatch]) -> None:
    """Writes an object per line; a list as a flat array."""
    option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    with open(path, "wb") as file:
        for chunk in chunks:
            # A float32 of NumPy prints in its own digits: 7.52, and not 7.519999980926514 as a Python float.
            columns = [_objects(column) for column in chunk.columns]
            for row in zip(*columns, strict=True):
                file.write(orjson.dumps(dict(zip(schema.names, row, strict=True)), option=option))


def write_parquet(path: str, schema: pa.Schema, chunks: Iterator[pa.RecordBatch]) -> None:
    """Writes a row group per chunk."""
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for chunk in chunks:
            writer.write_batch(chunk)


def write_avro(path: str, schema: pa.Schema, chunks: Iterator[pa.RecordBatch]) -> None:
    """Writes an object container file, deflated, of records without optional fields."""
    fields = [{"name": field.name, "type": AVRO_TYPES[field.type]} for field in schema]
    records = (row for chunk in chunks for row in chunk.to_pylist())
    with open(path, "wb") as file:
        fastavro.writer(file, {"type": "record", "name": "Row", "fields": fields}, records, codec="deflate")


def write_tfrecord(path: str, schema: pa.Schema, chunks: Iterator[pa.RecordBatch]) -> None:
    """Writes a serialized tf.Example per row."""
    # Imported here: tfx_bsl brings in TensorFlow, which no other format needs.
    from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

    encoder = RecordBatchToExamplesEncoder()
    with open(path, "wb") as file:
        for chunk in chunks:
            lists = [_as_list(column) for column in chunk.columns]
            examples = encoder.encode(pa.RecordBatch.from_arrays(lists, names=schema.names))
            tfrecord.write_records(file, examples)


WRITERS: dict[str, Callable[[str, pa.Schema, Iterator[pa.RecordBatch]], None]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
    "avro": write_avro,
    "tfrecord": write_tfrecord,
}


def _longest_list(row: pa.RecordBatch) -> int:
    return max(len(column[0]) if pa.types.is_list(column.type) else 1 for column in row.columns)


def _json_text(column: pa.ListArray) -> pa.Array:
    """Returns string [rows]: every list as JSON."""
    return pa.array([orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY).decode() for row in to_numpy(column)])


def _objects(column: pa.Array) -> np.ndarray | list[Any]:
    """Returns the values in the types that orjson writes best: NumPy's for floats and lists, Python's for the rest."""
    if pa.types.is_list(column.type) or pa.types.is_floating(column.type):
        return to_numpy(column)
    return column.to_pylist()


def _as_list(column: pa.Array) -> pa.Array:
    """Returns the column in tf.Example's form: a list in every row, bytes instead of text."""
    if pa.types.is_list(column.type):
        return column
    if pa.types.is_string(column.type):
        column = column.cast(pa.binary())
    return pa.ListArray.from_arrays(pa.array(np.arange(len(column) + 1, dtype=np.int32)), column)
