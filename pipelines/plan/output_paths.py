"""Takes the paths of --output and --failures apart: where files go, what they are called, and their format."""

import dataclasses
import os
from collections.abc import Sequence

from apache_beam.io.filesystems import FileSystems

from sluice.models.errors import UsageError
from sluice.pipelines.options.job import DIRECTORY, JobFlags
from sluice.transforms.core.beam_files import HIDDEN, check_name
from sluice.transforms.core.formats import FORMATS, OUTPUT_ENDINGS
from sluice.transforms.files.write import Target


@dataclasses.dataclass(frozen=True)
class Destination:
    """An --output path taken apart."""

    prefix: str
    suffix: str
    format: str

    def target(self, job: str) -> Target:
        """Returns where the files go; `job` is this job's own name, for its temporary directory."""
        return Target(self.prefix, self.suffix, f"{_directory(self.prefix)}{HIDDEN}{job}")

    def failures(self, path: str, job: str) -> Target:
        """Returns where failures go: to `path`, or beside the predictions if it is empty."""
        if not path:
            return Target(f"{self.prefix}.failures", ".jsonl", f"{_directory(self.prefix)}{HIDDEN}{job}-failures")
        target = failures_target(path, job)
        if (target.prefix, target.suffix) == (self.prefix, self.suffix):
            raise UsageError(f"--failures {path} names the files of --output; give it a name of its own")
        return target


def failures_target(path: str, job: str) -> Target:
    """Returns where the files of --failures go; see `Destination.target`."""
    prefix, suffix = _split_path("--failures", path)
    return Target(prefix, suffix or ".jsonl", f"{_directory(prefix)}{HIDDEN}{job}-failures")


def parse_output(path: str, format_: str) -> Destination:
    """Returns an --output path as a prefix, a suffix and a format; in a directory, files are called "predictions".

    Raises:
      UsageError: neither the name nor --output_format gives the format, or they contradict each other.
    """
    prefix, suffix = _split_path("--output", path)
    named = OUTPUT_ENDINGS.get(suffix, "")
    if not format_ and not named:
        raise UsageError(
            f"--output {path}: the format is not clear from the name; end it in {', '.join(OUTPUT_ENDINGS)}, or give "
            f"--output_format {'|'.join(FORMATS)}"
        )
    if format_ and named and format_ != named:
        raise UsageError(
            f"--output {path} ends like {named}, but --output_format says {format_}; leave --output_format out, or "
            "change the ending"
        )
    if prefix.endswith("/"):
        prefix += "predictions"
    return Destination(prefix, suffix or f".{format_}", format_ or named)


def payload_directory(options: JobFlags, paths: Sequence[str], temp_location: str) -> str:
    """Returns where payloads go that are too large for their failures.

    Args:
      paths: of --failures and --output; "" for one that is not given.
      temp_location: Beam's; "": there is none.

    Returns:
      A directory; "": none is given, and nothing can be written to the current one.

    Raises:
      UsageError: --failure_payload_dir cannot be written to. The first large failure would end the job.
    """
    if options.failure_payload_dir:
        return _checked_directory(options.failure_payload_dir)
    path = next(filter(None, paths), "")
    if path:
        return f"{_directory(path)}{DIRECTORY}"
    if temp_location:
        return f"{temp_location.rstrip('/')}/{DIRECTORY}"
    return DIRECTORY if _may_write(DIRECTORY) else ""


def _checked_directory(path: str) -> str:
    if "://" not in path:
        if not _may_write(path):
            raise UsageError(f"--failure_payload_dir {path} cannot be written to")
        return path
    try:
        FileSystems.get_filesystem(path)
    except Exception as error:
        raise UsageError(f"--failure_payload_dir {path} is in no file system that is known here: {error}") from error
    return path


def _may_write(directory: str) -> bool:
    """Whether this process may write to a local directory, or make it."""
    there = os.path.abspath(directory)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    return os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK)


def _split_path(flag: str, path: str) -> tuple[str, str]:
    """Returns a path to write to, in its normal form, as a prefix and the ending of a format, which may be "".

    Raises:
      UsageError: nothing can be written there.
    """
    path = _checked_path(flag, path)
    for suffix in sorted(OUTPUT_ENDINGS, key=len, reverse=True):
        if path.endswith(suffix):
            return path.removesuffix(suffix), suffix
    return path, ""


def _checked_path(flag: str, path: str) -> str:
    """Returns a path to write to; a local one in its normal form, so that names can be compared."""
    check_name(path, f"{flag} {path}")
    if "://" in path:
        return path
    return os.path.normpath(path) + ("/" if path.endswith("/") else "")


def _directory(prefix: str) -> str:
    return prefix[: prefix.rfind("/") + 1]
