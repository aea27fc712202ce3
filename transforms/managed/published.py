"""The rows of a managed job appended to tables once, whichever commands join its answers.

Every command that joins writes its rows under names of its own, where nobody sees them until they are published. Before
a command publishes, it notes what it is going to publish, and claims the right to it. The first claim decides for ever:
whoever comes later, or at the same time, publishes what the first one has noted, and not its own. To publish the same
again changes nothing. So nobody has to know whether the command that holds the claim is still running.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from sluice.models.errors import SluiceError
from sluice.transforms.core.beam_files import match_files, open_binary, write_text
from sluice.transforms.core.committer import Resumable
from sluice.transforms.files.claim import claim_path, first_claim, read_claim, release
from sluice.transforms.files.write import Target
from sluice.transforms.managed.place import Place


class _Noted(NamedTuple):
    """What a command has noted.

    Attributes:
      place: of the rows that it has joined.
    """

    place: Place
    committer: Resumable
    parts: Sequence[Any]


@dataclasses.dataclass(frozen=True)
class AppendOnce:
    """A `Committer` that appends what the first command has noted, once.

    Attributes:
      committer: appends.
      directory: of all preparations for the job's label.
      name: of what is published, such as "predictions".
      place: of the rows that are joined.
      command: a name of this command alone.
      before: parts that have been published under another name; they are left out.
    """

    committer: Resumable
    directory: str
    name: str
    place: Place
    command: str
    before: tuple[Any, ...] = ()

    def claim(self, written: Sequence[Any]) -> None:
        self._check_place(self.place)
        self.committer.claim(written)

    def commit(self, written: Sequence[Any]) -> Sequence[str]:
        known = set(self.before)
        note = self.committer.note([part for part in written if part not in known])
        write_text(self._noted(self.command), json.dumps({"place": self.place.directory, "note": note}))
        holder = first_claim(self._target)
        if holder == self.command:
            try:
                self._check_place(self.place)
            except SluiceError:
                release(self._target)
                raise
        return self._publish(holder)

    def finish(self) -> tuple[Any, ...] | None:
        """Publishes what an earlier command has claimed to; returns its parts. None: there is no such command.

        Raises:
          SluiceError: it cannot be published.
        """
        holder = read_claim(self._target)
        if not holder:
            return None
        self._publish(holder)
        return tuple(self._read(holder).parts)

    def clean_up(self) -> None:
        self.committer.clean_up()

    def _publish(self, holder: str) -> Sequence[str]:
        if self._is_done(holder):
            return ()
        try:
            noted = self._read(holder)
            self._check_place(noted.place)
            names = noted.committer.commit(noted.parts)
        except (SluiceError, OSError) as error:
            if holder == self.command:
                raise
            raise SluiceError(self._lost_text(error)) from error
        write_text(self._done, holder)
        if holder != self.command:
            noted.committer.clean_up()
        return names

    def _read(self, holder: str) -> "_Noted":
        with open_binary(self._noted(holder)) as file:
            record = json.loads(file.read())
        return _Noted(Place(record["place"]), *self.committer.noted(record["note"]))

    def _is_done(self, holder: str) -> bool:
        if not match_files(self._done):
            return False
        with open_binary(self._done) as file:
            return file.read().decode() == holder

    def _check_place(self, place: Place) -> None:
        """The record of the rows is the first file that a command deletes when all is done."""
        if not match_files(place.prepared):
            raise SluiceError(f"{place.prepared} is gone: another command has ended this job")

    @property
    def _target(self) -> Target:
        return Target(f"{self.directory}/{self.name}", ".json", f"{self.directory}/{self.command}")

    @property
    def _done(self) -> str:
        return f"{self.directory}/{self.name}-done.json"

    def _noted(self, command: str) -> str:
        return f"{self.directory}/{self.name}-{command}.json"

    def _lost_text(self, error: Exception) -> str:
        return (
            f"an earlier command ended while it published the {self.name} of this job, and its rows cannot be "
            f"published any more: {error}. Look whether the table has them: if it has, delete {self.directory}; if "
            f"not, delete {claim_path(self._target)}, and the same command publishes them"
        )
