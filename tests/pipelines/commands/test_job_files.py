"""The storage of the local Vertex AI's jobs."""

from __future__ import annotations

from pathlib import Path

from sluice.pipelines.commands.job_files import StoredJobFiles
from tests.support.servers import Gcs


def test_directories_of_this_machine(tmp_path: Path) -> None:
    files = StoredJobFiles()
    with files.create(f"{tmp_path}/new/a.txt") as file:
        file.write(b"a\nb\n")
    assert files.match(f"{tmp_path}/new/*") == [f"{tmp_path}/new/a.txt"]
    assert files.match(f"{tmp_path}/*") == [], "a directory is no file"
    with files.open(f"{tmp_path}/new/a.txt") as file:
        assert list(file) == [b"a\n", b"b\n"]


def test_gs(gcs: Gcs) -> None:
    files = StoredJobFiles()
    path = gcs.path("job-files/a.txt")
    with files.create(path) as file:
        file.write(b"a\nb\n")
    assert files.match(gcs.path("job-files/*")) == [path]
    with files.open(path) as file:
        assert list(file) == [b"a\n", b"b\n"]
