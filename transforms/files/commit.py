"""Files that bundles have finished, renamed into place once the job is judged."""

import dataclasses
from collections.abc import Iterable, Sequence

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from sluice.models.errors import SluiceError
from sluice.transforms.core.beam_files import delete_files, match_files
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.files.write import BatchFormat, OpenShard, Shard, Target, existing_files, remove_temp


@dataclasses.dataclass(frozen=True)
class FilesCommitter:
    """A set of files, as a `Committer`: its parts are `Shard`s.

    Attributes:
      spec: of the rows: where there are none, one file is written that says so; None: then there is no file.
    """

    target: Target
    spec: OutputSpec | None = None

    def commit(self, shards: Sequence[Shard]) -> list[str]:
        shards = list(set(shards))
        if not shards and self.spec:  # a set of no files would look like a job that has not run
            shards = [OpenShard(self.target, BatchFormat(self.spec)).finish()]
        return rename_shards(self.target, shards)

    def clean_up(self) -> None:
        remove_temp(self.target)


def rename_shards(target: Target, shards: Iterable[Shard]) -> list[str]:
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
