"""The last step of a batch job: checks the failure rate, then publishes the output of its bundles."""

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam

from sluice.models.errors import SluiceError, TooManyFailures
from sluice.transforms.core import metrics
from sluice.transforms.core.commit_gate import CommitGate
from sluice.transforms.core.committer import Committer
from sluice.transforms.core.composite import Composite

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class FailurePolicy:
    """The condition under which a job publishes its predictions.

    Attributes:
      max_failure_rate: failures divided by rows read. Above it the job fails.
    """

    max_failure_rate: float

    def check(self, rows_in: int, predictions: int, failures: int) -> None:
        """Checks the counts of a job.

        Raises:
          TooManyFailures: the failure rate is too high.
          SluiceError: rows are missing or duplicated.
        """
        if rows_in != predictions + failures:
            raise SluiceError(
                f"{rows_in} rows were read, and {predictions} predictions and {failures} failures written: rows are "
                "missing or duplicated. This is a defect in Sluice or in the runner; the output is not put in place"
            )
        if rows_in and failures / rows_in > self.max_failure_rate:
            raise TooManyFailures(
                f"{failures} of {rows_in} rows failed ({failures / rows_in:.1%}), more than --max_failure_rate "
                f"{self.max_failure_rate:g} allows; the failures are written, the predictions are not"
            )


@dataclasses.dataclass(frozen=True)
class Committed:
    """What a job has published. A table has no files."""

    rows_in: int
    predictions: int
    failures: int
    files: tuple[str, ...]
    failure_files: tuple[str, ...]


class Commit(Composite):
    """Publishes the failures, checks the failure rate, and publishes the predictions.

    Each row is published once, however often this step is retried and wherever it is interrupted.

    The input is a tuple: the parts for `committer`, those for each of `failure_committers`, and the number of rows read
    (ints, to be summed).

    Args:
      committer: publishes the predictions.
      failure_committers: publish the failures; each publishes all of them.
      gate: refuses the commit once it is closed. Each job has a gate of its own.
    """

    def __init__(
        self,
        committer: Committer,
        failure_committers: Sequence[Committer],
        policy: FailurePolicy,
        gate: CommitGate | None = None,
    ) -> None:
        super().__init__()
        self._fn = _Commit(committer, tuple(failure_committers), policy, gate or CommitGate())

    def expand(self, written: tuple[beam.PCollection, ...]) -> beam.PCollection:
        begin = written[0].pipeline | "Once" >> beam.Create([0])
        return begin | "Judge" >> beam.ParDo(self._fn, *(beam.pvalue.AsList(each) for each in written))


@beam.typehints.with_output_types(Committed)
class _Commit(beam.DoFn):
    """Counts: commits_begun, commits_done."""

    def __init__(
        self, committer: Committer, failure_committers: tuple[Committer, ...], policy: FailurePolicy, gate: CommitGate
    ) -> None:
        self._committer = committer
        self._failure_committers = failure_committers
        self._policy = policy
        self._gate = gate

    def process(self, _: int, parts: list[Any], *others: list[Any]) -> Iterator[Committed]:
        *failure_parts, tally = others
        rows_in, predictions = sum(tally), _rows(parts)
        counts = [_rows(each) for each in failure_parts] or [0]
        self._claim(parts, failure_parts)
        failure_files: list[str] = []
        for committer, each in zip(self._failure_committers, failure_parts, strict=True):
            failure_files += committer.commit(each)
        try:
            for failures in counts:
                self._policy.check(rows_in, predictions, failures)
        except SluiceError:
            self._clean_up()
            raise
        files = self._commit(parts)
        self._clean_up()
        yield Committed(rows_in, predictions, counts[0], tuple(files), tuple(failure_files))

    def _claim(self, parts: list[Any], failure_parts: list[list[Any]]) -> None:
        """Claims every place before anything is published, so that a job which must stop leaves nothing."""
        try:
            self._committer.claim(parts)
            for committer, each in zip(self._failure_committers, failure_parts, strict=True):
                committer.claim(each)
        except SluiceError:
            self._clean_up()
            raise

    def _commit(self, parts: list[Any]) -> Sequence[str]:
        if not self._gate.begin():
            raise SluiceError("the job was interrupted before its output was put in place")
        metrics.count(metrics.COMMITS_BEGUN)
        files = self._committer.commit(parts)
        self._gate.finish()
        metrics.count(metrics.COMMITS_DONE)
        return files

    def _clean_up(self) -> None:
        clean_up((self._committer, *self._failure_committers))


def clean_up(committers: Iterable[Committer]) -> None:
    """Removes the temporary files and tables. An error is logged only: the outcome of the job is known by now."""
    for committer in committers:
        try:
            committer.clean_up()
        except Exception as error:  # noqa: BLE001
            _LOG.warning("Temporary files or tables are left behind: %s", error)


def _rows(parts: Sequence[Any]) -> int:
    return sum(part.rows for part in set(parts))
