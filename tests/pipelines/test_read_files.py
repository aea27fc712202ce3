"""`sluice batch` over files: a folder of images as rows, and tables that name their files."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sluice.pipelines.cli import main
from sluice.transforms.core import file_contents
from tests.pipelines.test_batch_gcs import upload
from tests.support.jpegs import NUMBERS, image_of, jpeg
from tests.support.pubsub.streams import LocalJob, make_ends
from tests.support.saved_models.zoo import read_output
from tests.support.servers import Gcs, Pubsub
from tests.support.sizes import SOAK, size

# Runs a job as the command does, and tells the most memory that it had, in kilobytes.
_JOB = """
import re, sys
from sluice.pipelines.cli import main
code = main(sys.argv[1:])
most = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]  # ru_maxrss has the parent's, too
print(code, most)
"""
# A photograph has more; so that a leak shows in few of them, the images are as large as these.
_BYTES = 256 << 10
_MOST_GROWTH = 1.2

Job = Callable[..., int]


@pytest.fixture
def job(cases: Callable[[str], str], tmp_path: Path) -> Job:
    """Runs a job of a model that decodes JPEGs; returns its exit code."""

    def run(*flags: str, output: str = "out.jsonl") -> int:
        where = ["--model", cases("jpegs"), "--output", str(tmp_path / output), "--overwrite"]
        return main(["batch", "--progress=none", "--max_failure_rate=0.9", *where, *flags])

    return run


def rows(tmp_path: Path, ending: str = "jsonl") -> list[dict]:
    return read_output(str(tmp_path / f"out-00000-of-00001.{ending}"))


def failures(tmp_path: Path) -> list[tuple[str, str, str]]:
    lines = (tmp_path / "out.failures-00000-of-00001.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [(each["stage"], each["error_type"], Path(each["origin"]).name) for each in found]


def fill(directory: Path, count: int) -> Path:
    """Fills a directory with images; those of the same pixels are one file on the disk."""
    directory.mkdir()
    for number in range(count):
        path, first = directory / f"{number:05}.jpg", directory / f"{number % NUMBERS:05}.jpg"
        if number < NUMBERS:
            path.write_bytes(jpeg(number, _BYTES))
        else:
            os.link(first, path)
    return directory


def flags_of(model: str, directory: Path) -> list[str]:
    where = [f"--input={directory}", f"--output={directory}-out.jsonl", f"--summary_file={directory}-summary.json"]
    return ["batch", "--input_format=files", f"--model={model}", "--max_batch_size=8", "--progress=none", *where]


def check(directory: Path, count: int) -> None:
    found = json.loads(Path(f"{directory}-summary.json").read_text())
    assert (found["rows_in"], found["predictions"], found["failures"]) == (count, count, 0)
    with open(f"{directory}-out-00000-of-00001.jsonl", "rb") as file:
        for number, line in enumerate(file):
            row = json.loads(line)
            image = image_of(number % NUMBERS)
            assert row == {"path": f"{directory}/{number:05}.jpg", "width": image.width, "brightness": image.brightness}
    assert number == count - 1


def kilobytes(what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


def growth(model: str, directory: Path, count: int) -> int:
    """Returns how far the memory of this process grows while it scores a folder, in kilobytes."""
    arguments = flags_of(model, fill(directory, count))
    before = kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    assert main(arguments) == 0
    check(directory, count)
    return kilobytes("VmHWM") - before


def peak(model: str, directory: Path, count: int) -> int:
    """Returns the peak of such a job in a process of its own, in kilobytes."""
    command = [sys.executable, "-c", _JOB, *flags_of(model, fill(directory, count))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    code, most = map(int, done.stdout.split())
    assert code == 0
    check(directory, count)
    return most


@pytest.mark.soak
def test_a_folder_of_images_is_scored_in_order_and_in_the_same_memory(
    cases: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, count = cases("jpegs"), size(200, soak=10_000)
    if SOAK:  # in processes of their own, which start from nothing
        few, many = (peak(model, tmp_path / str(files), files) for files in (count // 10, count))
        assert many <= _MOST_GROWTH * few, f"{few} kB with {count // 10} files, {many} kB with {count}"
        return
    # The first job loads what this process lacks. The last has 46 MB more of files, of which few MB are held at once.
    monkeypatch.setattr(file_contents, "_PART_BYTES", 1 << 20)
    sizes = (5, count // 10, count)
    _, few, many = (growth(model, tmp_path / f"{place}", files) for place, files in enumerate(sizes))
    assert many - few < (count - count // 10) * _BYTES / 2048, f"{few} kB with {count // 10} files, {many} kB with all"


def test_a_bad_file_fails_as_a_row(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    (folder / "deeper").mkdir(parents=True)
    for number, name in enumerate(("1.jpg", "2.jpg", ".3.jpg", "_4.jpg", "deeper/5.jpg")):
        (folder / name).write_bytes(jpeg(number))
    (folder / "half.jpg").write_bytes(jpeg(1)[:-20])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "large.jpg").write_bytes(jpeg(2, 10_000))
    (folder / "nowhere.jpg").symlink_to(tmp_path / "nothing")
    assert job("--input", str(folder), "--input_format=files", "--max_batch_bytes=9999") == 0
    assert [(Path(row["path"]).name, row["width"]) for row in rows(tmp_path)] == [("1.jpg", 1), ("2.jpg", 2)]
    assert sorted(failures(tmp_path)) == [
        ("predict", "BadInput", "empty.jpg"),
        ("predict", "BadInput", "half.jpg"),
        ("read", "FileTooLarge", "large.jpg"),
    ]
    assert "1 file(s) could not be read to the end: the rows that name them" in capsys.readouterr().err
    assert job("--input", str(folder), "--input_format=files", "--limit=1") == 0
    assert [Path(row["path"]).name for row in rows(tmp_path)] == ["1.jpg"]


def test_what_a_folder_needs(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    assert job("--input", str(folder), "--input_format=files") == 2
    assert f"--input {folder}: no file matches" in capsys.readouterr().err
    (folder / "1.jpg").write_bytes(jpeg(1))
    assert job("--input", str(folder)) == 2
    assert "--input_format files makes a row of each file" in capsys.readouterr().err
    assert job("--input", str(folder), "--input_format=files", "--check", "--output_prefix=p_") == 0
    told = capsys.readouterr().out
    assert f"{folder}: 1 file(s), each a row, 0.0 MB" in told
    assert re.search(r"image +string +what is in the file that column 'path' names\n", told)
    assert re.search(r"path +string +carried\n +p_brightness +float +added\n", told)
    assert "The first rows fit." in told


def test_a_table_that_names_its_files(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, table = tmp_path / "images", tmp_path / "in.csv"
    images.mkdir()
    for number in range(3):
        (images / f"{number}.jpg").write_bytes(jpeg(number))
    whole = images / "1.jpg"
    lines = ["images/0.jpg", "images/missing.jpg", str(whole), f"file://{images}/2.jpg", "../../etc/passwd"]
    table.write_text("id,file\n" + "".join(f"00{row},{path}\n" for row, path in enumerate(lines)))
    read = ["--input", str(table), "--read_paths=image=file"]
    assert job(*read, output="out.csv") == 0
    found = [(row["id"], row["file"], row["width"], float(row["brightness"])) for row in rows(tmp_path, "csv")]
    assert found == [("000", lines[0], "1", 127.0), ("002", lines[2], "2", 127.0), ("003", lines[3], "3", 127.0)]
    assert [each[:2] for each in failures(tmp_path)] == [("read", "FileNotFoundError")] * 2
    capsys.readouterr()
    assert job(*read, f"--read_paths_root={images}", output="out.csv") == 0
    assert [row["id"] for row in rows(tmp_path, "csv")] == ["002", "003"]
    assert [each[1] for each in failures(tmp_path)] == ["FileNotFoundError", "FileNotFoundError", "BadPath"]
    assert job(*read, "--check", output="out.csv") == 0
    assert "what is in the file that column 'file' names" in capsys.readouterr().out


def test_files_on_gcs(job: Job, gcs: Gcs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of a batch share a client: to make one for each takes longer than to read it."""
    from apache_beam.io.gcp import gcsio

    made = []
    make = gcsio.create_storage_client

    def count_and_make(*given: Any, **named: Any) -> Any:
        made.append(1)
        return make(*given, **named)

    monkeypatch.setattr(gcsio, "create_storage_client", count_and_make)
    for number in range(40):
        (tmp_path / "1.jpg").write_bytes(jpeg(number, 2000))
        upload(str(tmp_path / "1.jpg"), gcs.path(f"images/{number:02}.jpg"))
    del made[:]
    assert job("--input", gcs.path("images/"), "--input_format=files") == 0
    found = [(row["path"], row["width"], row["brightness"]) for row in rows(tmp_path)]
    assert found == [(gcs.path(f"images/{number:02}.jpg"), *image_of(number)) for number in range(40)]
    assert len(made) < 30
    table = tmp_path / "in.jsonl"
    table.write_text("".join(json.dumps({"uri": gcs.path(f"images/{number:02}.jpg")}) + "\n" for number in (7, 99, 8)))
    assert job("--input", str(table), "--read_paths=image=uri") == 0
    assert [row["width"] for row in rows(tmp_path)] == [8, 1]
    assert failures(tmp_path) == [("read", "NotFound", "in.jsonl#byte=34")]


def test_messages_that_name_files(pubsub: Pubsub, cases: Callable[[str], str], tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(20):
        (images / f"{number}.jpg").write_bytes(jpeg(number))
    (tmp_path / "secret.jpg").write_bytes(jpeg(0))
    bad = {"missing.jpg": "FileNotFoundError", "../secret.jpg": "BadPath", "file:///etc/passwd": "BadPath"}
    names = [*(f"{number}.jpg" for number in range(19)), f"file://{images}/19.jpg", *bad]
    ends = make_ends(pubsub)
    ends.publish([json.dumps({"uri": name}).encode() for name in names])
    read = ["--read_paths=image=uri", f"--read_paths_root={images}"]
    with LocalJob([f"--model={cases('jpegs')}", *ends.flags, *read]) as job:
        good = [json.loads(message.data) for message in ends.predictions(20)]
        failed = ends.failed(len(bad))
        assert job.stop() == 0
    assert {row["uri"]: row["width"] for row in good} == {
        name: image_of(number).width for number, name in enumerate(names[:20])
    }
    found = {json.loads(each["payload_text"])["uri"]: (each["stage"], each["error_type"]) for each in failed}
    assert found == {name: ("read", error_type) for name, error_type in bad.items()}
