"""Files by which the readers of a stream, and whoever launched them, hear of each other.

They are in processes of other machines, and a runner such as Flink passes nothing on between them while a job runs. So
a job has a directory that all of them reach: a file there asks the readers to drain, and each reader says in a file of
its own what it has done.
"""

import dataclasses
import json
import logging

from apache_beam.io.filesystems import FileSystems

from sluice.transforms.core.beam_files import delete_files, match_files, open_binary, write_text

_LOG = logging.getLogger(__name__)

_DRAIN = "drain"
_PREFIX, _SUFFIX = "reader-", ".json"


@dataclasses.dataclass(frozen=True)
class Report:
    """What a process that reads has done since it began.

    Attributes:
      reader: names the process.
      beat: counts its reports: one whose beat does not change is gone.
      pulled, acknowledged, returned: messages.
      in_work: messages that are handed out and not acknowledged.
      drained: it has read its last message, and has acknowledged or given back all that it had.
    """

    reader: str
    beat: int
    pulled: int = 0
    acknowledged: int = 0
    returned: int = 0
    in_work: int = 0
    drained: bool = False


@dataclasses.dataclass(frozen=True)
class ReaderFiles:
    """The files of one job.

    Attributes:
      directory: local or a URI, of this job alone.
    """

    directory: str

    @property
    def drain_file(self) -> str:
        """A reader that finds this file drains."""
        return f"{self.directory}/{_DRAIN}"

    def ask_to_drain(self) -> None:
        """Asks all readers, also those that begin later, to read no more.

        Raises:
          OSError: the file cannot be written.
        """
        write_text(self.drain_file, "")

    def is_asked(self) -> bool:
        """Whether the readers are to drain; False if that cannot be found out now."""
        try:
            return bool(FileSystems.exists(self.drain_file))
        except Exception as error:  # noqa: BLE001  the storage is away: it is asked again
            _LOG.debug("%s cannot be looked up: %s", self.drain_file, error)
            return False

    def tell(self, report: Report) -> None:
        """Writes a report, which replaces the reader's last one. Does not fail: the next one says the same."""
        try:
            write_text(f"{self.directory}/{_PREFIX}{report.reader}{_SUFFIX}", json.dumps(dataclasses.asdict(report)))
        except Exception as error:  # noqa: BLE001  as said
            _LOG.debug("%s cannot be written: %s", self.directory, error)

    def reports(self) -> list[Report]:
        """Returns the last report of each reader, without those that cannot be read now."""
        try:
            paths = [file.path for file in match_files(f"{self.directory}/{_PREFIX}*{_SUFFIX}")]
        except OSError as error:
            _LOG.debug("%s cannot be listed: %s", self.directory, error)
            return []
        return [report for path in paths if (report := _read(path)) is not None]

    def clear(self) -> None:
        """Deletes the files. Does not fail: they are small."""
        try:
            delete_files([file.path for file in match_files(f"{self.directory}/*")])
        except Exception as error:  # noqa: BLE001  as said
            _LOG.debug("%s cannot be cleared: %s", self.directory, error)


def _read(path: str) -> Report | None:
    """Returns a report; None: it is being written, or is none."""
    try:
        with open_binary(path) as file:
            return Report(**json.loads(file.read()))
    except Exception as error:  # noqa: BLE001  half a report is none
        _LOG.debug("%s cannot be read: %s", path, error)
        return None
