"""`ObserveInputs` and `ObserveOutputs`: RecordBatches pass unchanged, and are looked at for a report."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

import apache_beam as beam
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindows

from sluice.models.signature import Signature
from sluice.transforms.core.beam_files import delete_tree, match_files, open_binary, write_text
from sluice.transforms.core.observed import MAX_COLUMNS, Record, observed
from sluice.transforms.core.observed_file import from_json, to_json

_NOT_NUMBERS = ("string", "complex64", "complex128")

_SEEN = "seen"
_Seen: TypeAlias = beam.pvalue.TaggedOutput[Literal["seen"], Record]


@dataclasses.dataclass(frozen=True)
class Watched:
    """The columns that are looked at: those of numbers, up to MAX_COLUMNS of each kind. Picklable.

    Attributes:
      directory: workers of other processes leave there what they have seen; "": rows pass through this process.
      private: no value of a single row may be in what they leave.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    directory: str = ""
    private: bool = False


def watched_columns(signature: Signature, output_prefix: str, private: bool = False) -> Watched:
    """Returns the columns of a model that are numbers, as they are called in batches before and after it."""
    inputs = [spec.name for spec in signature.columns if spec.dtype not in _NOT_NUMBERS]
    outputs = [output_prefix + spec.name for spec in signature.outputs if spec.dtype not in _NOT_NUMBERS]
    return Watched(tuple(inputs[:MAX_COLUMNS]), tuple(outputs[:MAX_COLUMNS]), private=private)


def collect(watched: Watched) -> Record:
    """Returns what has been seen of the rows of a job that has ended, in this process or elsewhere."""
    record = observed().take()
    if not watched.directory:
        return record
    files = match_files(f"{watched.directory}/*.json")
    for file in files:
        with open_binary(file.path) as opened:
            record.merge(from_json(opened.read()))
    if files:
        delete_tree(watched.directory)
    return record


class ObserveInputs(beam.PTransform):
    """Looks at the columns of numbers that a model is fed."""

    def __init__(self, watched: Watched) -> None:
        super().__init__()
        self._watched = watched

    def expand(self, batches: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        return _passed(batches, _SeeInputs(self._watched), self._watched, "inputs")


class ObserveOutputs(beam.PTransform):
    """Looks at the columns of numbers that a model has answered, at their versions, and at how many rows pass when."""

    def __init__(self, watched: Watched) -> None:
        super().__init__()
        self._watched = watched

    def expand(self, batches: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        return _passed(batches, _SeeOutputs(self._watched), self._watched, "outputs")


def _passed(
    batches: beam.PCollection, look: beam.DoFn, watched: Watched, name: str
) -> beam.PCollection[pa.RecordBatch]:
    """Returns the batches. In a job of other processes, what they have seen becomes a file."""
    if not watched.directory:
        return batches | "Look" >> beam.ParDo(look)
    passed = batches | "Look" >> beam.ParDo(look).with_outputs(_SEEN, main="rows")
    merged = passed[_SEEN] | "Merge" >> beam.CombineGlobally(_Merge()).without_defaults()
    merged | "Write" >> beam.ParDo(_Write(f"{watched.directory}/{name}.json", watched.private))
    return passed.rows


class _Look(beam.DoFn):
    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    def finish_bundle(self) -> Iterator[_Seen]:
        if self._watched.directory:
            yield beam.pvalue.TaggedOutput(_SEEN, GlobalWindows.windowed_value(observed().take()))


class _SeeInputs(_Look):
    def process(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        observed().see_inputs(batch, self._watched.inputs)
        yield batch


class _SeeOutputs(_Look):
    def process(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        observed().see_outputs(batch, self._watched.outputs)
        yield batch


class _Merge(beam.CombineFn):
    def create_accumulator(self) -> Record:
        return Record()

    def add_input(self, mutable_accumulator: Record, element: Record) -> Record:
        mutable_accumulator.merge(element)
        return mutable_accumulator

    def merge_accumulators(self, accumulators: Iterable[Record]) -> Record:
        merged = Record()
        for each in accumulators:
            merged.merge(each)
        return merged

    def extract_output(self, accumulator: Record) -> Record:
        return accumulator


class _Write(beam.DoFn):
    def __init__(self, path: str, private: bool) -> None:
        self._path, self._private = path, private

    def process(self, record: Record) -> None:
        write_text(self._path, to_json(record, self._private))
