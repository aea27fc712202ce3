"""A worker with an endpoint does not pay for TensorFlow."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.saved_models.zoo import ZooSample
from tests.support.serving.backends import GRPC, REST, uri_at
from tests.support.serving.model_servers import model_server

_MAX_RESIDENT_MB = 400

# Runs a job as the command does, and tells what that cost.
_JOB = """
import json, re, sys
from sluice.pipelines.cli import main
code = main(sys.argv[1:])
kilobytes = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]  # ru_maxrss has the parent's, too
print(json.dumps({"code": code, "mb": int(kilobytes) / 1024, "tensorflow": "tensorflow" in sys.modules}))
"""


@pytest.mark.parametrize(("backend", "format_"), [(GRPC, "csv"), (REST, "jsonl"), (GRPC, "parquet")])
def test_a_job_with_an_endpoint(backend: str, format_: str, criteo: ZooSample, tmp_path: Path) -> None:
    with model_server({"criteo": criteo.model}) as server:
        model = uri_at(server, backend, "criteo")
        flags = [f"--input={criteo.path(format_)}", f"--output={tmp_path}/out.{format_}", "--progress=none"]
        command = [sys.executable, "-c", _JOB, "batch", f"--model={model}", *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["code"] == 0
    assert not found["tensorflow"]
    assert found["mb"] < _MAX_RESIDENT_MB
