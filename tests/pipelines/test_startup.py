"""Which modules a command must not import: Beam and TensorFlow take seconds, Google's clients part of one.

Imports inside functions of pipelines/ are there for this test; others stand at the top.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from sluice.pipelines.commands.listed import COMMANDS
from tests.support.paths import ROOT
from tests.support.saved_models.zoo import ZooSample

# Beam imports tfx_bsl itself.
TENSORFLOW = {"tensorflow", "tfx_bsl"}
BEAM = {"apache_beam"}
YAML = {"yaml"}
CLIENTS = {"grpc", "google.pubsub_v1", "google.cloud.bigquery", "google.cloud.bigquery_storage_v1"}
# What takes a while, and a command of a few rows needs none of.
LIBRARY = {"asyncio", "email", "http", "importlib.metadata", "importlib.resources", "multiprocessing", "ssl", "zipfile"}
OURS = {f"sluice.pipelines.{listed.module}" for listed in COMMANDS.values()}
PREDICT = "sluice.pipelines.commands.predict"

# By what runs: its code, and what must not be imported at its end. MODEL, INPUT and OUTPUT are paths.
CASES = {
    "import sluice": ("import sluice", {*TENSORFLOW, *BEAM, *CLIENTS, "pyarrow"}),
    "sluice --help": (
        "exits(0, '--help')",
        {*TENSORFLOW, *BEAM, *CLIENTS, *YAML, *LIBRARY, *OURS, "numpy", "pyarrow"},
    ),
    "the help of each command": (
        f"for name in {[*COMMANDS]}: exits(0, name, '--help')",
        TENSORFLOW | BEAM | CLIENTS,
    ),
    "a usage error of each command": (
        "exits(2, 'batch', '--model=m')\n"
        "exits(2, 'streaming', '--model=m')\n"
        "exits(2, 'simulate', '--topic=projects/p/topics/t', '--rate=-1')\n"
        "exits(2, 'latency', '--subscription=projects/p/subscriptions/s', '--count=-1')\n"
        "exits(2, 'failures', 'f', '--top=-1')\n"
        "exits(2, 'replay', '--failures=f', '--to=t')\n"
        "exits(2, 'demo-streaming', '--rate=0')\n"
        "exits(2, 'compare', '--model=m')\n"
        "exits(2, 'schema')",
        TENSORFLOW | BEAM | CLIENTS | YAML,
    ),
    "sluice inspect, of a local model": ("exits(0, 'inspect', '--model', MODEL)", TENSORFLOW | BEAM | CLIENTS),
    "sluice predict": (
        "import json\n"
        "row = {f'I{n}': n for n in range(1, 14)} | {f'C{n}': 'x' for n in range(1, 27)}\n"
        "exits(0, 'predict', '--model', MODEL, '--json', json.dumps(row))",
        {*TENSORFLOW, *BEAM, *CLIENTS, *YAML, *LIBRARY, *(OURS - {PREDICT}), "pandas", "numpy.ma", "urllib.request"},
    ),
    "sluice.predict": (
        "import sluice\n"
        "from sluice.models import zoo\n"
        "found = sluice.predict(MODEL, zoo.get('criteo').make_rows(5, 1))\n"
        "assert found.num_rows == 5",
        TENSORFLOW | BEAM | CLIENTS,
    ),
    "the sample rows of sluice zoo": (
        "from sluice.models import zoo\nzoo.get('criteo').make_rows(5, 1)",
        TENSORFLOW | BEAM | CLIENTS,
    ),
    "sluice template": ("exits(0, 'template', 'metadata', '--pipeline=batch')", TENSORFLOW | BEAM | CLIENTS),
    "sluice simulate": (
        "from sluice.pipelines.commands import simulate_run\nnext(simulate_run.zoo_rows('criteo'))",
        TENSORFLOW | BEAM,
    ),
    "sluice latency": ("import sluice.pipelines.commands.latency_run", TENSORFLOW | BEAM),
    "sluice failures": ("import sluice.pipelines.commands.failures_run", {"tensorflow"}),
    "sluice replay": ("import sluice.pipelines.commands.replay_run", {"tensorflow"}),
    "sluice streaming": ("import sluice.pipelines.streaming", {"tensorflow"}),
    "the launch checks of sluice batch, and its graph": (
        "import sluice.pipelines.batch\n"
        "from sluice.pipelines.dataflow.runner import beam_options, make_pipeline\n"
        "from sluice.pipelines.graph import build_batch\n"
        "from sluice.pipelines.options.batch import BatchOptions\n"
        "from sluice.pipelines.plan.batch_job import plan_batch\n"
        "plan = plan_batch(BatchOptions(input=INPUT, model=MODEL, output=OUTPUT))\n"
        "build_batch(make_pipeline(beam_options([])), plan)",
        {"tensorflow", "vl_convert"},
    ),
}
_SCRIPT = """
import sys
MODEL, INPUT, OUTPUT, *forbidden = sys.argv[1:]

def exits(code, *arguments):
    from sluice.pipelines import cli
    try:
        found = cli.main(list(arguments))
    except SystemExit as error:
        found = error.code
    assert found == code, (arguments, found)

{}
found = set(forbidden) & set(sys.modules)
sys.exit(f"imported: {{found}}" if found else 0)
"""


@pytest.mark.parametrize(("code", "forbidden"), CASES.values(), ids=CASES)
def test_a_command_imports_what_it_needs(code: str, forbidden: set[str], criteo: ZooSample, tmp_path: Path) -> None:
    paths = [criteo.model, criteo.path("csv"), str(tmp_path / "out.csv")]
    command = [sys.executable, "-c", _SCRIPT.format(code), *paths, *forbidden]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
