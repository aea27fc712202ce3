"""A worker with an endpoint does not pay for TensorFlow."""

import pytest

from tests.support.saved_models.zoo import ZooSample
from tests.support.serving.backends import GRPC, REST, uri_at
from tests.support.serving.model_servers import model_server
from tests.support.steps import Step, run_steps

# By way and format. One process runs them, as the command does. Of ru_maxrss the parent would have its part.
_JOBS = {"grpc-csv": (GRPC, "csv"), "rest-jsonl": (REST, "jsonl"), "grpc-parquet": (GRPC, "parquet")}
_JOB = """
import re
from sluice.pipelines.cli import main
code = main(["batch", "--progress=none", {flags}])
kilobytes = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
assert code == 0 and kilobytes < 400 * 1024, (code, kilobytes)
"""


@pytest.fixture(scope="module")
def wrong(criteo: ZooSample, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is wrong with each job."""
    directory, steps = tmp_path_factory.mktemp("cost"), {}
    with model_server({"criteo": criteo.model}) as server:
        for name, (backend, format_) in _JOBS.items():
            flags = [f"--model={uri_at(server, backend, 'criteo')}", f"--input={criteo.path(format_)}"]
            flags.append(f"--output={directory}/{backend}.{format_}")
            steps[name] = Step(_JOB.format(flags=", ".join(map(repr, flags))), {"tensorflow"})
        return run_steps(steps, directory)


@pytest.mark.parametrize("name", _JOBS)
def test_a_job_with_an_endpoint(name: str, wrong: dict[str, str]) -> None:
    assert wrong[name] == ""
