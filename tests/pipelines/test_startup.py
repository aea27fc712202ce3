"""Which modules a command must not import: Beam and TensorFlow take seconds, Google's clients part of one.

Imports inside functions of pipelines/ are there for this test; others stand at the top.
"""

from __future__ import annotations

import pytest

from sluice.pipelines.commands.listed import COMMANDS
from tests.support.saved_models.zoo import ZooSample
from tests.support.steps import Step, run_steps

# Beam imports tfx_bsl itself.
TENSORFLOW = {"tensorflow", "tfx_bsl"}
BEAM = {"apache_beam"}
YAML = {"yaml"}
CLIENTS = {"grpc", "google.pubsub_v1", "google.cloud.bigquery", "google.cloud.bigquery_storage_v1"}
# What takes a while, and a command of a few rows needs none of.
LIBRARY = {"asyncio", "email", "http", "importlib.metadata", "importlib.resources", "multiprocessing", "ssl", "zipfile"}
OURS = {f"sluice.pipelines.{listed.module}" for listed in COMMANDS.values()}
PREDICT = "sluice.pipelines.commands.predict"

# Runs a command, and looks at its exit code.
_EXITS = """
def exits(code, *arguments):
    from sluice.pipelines import cli
    try:
        found = cli.main(list(arguments))
    except SystemExit as error:
        found = error.code
    assert found == code, (arguments, found)
"""
# Notes the modules in native code that are there when TensorFlow's library begins to open: others would wait for it.
_WATCHED = """
import sys
from sluice.pipelines import cli

def native():
    return {name for name, module in list(sys.modules.items()) if str(getattr(module, "__file__", "")).endswith(".so")}

begin, known = cli.begin_early, set()
def watched(words):
    begin(words)
    known.update(native())
cli.begin_early = watched
"""
# By what runs: its code, and what must not be imported at its end. MODEL, INPUT and OUTPUT are paths. One process runs
# all, so those that may import least stand first.
CASES = {
    "import sluice": ("import sluice", {*TENSORFLOW, *BEAM, *CLIENTS, "pyarrow"}),
    "sluice --help": (
        "exits(0, '--help')",
        {*TENSORFLOW, *BEAM, *CLIENTS, *YAML, *LIBRARY, *OURS, "numpy", "pyarrow"},
    ),
    "sluice predict": (
        _WATCHED + "import json\n"
        "row = {f'I{n}': n for n in range(1, 14)} | {f'C{n}': 'x' for n in range(1, 27)}\n"
        "exits(0, 'predict', '--model', MODEL, '--json', json.dumps(row))\n"
        "assert known and native() <= known, native() - known",
        {*TENSORFLOW, *BEAM, *CLIENTS, *YAML, *LIBRARY, *(OURS - {PREDICT}), "pandas", "numpy.ma", "urllib.request"},
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
    "the help of each command": (
        f"for name in {[*COMMANDS]}: exits(0, name, '--help')",
        TENSORFLOW | BEAM | CLIENTS,
    ),
    "sluice inspect, of a local model": ("exits(0, 'inspect', '--model', MODEL)", TENSORFLOW | BEAM | CLIENTS),
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
    "sluice streaming": ("import sluice.pipelines.streaming", {"tensorflow", "prometheus_client"}),
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


@pytest.fixture(scope="module")
def wrong(criteo: ZooSample, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is wrong with each case."""
    directory = tmp_path_factory.mktemp("startup")
    paths = {"MODEL": criteo.model, "INPUT": criteo.path("csv"), "OUTPUT": str(directory / "out.csv")}
    steps = {name: Step(_EXITS + code, forbidden) for name, (code, forbidden) in CASES.items()}
    return run_steps(steps, directory, **paths)


@pytest.mark.parametrize("name", CASES)
def test_a_command_imports_what_it_needs(name: str, wrong: dict[str, str]) -> None:
    assert wrong[name] == ""
