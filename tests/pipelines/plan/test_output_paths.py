import pytest

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
