"""The last step of a batch job: judges it, and renames what its bundles have written into place."""

import dataclasses
from collections.abc import Iterable, Iterator

import apache_beam as beam
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from models.errors import SluiceError, TooManyFailures
from transforms.beam_files import delete_files, match_files
from transforms.composite import Composite
from transforms.encode import OutputSpec
from transforms.write_files import BatchFormat, OpenShard, Shard, Target, existing_files, remove_temp


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What a job must hold to before its predictions are put in place.

    Attributes:
      max_failure_rate: failures over rows in; above it the job fails.
    """

    max_failure_rate: float

    def check(self, rows_in: int, predictions: int, failures: int) -> None:
        """
        Raises:
          TooManyFailures: above the rate.
          SluiceError: rows are missing or double.
        """
        if rows_in != predictions + failures:
            raise SluiceError(
                f"{rows_in} rows were read, and {predictions} predictions and {failures} failures written: rows are "
                "missing or double. This is a defect in Sluice or in the runner; the output is not put in place"
            )
        if rows_in and failures / rows_in > self.max_failure_rate:
            raise TooManyFailures(
                f"{failures} of {rows_in} rows failed ({failures / rows_in:.1%}), more than --max_failure_rate "
                f"{self.max_failure_rate:g} allows; the failures are written, the predictions are not"
            )


@dataclasses.dataclass(frozen=True)
class Committed:
    """What a job has written."""

    rows_in: int
    predictions: int
    failures: int
    files: tuple[str, ...]
    failure_files: tuple[str, ...]


class CommitFiles(Composite):
    """Puts the failures in place, judges the job, and puts the predictions in place.

    Args:
      shards, failure_shards: what `WriteFiles` and `WriteFailures` gave.
      tally: how many rows were read (ints to be summed).
    """

    def __init__(self, target: Target, spec: OutputSpec, failures_target: Target, judgement: Judgement) -> None:
        super().__init__()
        self._fn = _Commit(target, spec, failures_target, judgement)

    def expand(self, written: tuple[beam.PCollection, beam.PCollection, beam.PCollection]) -> beam.PCollection:
        shards, failure_shards, tally = (beam.pvalue.AsList(each) for each in written)
        begin = written[0].pipeline | "Once" >> beam.Create([0])
        return begin | "Judge" >> beam.ParDo(self._fn, shards, failure_shards, tally)


@beam.typehints.with_output_types(Committed)
class _Commit(beam.DoFn):
    def __init__(self, target: Target, spec: OutputSpec, failures_target: Target, judgement: Judgement) -> None:
        self._target = target
        self._spec = spec
        self._failures_target = failures_target
        self._judgement = judgement

    def process(
        self, _: int, shards: list[Shard], failure_shards: list[Shard], tally: list[int]
    ) -> Iterator[Committed]:
        rows_in = sum(tally)
        predictions = sum(shard.rows for shard in shards)
        failures = sum(shard.rows for shard in failure_shards)
        failure_files = put_in_place(self._failures_target, failure_shards)
        self._judgement.check(rows_in, predictions, failures)
        if not shards:  # a set of no files would look like a job that has not run
            empty = OpenShard(self._target, BatchFormat(self._spec))
            shards = [empty.finish()]
        files = put_in_place(self._target, shards)
        for target in (self._target, self._failures_target):
            remove_temp(target)
        yield Committed(rows_in, predictions, failures, tuple(files), tuple(failure_files))


def put_in_place(target: Target, shards: Iterable[Shard]) -> list[str]:
    """Renames finished files to their final names, and deletes what an earlier run left under such names.

    May be called again after it was interrupted: a file that has been renamed already is left as it is.
    """
    ordered = sorted(shards, key=lambda shard: shard.path)
    names = [target.shard(number, len(ordered)) for number in range(len(ordered))]
    for shard, name in zip(ordered, names, strict=True):
        _rename(shard, name)
    delete_files(path for path in existing_files(target) if path not in names)
    return names


def _rename(shard: Shard, name: str) -> None:
    """Renames one file over whatever has the name; another attempt at the same step may have done so already."""
    try:
        if FileSystems.exists(shard.path):
            FileSystems.rename([shard.path], [name])
            return
        reason: BeamIOError | None = None
    except BeamIOError as error:
        reason = error
    found = [file.size_in_bytes for file in match_files(name)]
    if found != [shard.size] or FileSystems.exists(shard.path):
        raise SluiceError(f"{shard.path} could not be renamed to {name}: {reason or 'it has vanished'}") from reason
