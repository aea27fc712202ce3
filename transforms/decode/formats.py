"""How files are read: the table from each format to its functions, and reading by it. No Beam transforms here."""

import gzip
import zlib
from collections.abc import Iterator

import pyarrow as pa

from sluice.models.errors import CorruptFile
from sluice.transforms.core.formats import AVRO, CSV, JSONL, PARQUET, TFRECORD
from sluice.transforms.decode.avro import look_avro, read_avro_range
from sluice.transforms.decode.csv_file import look_csv, read_csv_range, split_csv
from sluice.transforms.decode.json import look_json, read_json_range
from sluice.transforms.decode.parquet import look_parquet, read_parquet_range, split_parquet
from sluice.transforms.decode.ranges import RANGE_BYTES, FileRange, Reader, split_evenly
from sluice.transforms.decode.spec import Decoded, InputSpec, file_failure
from sluice.transforms.decode.tfrecord import look_tfrecord, read_tfrecord_range

READERS = {
    CSV: Reader(look_csv, split_csv, read_csv_range),
    JSONL: Reader(look_json, split_evenly, read_json_range),
    PARQUET: Reader(look_parquet, split_parquet, read_parquet_range, unit="row"),
    AVRO: Reader(look_avro, split_evenly, read_avro_range),
    TFRECORD: Reader(look_tfrecord, split_evenly, read_tfrecord_range),
}

# The errors that reading a damaged file can raise, beside OSError.
DAMAGE = (CorruptFile, EOFError, ValueError, zlib.error, pa.ArrowException)


def split_file(path: str, size: int, spec: InputSpec, range_bytes: int = RANGE_BYTES) -> list[FileRange]:
    """Returns the ranges of a file, which together hold every row once.

    Raises:
      CorruptFile, OSError: the beginning of the file cannot be read.
    """
    return READERS[spec.format].split(path, size, spec, range_bytes) if size else []


def read_range(part: FileRange, spec: InputSpec) -> Iterator[tuple[Decoded, int]]:
    """Yields (rows, bytes of the stored file) of a range, in order. Never raises because of a file's contents.

    A file that cannot be read to its end yields one failure of stage "read", whose origin is the position reached. The
    rows before it are kept. Errors of the network and of the disk are raised: the runner retries them.
    """
    reader = READERS[spec.format]
    reached = part.start if reader.unit == "byte" else 0
    try:
        for decoded, size, position in reader.read(part, spec):
            yield decoded.joined(), size if part.stop is not None else 0
            reached = position
    except Exception as error:
        if not is_file_error(error):
            raise
        yield Decoded(failures=[file_failure(error, f"{part.path}#{reader.unit}={reached}")]), 0
    if part.stop is None:  # of a compressed file only the whole size is known
        yield Decoded(), part.stored_bytes


def is_file_error(error: Exception) -> bool:
    """Whether a file is at fault, by its contents or because we cannot open it, and not the way to it."""
    if isinstance(error, OSError):  # gzip and pyarrow raise it for damage, without an errno
        damage = type(error) in (OSError, gzip.BadGzipFile) and error.errno is None
        return damage or isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError)
    status = getattr(error, "code", None)  # of google.api_core's errors: an HTTP status
    refused = isinstance(status, int) and 400 <= status < 500 and status not in (408, 429)
    return refused or isinstance(error, DAMAGE)
