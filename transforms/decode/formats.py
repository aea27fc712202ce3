"""How files are read: the table from each format to its functions, and reading by it. No Beam transforms here."""

import dataclasses
import zlib
from collections.abc import Iterator

import pyarrow as pa
from apache_beam.io.filesystem import FileMetadata

from sluice.models.errors import CorruptFile
from sluice.transforms.core.beam_files import check_unchanged, is_file_error
from sluice.transforms.core.formats import AVRO, CSV, FILES, JSONL, PARQUET, TFRECORD
from sluice.transforms.decode.avro import look_avro, read_avro_range
from sluice.transforms.decode.csv_file import look_csv, read_csv_range, split_csv
from sluice.transforms.decode.json_file import look_json, read_json_range, split_json
from sluice.transforms.decode.parquet import look_parquet, read_parquet_range
from sluice.transforms.decode.ranges import RANGE_BYTES, BadBeginning, FileRange, FileState, Reader, split_evenly
from sluice.transforms.decode.spec import Decoded, InputSpec, file_failure
from sluice.transforms.decode.tfrecord import look_tfrecord, read_tfrecord_range
from sluice.transforms.decode.whole_files import look_file, read_file, split_file_whole

READERS = {
    CSV: Reader(look_csv, split_csv, read_csv_range),
    JSONL: Reader(look_json, split_json, read_json_range),
    PARQUET: Reader(look_parquet, split_evenly, read_parquet_range, unit="row"),
    AVRO: Reader(look_avro, split_evenly, read_avro_range),
    TFRECORD: Reader(look_tfrecord, split_evenly, read_tfrecord_range),
    FILES: Reader(look_file, split_file_whole, read_file),
}

# The errors that reading a damaged file can raise, beside OSError.
DAMAGE = (CorruptFile, EOFError, ValueError, zlib.error, pa.ArrowException)


def split_file(path: str, size: int, spec: InputSpec, range_bytes: int = RANGE_BYTES) -> list[FileRange]:
    """Returns the ranges of a file, which together hold every row once. Does not open the file."""
    return READERS[spec.format].split(path, size, spec, range_bytes) if size or spec.format == FILES else []


def split_found(file: FileMetadata, spec: InputSpec, range_bytes: int = RANGE_BYTES) -> list[FileRange]:
    """Returns the ranges of a file of a job. It is an error if the file has changed when they are read.

    An empty file has an empty range, to see that it is still empty. A file that is a row may change: it is read whole.
    """
    found = FileState(file.size_in_bytes, file.last_updated_in_seconds)
    parts = split_file(file.path, found.size, spec, range_bytes) or [FileRange(file.path, 0, 0)]
    if spec.format == FILES:
        return parts
    return [dataclasses.replace(part, found=found) for part in parts]


def read_range(part: FileRange, spec: InputSpec) -> Iterator[tuple[Decoded, int]]:
    """Yields (rows, bytes of the stored file) of a range, in order. Never raises because of a file's contents.

    A file that cannot be read to its end yields one failure of stage "read", whose origin is the position reached. The
    rows before it are kept. If its beginning cannot be read, which all ranges need, only the first of them says so.
    Errors of the network and of the disk are raised: the runner retries them.

    Raises:
      InputChanged: the file is not what it was when it was cut. Whatever was yielded before may be wrong.
    """
    if part.stop != 0:
        yield from _read(part, spec)
    if part.found is not None:
        check_unchanged(part.path, part.found.size, part.found.changed)


def _read(part: FileRange, spec: InputSpec) -> Iterator[tuple[Decoded, int]]:
    reader = READERS[spec.format]
    reached = part.start if reader.unit == "byte" else 0
    try:
        for decoded, size, position in reader.read(part, spec):
            yield decoded.joined(), size if part.stop is not None else 0
            reached = position
    except BadBeginning as error:
        cause = _checked(error.__cause__)
        if not part.start:
            yield Decoded(failures=[file_failure(cause, part.path)]), 0
    except Exception as error:  # noqa: BLE001  see `is_file_error`
        yield Decoded(failures=[file_failure(_checked(error), f"{part.path}#{reader.unit}={reached}")]), 0
    if part.stop is None:  # of a compressed file only the whole size is known
        yield Decoded(), part.stored_bytes


def _checked(error: BaseException | None) -> Exception:
    """Returns an error for which the file is at fault; raises any other."""
    if not isinstance(error, Exception) or not is_file_error(error):
        raise error or RuntimeError("an error without a cause")
    return error
