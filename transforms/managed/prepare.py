"""Rows to instances for a managed job: each row is bound and encoded before anything is paid for, and kept beside."""

import dataclasses
import logging
import uuid
from collections.abc import Iterator
from typing import Any, BinaryIO, TypeAlias, cast

import apache_beam as beam
import pyarrow as pa
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from sluice.models.endpoints.instances import encode_instances
from sluice.models.signature import Default, Signature
from sluice.models.tensors.binding import bind
from sluice.transforms.core import metrics
from sluice.transforms.core.batches import failure_of, slices, without_fed
from sluice.transforms.core.beam_files import delete_files
from sluice.transforms.core.commit import FailurePolicy
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import BIND, FAILURES, FailedOutput, Failure, count_failures, named
from sluice.transforms.core.file_contents import FileInputs, Loaded, load_files
from sluice.transforms.decode.spec import INVALID_ROW
from sluice.transforms.files.commit import rename_shards
from sluice.transforms.files.read import Read
from sluice.transforms.files.write import Shard, WriteFailureShards
from sluice.transforms.managed.kept_failures import KeptFormat
from sluice.transforms.managed.place import InstanceShard, Place, Prepared, unfinished
from sluice.transforms.managed.row_files import write_batch

_LOG = logging.getLogger(__name__)

# A shard is joined by one worker, which holds none of it but some rows; so it may be large. Files of this size are read
# by the service side by side.
MAX_SHARD_ROWS, MAX_SHARD_BYTES = 65_536, 64 << 20
# What is bound and encoded at once; as JSON it may be some times as large.
_MAX_BATCH_BYTES = 8 << 20


@dataclasses.dataclass(frozen=True)
class Encoding:
    """What makes an instance of a row. Picklable.

    Attributes:
      uri, version: the model's, for failures.
      defaults: (column, value) pairs: what replaces nulls.
      contents: inputs that get what is in files; None: there are none.
    """

    uri: str
    signature: Signature
    defaults: tuple[tuple[str, Default], ...] = ()
    contents: FileInputs | None = None
    version: int | None = None


class PrepareInstances(Composite):
    """Writes rows, as a reader returns them, into a `Place`; the last step writes its record, `Prepared`."""

    def __init__(
        self, place: Place, encoding: Encoding, max_rows: int = MAX_SHARD_ROWS, max_bytes: int = MAX_SHARD_BYTES
    ) -> None:
        super().__init__()
        self._place = place
        self._encoding = encoding
        self._write = _WriteInstances(place, encoding, max_rows, max_bytes)

    def expand(self, read: Read) -> beam.PCollection:
        written = read.rows | "Instances" >> beam.ParDo(self._write).with_outputs(FAILURES, main="shards")
        keep = WriteFailureShards(self._place.failures, KeptFormat())
        failures = read.failures | "NameModel" >> beam.Map(named, self._encoding.uri, self._encoding.version)
        unread, unbound = failures | "Unread" >> keep, written[FAILURES] | "Unbound" >> keep
        begin = written.shards.pipeline | "Once" >> beam.Create([0])
        parts = (written.shards, unread, unbound, read.tally)
        return begin | "Record" >> beam.ParDo(_Record(self._place), *map(beam.pvalue.AsList, parts))


_Written: TypeAlias = InstanceShard | FailedOutput | WindowedValue


@beam.typehints.with_output_types(InstanceShard)
class _WriteInstances(beam.DoFn):
    """Counts: rows_prepared, rows_failed."""

    def __init__(self, place: Place, encoding: Encoding, max_rows: int, max_bytes: int) -> None:
        self._place, self._encoding = place, encoding
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self._open: _OpenShard | None = None

    def start_bundle(self) -> None:
        self.teardown()

    def process(self, batch: pa.RecordBatch) -> Iterator[_Written]:
        contents = self._encoding.contents
        for rows, failures in load_files(batch, contents) if contents else (Loaded(batch, []),):
            yield from _failed([named(each, self._encoding.uri, self._encoding.version) for each in failures])
            if rows is not None:
                parts = -(-rows.nbytes // _MAX_BATCH_BYTES) or 1
                for part in slices(rows, -(-rows.num_rows // parts)):
                    yield from self._write(part)

    def _write(self, batch: pa.RecordBatch) -> Iterator[_Written]:
        encoding = self._encoding
        bound = bind(batch, encoding.signature, dict(encoding.defaults))
        yield from _failed(
            [
                failure_of(batch, row, BIND, INVALID_ROW, text, encoding.uri, encoding.version)
                for row, text in bound.errors.items()
            ]
        )
        kept = without_fed(batch)
        if bound.errors:
            kept = kept.filter(pa.array(~bound.bad_mask))
        if kept.num_rows:
            self._open = self._open or _OpenShard(self._place)
            shard = self._open
            shard.write(kept, encode_instances(bound, encoding.signature, shard.id, shard.rows))
            metrics.count(metrics.ROWS_PREPARED, kept.num_rows)
            if shard.rows >= self._max_rows or shard.size >= self._max_bytes:
                yield self._finish(shard)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._open is not None:
            yield WindowedValue(self._finish(self._open), GlobalWindow().max_timestamp(), [GlobalWindow()])

    def _finish(self, shard: "_OpenShard") -> InstanceShard:
        self._open = None
        return shard.finish()

    def teardown(self) -> None:
        left, self._open = self._open, None
        if left is not None:
            left.drop()


def _failed(failures: list[Failure]) -> Iterator[FailedOutput]:
    count_failures(failures)
    yield from (beam.pvalue.TaggedOutput(FAILURES, failure) for failure in failures)


class _OpenShard:
    """An unfinished file of instances, and the file of their rows."""

    def __init__(self, place: Place) -> None:
        self.id = uuid.uuid4().hex[:16]
        self.rows = self.size = 0
        self._paths = (unfinished(place.instances, self.id), place.rows(self.id))
        self._instances, self._rows = map(create, self._paths)

    def write(self, batch: pa.RecordBatch, instances: list[bytes]) -> None:
        data = b"\n".join(instances) + b"\n"
        self._instances.write(data)
        write_batch(self._rows, batch)
        self.rows, self.size = self.rows + batch.num_rows, self.size + len(data)

    def finish(self) -> InstanceShard:
        self._close()
        return InstanceShard(self.id, self.rows, self.size)

    def drop(self) -> None:
        """Deletes the files of a failed bundle. An error is logged only: it must not fail the next bundle."""
        try:
            self._close()
            delete_files(self._paths)
        except Exception as error:  # noqa: BLE001
            _LOG.warning("Files of a failed bundle are left behind: %s", error)

    def _close(self) -> None:
        self._instances.close()
        self._rows.close()


def create(path: str) -> BinaryIO:
    """Opens a new file."""
    return cast(BinaryIO, FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED))


@beam.typehints.with_output_types(Prepared)
class _Record(beam.DoFn):
    """Gives the instances of bundles that succeeded their names, and writes the record last."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def process(
        self, _: int, shards: list[InstanceShard], unread: list[Shard], unbound: list[Shard], tally: list[int]
    ) -> Iterator[Any]:
        ordered = sorted(set(shards))
        failed = sorted({*unread, *unbound}, key=lambda shard: shard.path)
        prepared = Prepared(sum(tally), tuple(ordered), tuple(shard.path for shard in failed))
        FailurePolicy(1.0).check(prepared.rows_in, prepared.rows, sum(shard.rows for shard in failed))
        target = self._place.instances
        rename_shards(target, [Shard(unfinished(target, each.id), each.rows, each.size) for each in ordered])
        prepared.write(self._place)
        yield prepared
