"""Looks through the results of a managed job: where the answers to each shard stand, and which rows have none.

The rows themselves are not read here. A row without an answer is written again as an instance, for a second job: where
one row fails, the service gives up the whole batch that the row is in, and a file of results may be lost.
"""

import dataclasses
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Literal, TypeAlias

import apache_beam as beam
import numpy as np
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from sluice.transforms.core.beam_files import match_files, open_binary
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.formats import JSONL
from sluice.transforms.decode.lines import read_blocks
from sluice.transforms.decode.ranges import RANGE_BYTES, FileRange, split_evenly
from sluice.transforms.decode.spec import InputSpec
from sluice.transforms.files.commit import rename_shards
from sluice.transforms.files.write import Shard, Target
from sluice.transforms.managed.answer_lines import Found, answered_rows, find_stretches
from sluice.transforms.managed.place import Answers, Place, Prepared, gone, unfinished, write_stretches
from sluice.transforms.managed.prepare import create

AGAIN, FOUND = "again", "found"
_AgainOutput: TypeAlias = beam.pvalue.TaggedOutput[Literal["again"], Shard]


@dataclasses.dataclass(frozen=True)
class Known:
    """What was prepared of a shard: the path of its instances, and their number."""

    instances: str
    rows: int


@dataclasses.dataclass(frozen=True)
class ShardAnswers:
    """How many rows of a shard have an answer and how many have none."""

    shard: str
    answered: int
    missing: int


class FindAnswers(Composite):
    """Looks through the results of one job and writes their record, `Answers`.

    Args:
      job: the job's own ID.
      directory: the service's own, with its files of results; "": there is none.
      again: rows without an answer are written for a second job.
    """

    def __init__(
        self, place: Place, job: str, directory: str, again: bool = True, range_bytes: int = RANGE_BYTES
    ) -> None:
        super().__init__()
        self._place, self._job = place, job
        name = uuid.uuid4().hex
        self._found, self._again = f"{FOUND}-{name}", f"{AGAIN}-{name}" if again else ""
        self._split = _SplitResults(directory, range_bytes)

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection:
        parts = pbegin | "Results" >> beam.Create([0]) | "Split" >> beam.ParDo(self._split)
        found = parts | "Spread" >> beam.Reshuffle() | "Find" >> beam.ParDo(_Find(self._place))
        known = pbegin | "Prepared" >> beam.Create([0]) | "Shards" >> beam.ParDo(_Shards(self._place))
        by_shard = (found, known) | "Both" >> beam.Flatten() | "Shard" >> beam.GroupByKey()
        compare = beam.ParDo(_Compare(self._place, self._found, self._again))
        seen = by_shard | "Compare" >> compare.with_outputs(AGAIN, main="answers")
        begin = pbegin | "Once" >> beam.Create([0])
        record = _Record(self._place, self._job, self._found, self._again)
        return begin | "Record" >> beam.ParDo(record, *map(beam.pvalue.AsList, (seen.answers, seen[AGAIN])))


def result_files(directory: str) -> list[tuple[str, int]]:
    """Returns (path, bytes) of the service's files of results; other files are of errors."""
    return [(file.path, file.size_in_bytes) for file in match_files(f"{directory}/prediction.results-*")]


class _SplitResults(beam.DoFn):
    def __init__(self, directory: str, range_bytes: int) -> None:
        self._directory, self._range_bytes = directory, range_bytes

    def process(self, _: int) -> Iterator[FileRange]:
        spec = InputSpec(JSONL, ())
        for path, size in result_files(self._directory) if self._directory else ():
            if size:
                yield from split_evenly(path, size, spec, self._range_bytes)


@beam.typehints.with_output_types(tuple[str, Any])
class _Find(beam.DoFn):
    def __init__(self, place: Place) -> None:
        self._place = place

    def process(self, part: FileRange) -> Iterator[tuple[str, Found]]:
        return find_stretches(part, lambda: self._place.sorted(uuid.uuid4().hex), create)


@beam.typehints.with_output_types(tuple[str, Any])
class _Shards(beam.DoFn):
    def __init__(self, place: Place) -> None:
        self._place = place

    def process(self, _: int) -> Iterator[tuple[str, Known]]:
        shards = read_prepared(self._place).shards
        for number, shard in enumerate(shards):
            yield shard.id, Known(self._place.instances.shard(number, len(shards)), shard.rows)


def read_prepared(place: Place) -> Prepared:
    """Returns what was prepared in a place.

    Raises:
      SluiceError: its record is gone.
    """
    prepared = Prepared.read(place)
    if prepared is None:
        raise gone(place.prepared)
    return prepared


@beam.typehints.with_output_types(ShardAnswers)
class _Compare(beam.DoFn):
    """Compares the answers to a shard with its rows; notes where they stand, and copies instances that have none."""

    def __init__(self, place: Place, found: str, again: str) -> None:
        self._place, self._found, self._again = place, found, again
        self._open: _AgainFile | None = None

    def start_bundle(self) -> None:
        self._open = None

    def process(self, element: tuple[str, Iterable[Any]]) -> Iterator[ShardAnswers | _AgainOutput]:
        shard, values = element
        both = list(values)
        known = next((each for each in both if isinstance(each, Known)), None)
        found = [each for each in both if isinstance(each, Found)]
        if known is None:  # a key that is not of this job
            return
        answered = answered_rows(found, known.rows)
        if self._again and not answered.all():
            self._open = self._open or _AgainFile(self._place.again(self._again))
            self._open.copy(known.instances, ~answered)
        write_stretches(self._place.found(self._found, shard), sorted(each.stretch for each in found))
        yield ShardAnswers(shard, int(answered.sum()), int((~answered).sum()))

    def finish_bundle(self) -> Iterator[Any]:
        if self._open is not None:
            shard, self._open = self._open.finish(), None
            whole = WindowedValue(shard, GlobalWindow().max_timestamp(), [GlobalWindow()])
            yield beam.pvalue.TaggedOutput(AGAIN, whole)


class _AgainFile:
    """An unfinished file of instances for the second job."""

    def __init__(self, target: Target) -> None:
        self._path = unfinished(target, uuid.uuid4().hex)
        self._file: BinaryIO = create(self._path)
        self._rows = self._size = 0

    def copy(self, path: str, chosen: np.ndarray) -> None:
        """Copies the chosen (bool [lines]) lines of a file of instances."""
        row = 0
        with open_binary(path) as file:
            for block in read_blocks(file):
                keep = chosen[row : row + len(block)]
                if keep.any():
                    data = block.take(keep).data
                    self._file.write(data)
                    self._rows, self._size = self._rows + int(keep.sum()), self._size + len(data)
                row += len(block)

    def finish(self) -> Shard:
        self._file.close()
        return Shard(self._path, self._rows, self._size)


@beam.typehints.with_output_types(Answers)
class _Record(beam.DoFn):
    """Gives the instances for the second job their names, and writes the record last."""

    def __init__(self, place: Place, job: str, found: str, again: str) -> None:
        self._place, self._job, self._found, self._again = place, job, found, again

    def process(self, _: int, shards: list[ShardAnswers], again: list[Shard]) -> Iterator[Answers]:
        if self._again:
            rename_shards(self._place.again(self._again), again)
        answers = Answers(
            answered=sum(each.answered for each in shards),
            missing=sum(each.missing for each in shards),
            found=self._found,
            again=self._again,
        )
        answers.write(self._place, self._job)
        yield answers
