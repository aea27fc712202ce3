"""`WriteFiles` and `WriteFailures`: files that appear when all of them are whole."""

import os
from typing import NamedTuple

import apache_beam as beam
import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.pipelines.library.parts import in_one_window, job_name
from sluice.pipelines.plan.batch_sinks import check_files
from sluice.pipelines.plan.model import launch_errors
from sluice.pipelines.plan.output_paths import failures_target, parse_output
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import FULL, PAYLOAD_MODES, Failure
from sluice.transforms.files.claim import read_claim
from sluice.transforms.files.commit import FilesCommitter
from sluice.transforms.files.open_file import FirstBatchFormat
from sluice.transforms.files.publish import Publish
from sluice.transforms.files.row_batches import GatherRows
from sluice.transforms.files.write import Target, WriteFailureShards, WriteShards


class Written(NamedTuple):
    """The outputs of `WriteFiles`: the names of its files, and the `Failure`s of rows that the format cannot hold."""

    files: beam.PCollection
    failures: beam.PCollection


class WriteFiles(Composite):
    """Writes rows to files: PREFIX-00000-of-00003.csv and so on.

    Accepts RecordBatches, or single rows: dicts, NamedTuples or beam.Rows, which cost more. The files appear when all
    rows are written; a job that fails leaves none. All batches must have the same columns; those whose names begin with
    `_sluice_` are left out. Without any row there is no file, because nobody knows then which columns it would have.

    Args:
      path: the name of the files, whose ending is their format; or a directory, with a slash at its end.
      format: "csv", "jsonl", "parquet", "avro" or "tfrecord"; "": by the ending.
      overwrite: replace files of these names. Otherwise they are an error when the pipeline is built.
      flatten: of CSV: write a list as JSON text in one field.
      schema: the columns of single rows. Without it each batch of them has the names and types of its values, which may
        differ from those of the next: whole numbers in one and fractions in the other, say, are an error.

    Raises:
      UsageError: files are there, or none can be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        format: str = "",
        overwrite: bool = False,
        flatten: bool = False,
        schema: pa.Schema | None = None,
    ) -> None:
        super().__init__()
        self._destination = parse_output(os.fspath(path), format)
        self._overwrite, self._flatten, self._schema = overwrite, flatten, schema

    def expand(self, rows: beam.PCollection) -> Written:
        committer = _committer(self._destination.target(job_name()), self._overwrite, rows)
        batches = in_one_window(rows, "Unwindow")
        if rows.element_type is not pa.RecordBatch:
            batches = batches | "Gather" >> beam.ParDo(GatherRows(self._schema))
        format_ = FirstBatchFormat(self._destination.format, self._flatten)
        shards, failures = batches | "Write" >> WriteShards(committer.target, format_)
        return Written((shards, batches) | "Publish" >> Publish(committer, committer.target.prefix), failures)


class WriteFailures(Composite):
    """Writes failures as JSON Lines, like `WriteFiles`; returns the names of the files.

    Accepts a PCollection of failures, or a tuple of them: those of reading and of predicting, say.

    Args:
      path: the name of the files; `.jsonl` is added to a name without an ending.
      payload: what a failure keeps of its row: "full": the whole row, "hash": its SHA-256, or "none".
      overwrite: see WriteFiles.

    Raises:
      UsageError: see WriteFiles.
    """

    def __init__(self, path: str | os.PathLike[str], *, payload: str = FULL, overwrite: bool = False) -> None:
        super().__init__()
        if payload not in PAYLOAD_MODES:
            raise UsageError(f"payload is {payload!r}; give one of {', '.join(PAYLOAD_MODES)}")
        self._path, self._payload, self._overwrite = os.fspath(path), payload, overwrite

    def expand(self, failures: beam.PCollection[Failure] | tuple[beam.PCollection[Failure], ...]) -> beam.PCollection:
        parts = failures if isinstance(failures, tuple) else (failures,)
        committer = _committer(failures_target(self._path, job_name()), self._overwrite, *parts)
        parts = tuple(in_one_window(part, f"Unwindow{place}") for place, part in enumerate(parts))
        writer = WriteFailureShards(committer.target, self._payload)
        # A Flatten before the writer would hold all failures in memory on a local runner.
        shards = [part | f"Write{place}" >> writer for place, part in enumerate(parts)] | "Parts" >> beam.Flatten()
        return (shards,) | "Publish" >> Publish(committer, committer.target.prefix)


def _committer(target: Target, overwrite: bool, *collections: beam.PCollection) -> FilesCommitter:
    if not all(collection.is_bounded for collection in collections):
        raise UsageError(
            f"{target.prefix}: these files appear when all rows are written, and a stream does not end; write it with "
            "WriteStreamFiles or WriteFailureFiles"
        )
    with launch_errors():
        check_files(target, overwrite)
        return FilesCommitter(target, None, overwrite, read_claim(target) if overwrite else "")
