"""Scores dicts, NamedTuples and beam.Rows with a model, as a DoFn."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.transforms.window import BoundedWindow
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from sluice.models.batching.tickets import Prediction
from sluice.models.errors import BIND, FailedRow
from sluice.models.tensors.binding import Group
from sluice.transforms.core.failures import FAILURES, Failure
from sluice.transforms.core.outputs import score_rows
from sluice.transforms.core.render import json_payload
from sluice.transforms.core.rows import fields_of, input_columns, joined, listed, row_bytes, to_batch
from sluice.transforms.predict.batches import PredictBatches, Work

# The column that holds the place of a row among those of its work.
_PLACE = "_sluice_place"


@dataclasses.dataclass
class _Row:
    row: Any
    windows: tuple[BoundedWindow, ...]
    timestamp: Timestamp


@dataclasses.dataclass
class _RowsWork(Work):
    """Rows that have been submitted together. `batch` has the columns of the model only.

    Attributes:
      size: the bytes of the rows, with all of their fields.
    """

    rows: list[_Row]
    size: int

    @property
    def nbytes(self) -> int:
        return self.batch.nbytes + self.size


@beam.typehints.with_output_types(Any, failures=Failure)
class PredictRows(PredictBatches):
    """Gathers the rows of a bundle into batches. Each row keeps its own windows and time.

    RecordBatches are taken too: of elements without a type hint it is not known before what they are.
    """

    def start_bundle(self) -> None:
        self._gathered: list[_Row] = []
        self._gathered_bytes = 0
        super().start_bundle()

    def process(
        self,
        row: Any,
        window: BoundedWindow = beam.DoFn.WindowParam,
        timestamp: Timestamp = beam.DoFn.TimestampParam,
    ) -> Iterator[Any]:
        if isinstance(row, pa.RecordBatch):
            yield from super().process(row, window, timestamp)
            return
        self._gathered.append(_Row(row, (window,), timestamp))
        self._gathered_bytes += row_bytes(row)
        options = self._scheduler.options
        if len(self._gathered) >= options.max_batch_size or self._gathered_bytes >= options.max_batch_bytes:
            yield from self._flush()

    def finish_bundle(self) -> Iterator[Any]:
        if self._gathered:
            yield from self._flush()
        yield from super().finish_bundle()

    def _flush(self) -> Iterator[Any]:
        rows, size, self._gathered, self._gathered_bytes = self._gathered, self._gathered_bytes, [], 0
        batch, misfits = to_batch([each.row for each in rows], self._scheduler.model.signature)
        if misfits:
            version = self._scheduler.version
            failed = [FailedRow(place, BIND, "InvalidRow", text, version) for place, text in sorted(misfits.items())]
            failures = [self._failure(each, rows[each.row].row) for each in failed]
            self._record(None, failures, [])
            yield from _tagged(failures, [rows[each.row] for each in failed])
            kept = [place for place in range(len(rows)) if place not in misfits]
            rows, batch = [rows[place] for place in kept], batch.take(pa.array(kept, pa.int64()))
        if rows:
            errors, tickets = self._submit(batch)
            yield from self._add(_RowsWork(batch, errors, tickets, (), rows[0].timestamp, rows, size))

    def _outputs(self, work: Work, predictions: list[tuple[Group, Prediction]]) -> Iterator[Any]:
        if not isinstance(work, _RowsWork):
            yield from super()._outputs(work, predictions)
            return
        model = self._scheduler.model
        places = pa.RecordBatch.from_arrays([pa.array(np.arange(len(work.rows)))], [_PLACE])
        scored, failed = score_rows(
            places, work.errors, predictions, model.signature, model.uri, self._prefix, self._scheduler.version
        )
        failures = [self._failure(each, work.rows[each.row].row) for each in failed]
        self._record(scored, failures, predictions)
        for answer in scored.to_pylist() if scored is not None else ():
            row = work.rows[answer.pop(_PLACE)]
            yield WindowedValue(self._joined(row.row, answer), row.timestamp, row.windows)
        yield from _tagged(failures, [work.rows[each.row] for each in failed])

    def _joined(self, row: Any, answer: Mapping[str, Any]) -> Any:
        """Returns a dict with the answer added; of a NamedTuple or a Row, a Row."""
        fields = joined(self._fields(row), answer)
        return fields if isinstance(row, Mapping) or fields_of(row) is None else beam.Row(**fields)

    def _fields(self, row: Any) -> Mapping[str, Any]:
        fields = fields_of(row)
        return {input_columns(self._scheduler.model.signature)[0].name: row} if fields is None else fields

    def _failure(self, failed: FailedRow, row: Any) -> Failure:
        payload = json_payload({str(name): listed(value) for name, value in self._fields(row).items()})
        return Failure(
            failed.stage,
            failed.error_type,
            failed.error_message,
            "",
            payload,
            model=self._scheduler.model.uri,
            version=failed.version,
        )


def _tagged(failures: Sequence[Failure], rows: Sequence[_Row]) -> Iterator[beam.pvalue.TaggedOutput]:
    for failure, row in zip(failures, rows, strict=True):
        yield beam.pvalue.TaggedOutput(FAILURES, WindowedValue(failure, row.timestamp, row.windows))
