"""Where the files of a managed job lie while it is under way, and the two records that say which of them count.

A preparation has a directory of its own, so that two commands never write into each other's files:

    prepared.json              the shards that the job is to score; written last, so that it stands for all the rest
    instances/part-N-of-M.jsonl    what the service reads
    rows/SHARD.rows            the same rows as they were read, see transforms.managed.row_files
    failures/ID.jsonl          rows that failed before, see transforms.managed.kept_failures
    results/                   what the service writes
    answers-JOB.json           what a job of the service has answered; written last
    found-ID/SHARD.json        where the answers to a shard stand; ID is of the Beam job that looked for them
    again-ID/part-N-of-M.jsonl instances without an answer, for a second job; ID likewise
    sorted/ID.jsonl            copies of answers that stood too scattered
"""

import dataclasses
import json
import os
import uuid
from collections.abc import Sequence
from typing import Any, Self

from sluice.models.errors import SluiceError
from sluice.transforms.core.beam_files import match_files, open_binary, write_text
from sluice.transforms.files.write import Target

_SUFFIX = ".jsonl"


@dataclasses.dataclass(frozen=True)
class Place:
    """The directory of a preparation."""

    directory: str

    @property
    def prepared(self) -> str:
        """The path of the record of what was prepared."""
        return f"{self.directory}/prepared.json"

    def answers(self, job: str) -> str:
        """Returns the path of the record of the answers of a job of the service; it has the job's own ID."""
        return f"{self.directory}/answers-{job}.json"

    @property
    def results(self) -> str:
        """The prefix for the service's own directories of results."""
        return f"{self.directory}/results"

    @property
    def instances(self) -> Target:
        """The files that the service reads."""
        return Target(f"{self.directory}/instances/part", _SUFFIX, f"{self.directory}/instances")

    def again(self, name: str) -> Target:
        """Returns the files that the second job reads: of two commands each writes under a name of its own."""
        return Target(f"{self.directory}/{name}/part", _SUFFIX, f"{self.directory}/{name}")

    def found(self, name: str, shard: str) -> str:
        """Returns the path of the record where the answers to a shard stand.

        Args:
          name: see Answers.found.
        """
        return f"{self.directory}/{name}/{shard}.json"

    def rows(self, shard: str) -> str:
        """Returns the path of the rows of a shard."""
        return f"{self.directory}/rows/{shard}.rows"

    @property
    def failures(self) -> Target:
        """The files of rows that failed; they keep their temporary names."""
        return Target(f"{self.directory}/failures/part", _SUFFIX, f"{self.directory}/failures")

    def sorted(self, name: str) -> str:
        """Returns the path of a copy of answers in order."""
        return f"{self.directory}/sorted/{name}{_SUFFIX}"


def unfinished(target: Target, name: str) -> str:
    """Returns the temporary path of a file of a target: the service, which reads part-*, does not see it."""
    return f"{target.temp}/{name}{target.suffix}"


@dataclasses.dataclass(frozen=True, order=True)
class InstanceShard:
    """Rows that were prepared together.

    Attributes:
      id: the first part of their keys.
      size: bytes of their instances.
    """

    id: str
    rows: int
    size: int


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What a preparation has come to.

    Attributes:
      rows_in: that were read: those of the shards, and those that failed.
      shards: in the order of their files of instances.
      failures: the paths of files of failed rows.
    """

    rows_in: int
    shards: tuple[InstanceShard, ...]
    failures: tuple[str, ...]

    @property
    def rows(self) -> int:
        """How many rows there are to score."""
        return sum(shard.rows for shard in self.shards)

    def write(self, place: Place) -> None:
        """Makes the preparation count."""
        shards = [[shard.id, shard.rows, shard.size] for shard in self.shards]
        record = {"rows_in": self.rows_in, "shards": shards, "failures": self.failures}
        _write(place.prepared, record)

    @classmethod
    def read(cls, place: Place) -> Self | None:
        """Returns what a preparation has come to; None: it has not ended."""
        record = _read(place.prepared)
        if record is None:
            return None
        shards = tuple(InstanceShard(*each) for each in record["shards"])
        return cls(record["rows_in"], shards, tuple(record["failures"]))


@dataclasses.dataclass(frozen=True, order=True)
class Stretch:
    """Answers to one shard that stand one after the other in a file: its bytes [start, stop)."""

    path: str
    start: int
    stop: int


def write_stretches(path: str, stretches: Sequence[Stretch]) -> None:
    """Writes where the answers to one shard stand: a record of its own, because it grows where they are scattered."""
    _write(path, [dataclasses.astuple(each) for each in stretches])


def read_stretches(path: str) -> tuple[Stretch, ...]:
    """Returns where the answers to a shard stand.

    Raises:
      SluiceError: the record is gone.
    """
    record = _read(path)
    if record is None:
        raise gone(path)
    return tuple(Stretch(*each) for each in record)


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a job of the service has answered.

    Attributes:
      answered: how many rows have an answer.
      missing: how many have none, of all rows that were prepared.
      found: the name of the directory with the records of the shards, see `read_stretches`.
      again: the name of the directory with the instances that have none; "": they were not wanted.
    """

    answered: int
    missing: int
    found: str
    again: str = ""

    def write(self, place: Place, job: str) -> None:
        """Makes the record count."""
        _write(place.answers(job), dataclasses.asdict(self))

    @classmethod
    def read(cls, place: Place, job: str) -> Self | None:
        """Returns the answers of a job of the service; None: they have not been looked through to the end."""
        record = _read(place.answers(job))
        return None if record is None else cls(**record)


def _write(path: str, record: object) -> None:
    """Writes a record whole or not at all; on gs:// every file is written so."""
    partial = path if "://" in path else f"{path}.{uuid.uuid4().hex}.partial"
    write_text(partial, json.dumps(record))
    if partial != path:
        os.replace(partial, path)


def _read(path: str) -> Any:
    if not match_files(path):
        return None
    with open_binary(path) as file:
        return json.loads(file.read())


def gone(path: str) -> SluiceError:
    """Returns the error for a record that was there before: without it, rows would seem to have no answer."""
    return SluiceError(f"{path} is gone: was it deleted, or has another command ended this job?")
