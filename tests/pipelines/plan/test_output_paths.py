import pathlib

import pytest

from sluice.models.errors import UsageError
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.plan.output_paths import payload_directory


@pytest.mark.parametrize(
    ("flags", "temp_location", "expected"),
    [
        ({"failure_payload_dir": "gs://b/p", "failures": "gs://c/f"}, "gs://t", "gs://b/p"),
        ({"failures": "gs://c/d/f.jsonl", "output": "gs://e/o.csv"}, "gs://t", "gs://c/d/failure-payloads"),
        ({"output": "out/o.csv"}, "", "out/failure-payloads"),
        ({"output": "o.csv"}, "", "failure-payloads"),
        ({}, "gs://t/temp/", "gs://t/temp/failure-payloads"),
        ({}, "", "failure-payloads"),
    ],
)
def test_where_payloads_go_that_are_too_large(flags: dict[str, str], temp_location: str, expected: str) -> None:
    ends = {"output": "", "output_table": "" if flags.get("output") else "p.d.t"}
    options = BatchOptions(**{"input": "i.csv", "model": "m", "failures_table": "p.d.f"} | ends | flags)
    assert payload_directory(options, (options.failures, options.output), temp_location) == expected


def _options(**flags: str) -> BatchOptions:
    return BatchOptions(input="i.csv", model="m", output_table="p.d.t", failures_table="p.d.f", **flags)


@pytest.mark.parametrize("path", ["file:///tmp/payloads", "nowhere://b/payloads", "{file}", "{file}/payloads"])
def test_a_directory_of_payloads_that_cannot_be_written_to_is_refused_at_launch(
    path: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "file").touch()
    path = path.format(file=tmp_path / "file")
    with pytest.raises(UsageError, match=f"--failure_payload_dir {path} "):
        payload_directory(_options(failure_payload_dir=path), (), "")


def test_without_a_place_to_write_to_payloads_have_no_directory(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "failure-payloads").touch()  # a file; root may write to any directory
    assert payload_directory(_options(), (), "") == ""
