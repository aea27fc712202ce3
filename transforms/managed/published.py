"""The answers of a managed job appended to a table once, whichever commands join them.

Every command that joins appends under names of its own, so the table cannot tell that another one has done so. Two
files beside the preparations do: a claim, held while a command publishes, and a record, written once the rows are in.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from sluice.models.errors import SluiceError
from sluice.transforms.core.beam_files import match_files, open_binary, write_text
from sluice.transforms.core.committer import Committer
from sluice.transforms.files.claim import claim, claim_path, release
from sluice.transforms.files.write import Target
from sluice.transforms.managed.place import Place


def record_path(directory: str) -> str:
    """Returns the path of the record that the answers of a job are published."""
    return f"{directory}/published.json"


def is_published(directory: str) -> bool:
    """Whether a command has appended the answers of a job, and has not deleted its files."""
    return bool(match_files(record_path(directory)))


@dataclasses.dataclass(frozen=True)
class AppendOnce:
    """A `Committer` that lets one command append.

    Attributes:
      committer: appends.
      directory: of all preparations for the job's label.
      place: of the rows that are joined.
      command: a name of this command alone.
    """

    committer: Committer
    directory: str
    place: Place
    command: str

    def claim(self, written: Sequence[Any]) -> None:
        try:
            claim(self._target)
        except SluiceError as error:
            raise SluiceError(self._held_text()) from error
        if self._publisher() not in ("", self.command):
            raise SluiceError("another command has published the answers of this job; they are not published again")
        if not match_files(self.place.prepared):  # the first file that a command deletes when it is done
            raise SluiceError(f"{self.place.prepared} is gone: another command has ended this job")
        self.committer.claim(written)

    def commit(self, written: Sequence[Any]) -> Sequence[str]:
        names = self.committer.commit(written)
        write_text(record_path(self.directory), self.command)
        return names

    def clean_up(self) -> None:
        self.committer.clean_up()
        release(self._target)

    @property
    def _target(self) -> Target:
        return Target(f"{self.directory}/published", ".json", f"{self.directory}/{self.command}")

    def _publisher(self) -> str:
        """Returns the command that has published the answers; "": none."""
        if not is_published(self.directory):
            return ""
        with open_binary(record_path(self.directory)) as file:
            return file.read().decode()

    def _held_text(self) -> str:
        return (
            "another command is publishing the answers of this job, or died while it did so. If it is not running any "
            f"more, look whether the table has the rows: if it has, delete {self.directory}; if not, delete "
            f"{claim_path(self._target)}, and the same command publishes them"
        )
