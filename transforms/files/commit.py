"""The finished files of a batch job, renamed to their final names once the failure rate is checked.

By hand, because Beam's fileio logs a failed rename at DEBUG and reports the file as written, and Beam's FileBasedSink
accepts any file under the final name, even of an earlier run, as the renamed one.
"""

import concurrent.futures
import dataclasses
from collections.abc import Iterable, Sequence

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from sluice.models.errors import SluiceError
from sluice.transforms.core.beam_files import delete_files, match_files
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.files.claim import claim, release
from sluice.transforms.files.open_file import BatchFormat
from sluice.transforms.files.write import OpenShard, Shard, Target, existing_files, remove_temp

# Beam's sinks rename on up to as many threads.
_THREADS = 64


@dataclasses.dataclass(frozen=True)
class FilesCommitter:
    """A set of files, as a `Committer`. Its parts are `Shard`s.

    Attributes:
      spec: the contents of the one file that is written if there are no rows; None: then there is no file.
      overwrite: files that are there are replaced. Otherwise the job stops if another one has written some.
      stale: the job that held the claim on the files at launch and has died; see transforms.files.claim.
    """

    target: Target
    spec: OutputSpec | None = None
    overwrite: bool = False
    stale: str = ""

    def claim(self, shards: Sequence[Shard]) -> None:
        claim(self.target, self.stale)
        if not self.overwrite:
            _check_none_there(self.target, sorted_shards(shards) or self._empty())

    def commit(self, shards: Sequence[Shard]) -> list[str]:
        return rename_shards(self.target, sorted_shards(shards) or self._empty())

    def _empty(self) -> list[Shard]:
        """Returns a file without rows: a set of no files would look like a job that has not run."""
        return [OpenShard(self.target, BatchFormat(self.spec)).finish()] if self.spec else []

    def clean_up(self) -> None:
        remove_temp(self.target)
        release(self.target)


def sorted_shards(shards: Iterable[Shard]) -> list[Shard]:
    """Returns the shards, each once, in the order of their names."""
    return sorted(set(shards), key=lambda shard: shard.path)


def _check_none_there(target: Target, shards: Sequence[Shard]) -> None:
    """Checks that no other job has written files since the launch of this one.

    Files that an earlier attempt of this job has renamed are its own.

    Raises:
      SluiceError: there are files of another job.
    """
    there = set(existing_files(target))
    if not there:  # to look for each shard would take a request of the storage for each
        return
    renamed = {
        target.shard(number, len(shards)): shard.size
        for number, shard in enumerate(shards)
        if not (shard.rows and FileSystems.exists(shard.path))  # files without rows are all alike
    }
    for file in match_files(target.pattern):
        if file.path in there and renamed.get(file.path) != file.size_in_bytes:
            raise SluiceError(
                f"{file.path} was written by another job after this one had started, and is kept; run this job again "
                "with another name, or with --overwrite to replace it"
            )


def rename_shards(target: Target, shards: Iterable[Shard]) -> list[str]:
    """Renames finished files to their final names, then deletes the other files of an earlier run.

    May be called again after an interruption: a file that has been renamed already is left as it is.

    Raises:
      SluiceError: a file could not be renamed. The files of the earlier run are still there.
    """
    ordered = sorted_shards(shards)
    names = [target.shard(number, len(ordered)) for number in range(len(ordered))]
    pairs = list(zip(ordered, names, strict=True))
    count = FileSystems.get_chunk_size(target.prefix)  # as many as one request of the file system renames
    chunks = [pairs[start : start + count] for start in range(0, len(pairs), count)]
    with concurrent.futures.ThreadPoolExecutor(_THREADS, "sluice-rename") as threads:
        for _ in threads.map(_rename, chunks):
            pass
    delete_files(path for path in existing_files(target) if path not in names)
    return names


def _rename(pairs: Sequence[tuple[Shard, str]]) -> None:
    """Renames files over whatever has their names. An earlier attempt may have renamed some of them already."""
    paths, names = [shard.path for shard, _ in pairs], [name for _, name in pairs]
    try:
        FileSystems.rename(paths, names)
    except BeamIOError as error:
        reasons = error.exception_details or dict.fromkeys(zip(paths, names, strict=True), error)
        for shard, name in pairs:
            if (shard.path, name) in reasons:
                _check_renamed(shard, name, reasons[shard.path, name])


def _check_renamed(shard: Shard, name: str, reason: object) -> None:
    """Checks, where a rename has failed, that an earlier attempt has renamed the file."""
    vanished = not FileSystems.exists(shard.path)
    if vanished and [file.size_in_bytes for file in match_files(name)] == [shard.size]:
        return
    raise SluiceError(f"{shard.path} could not be renamed to {name}: {'it has vanished' if vanished else reason}")
