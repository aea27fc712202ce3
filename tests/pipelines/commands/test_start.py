"""What happens before a job's own code runs. test_startup.py has what is imported."""

import gc
import subprocess
import sys

import pytest

from sluice.pipelines.commands.start import _may_load, importing
from sluice.pipelines.progress.phases import Phases
from tests.support.paths import ROOT

_SCRIPT = """
import gc, sys, threading
from sluice.pipelines.commands.start import importing
from sluice.pipelines.progress.phases import Phases

phases, collections = Phases(), gc.get_stats()[2]["collections"]
with importing(phases, "work/model", []):
    import sluice.pipelines.batch
    loads = [thread.name for thread in threading.enumerate()]
assert gc.get_stats()[2]["collections"] == collections
assert gc.isenabled() and gc.get_freeze_count() > 100_000
assert phases.seconds()["imports"] > 0
[thread.join() for thread in threading.enumerate() if thread.name == "sluice-library"]
assert "libtensorflow_cc" in open("/proc/self/maps").read()
assert "tensorflow" not in sys.modules
assert "pandas" not in sys.modules
"""


def test_imports_are_timed_and_not_collected_and_the_library_is_loaded_beside_them() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


_WITHOUT = """
import sys
from sluice.pipelines.commands.without_pandas import without_pandas

with without_pandas():
    import apache_beam
    try:
        import pandas
    except ImportError:
        refused = True
import pyarrow as pa

pa.array([0.5])
assert refused and "pandas" not in sys.modules
import pandas

with without_pandas():
    import pandas  # of a process that has it, as a notebook
"""


def test_pandas_is_missing_while_beam_is_imported_and_there_after() -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_second_job_of_a_process_has_nothing_to_import() -> None:
    import apache_beam  # noqa: F401  so that this job is not the first

    phases, frozen = Phases(lambda: 7.0), gc.get_freeze_count()
    with importing(phases, "work/model", []):
        pass
    assert phases.seconds()["imports"] == 0.0
    assert gc.isenabled() and gc.get_freeze_count() == frozen


@pytest.mark.parametrize(
    ("model", "flags", "expected"),
    [
        ("work/model", [], True),
        ("gs://bucket/model", ["--project=p"], True),
        ("grpc://localhost:8500/m", [], False),
        ("not://a model", [], False),  # the plan says so
        ("work/model", ["--runner=DataflowRunner"], False),
        ("work/model", ["--runner", "FlinkRunner"], False),
        ("work/model", ["--direct_running_mode=multi_processing"], False),
    ],
)
def test_the_library_is_loaded_where_the_model_will_be(model: str, flags: list[str], expected: bool) -> None:
    assert _may_load(model, flags) == expected
