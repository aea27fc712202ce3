"""The claim on a set of output files: of two jobs with one --output, one puts its files in place and the other stops.

A claim is a hidden file beside the output. It names the job that holds it, and is there while the job puts its files
in place. A job that dies then leaves its claim, which says that the output may be incomplete. Another job takes such a
claim over only if it may overwrite the output and found the claim at its launch.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from apache_beam.io.filesystems import FileSystems

from sluice.models.errors import SluiceError
from sluice.transforms.core.beam_files import HIDDEN, open_binary, write_text
from sluice.transforms.files.write import Target

_GCS = "gs://"
# A claim may be released and taken by others while this job looks at it.
_ATTEMPTS = 10


def claim_path(target: Target) -> str:
    """Returns the path of the claim on a target's files."""
    directory, slash, name = target.prefix.rpartition("/")
    return f"{directory}{slash}{HIDDEN}claim-{name}{target.suffix}"


def job_of(target: Target) -> str:
    """Returns the name of the job that writes a target: that of its temporary directory."""
    return target.temp.rpartition("/")[2].removeprefix(HIDDEN)


def read_claim(target: Target) -> str:
    """Returns the job that holds the claim on a target's files; "": there is none."""
    path = claim_path(target)
    if not FileSystems.exists(path):
        return ""
    try:
        with open_binary(path) as file:
            return file.read().decode()
    except OSError:  # released since
        return ""


def held_text(target: Target, holder: str) -> str:
    """Returns the text of the error for a target that another job holds."""
    return (
        f"the job {holder} is putting its output in place as {target.prefix}-*{target.suffix}, or died while it did "
        "so and has left the output incomplete. If it is not running any more, run this job again with --overwrite"
    )


def claim(target: Target, stale: str = "") -> None:
    """Claims a target's files for the job that writes it. A job may claim them again.

    Args:
      stale: the holder that may be replaced, of a job that has died.

    Raises:
      SluiceError: another job holds the claim.
    """
    holder = _claim(claim_path(target), job_of(target), stale)
    if holder != job_of(target):
        raise SluiceError(held_text(target, holder))


def first_claim(target: Target) -> str:
    """Claims a target's files unless they are claimed; returns the job that holds the claim."""
    return _claim(claim_path(target), job_of(target), "")


def release(target: Target) -> None:
    """Deletes the claim if the target's job holds it."""
    path, job = claim_path(target), job_of(target)
    if "://" in path:
        if read_claim(target) == job:
            FileSystems.delete([path])
        return
    with contextlib.suppress(FileNotFoundError), _locked(path, os.O_RDWR) as file:
        if os.pread(file, 1 << 10, 0).decode() == job:
            os.unlink(path)


def _claim(path: str, job: str, stale: str) -> str:
    """Returns the holder of the claim afterwards."""
    if path.startswith(_GCS):
        return _claim_object(path, job, stale)
    if "://" in path:  # Beam's file systems cannot create a file only if there is none
        return _claim_unlocked(path, job, stale)
    with _locked(path, os.O_RDWR | os.O_CREAT) as file:
        holder = os.pread(file, 1 << 10, 0).decode()
        if holder not in ("", job, stale):
            return holder
        os.ftruncate(file, 0)
        os.pwrite(file, job.encode(), 0)
        return job


@contextlib.contextmanager
def _locked(path: str, flags: int) -> Iterator[int]:
    """Opens the file that has this path now, and holds its lock.

    Raises:
      FileNotFoundError: there is none, and the flags do not ask for a new one.
    """
    while True:
        file = os.open(path, flags, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_there(path, file):
                yield file
                return
        finally:
            os.close(file)


def _is_there(path: str, file: int) -> bool:
    """Whether the open file still has its path: the claim may have been released since it was opened."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def _claim_object(path: str, job: str, stale: str) -> str:
    # Not at the top: the client is slow to import, and only gs:// needs it.
    from apache_beam.io.gcp.gcsio import parse_gcs_path
    from google.api_core.exceptions import NotFound, PreconditionFailed

    bucket, name = parse_gcs_path(path)
    place = FileSystems.get_filesystem(path)._gcsIO().client.bucket(bucket)
    holder = ""
    for _ in range(_ATTEMPTS):
        found = place.get_blob(name)
        holder = ""
        with contextlib.suppress(NotFound):
            holder = place.blob(name).download_as_bytes().decode() if found else ""
        if holder == job or holder not in ("", stale):
            break
        with contextlib.suppress(PreconditionFailed):
            place.blob(name).upload_from_string(job, if_generation_match=found.generation if found else 0)
            return job
    return holder


def _claim_unlocked(path: str, job: str, stale: str) -> str:
    if FileSystems.exists(path):
        with open_binary(path) as file:
            holder = file.read().decode()
        if holder not in (job, stale):
            return holder
        FileSystems.delete([path])
    write_text(path, job)
    return job
