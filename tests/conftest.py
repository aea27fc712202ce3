"""What is set for all tests: order, markers, hypothesis. Their common fixtures are in tests.support.fixtures."""

import os
import random
import signal

import pytest
from hypothesis import HealthCheck, settings

from tests.support.paths import ROOT
from tests.support.selection import reaches
from tests.support.sizes import example_count

# No test depends on time: a busy machine draws the first example, and makes the first call, in seconds.
# A directory of a test may hold files of several of its examples.
_UNCHECKED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
settings.register_profile("default", max_examples=example_count(40), deadline=None, suppress_health_check=_UNCHECKED)
# On CI the examples are the same at every run, so that what passed passes again; elsewhere they are drawn anew.
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# Fixtures that start a server or train models, and those of tables as large as `make soak` wants them.
_SERVERS = {"gcs", "pubsub", "bigquery", "zoo_samples", "zoo_uris", "uris"}
_SOAKED = {"births", "births_table"}
# Its files run whole jobs; a test of another folder that does is marked `job`.
_JOBS = ROOT / "tests" / "pipelines"
# What a test names, itself or by the functions of its file, that builds a pipeline of Beam.
_PIPELINES = frozenset({"Pipeline", "FnApiRunner"})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run files, and the tests of a file, in random order")


def pytest_configure(config: pytest.Config) -> None:
    """Where the shell ignores SIGINT for what runs in the background, tests and their processes still see it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The process that hands out tests to the workers of pytest-xdist runs none. It begins without Beam and the clients.
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("tests.support.fixtures")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Names bytes by their argument: those of a gzip or Avro file differ between the workers, and ids may not."""
    return argname if isinstance(val, bytes) else None


@pytest.hookimpl(tryfirst=True)  # before what `-m` leaves out is left out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what takes long, and puts it first, so that no worker is left with it at the end."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        job = item.path.parent == _JOBS or item.get_closest_marker("job")
        if fixtures & _SERVERS or job or reaches(getattr(item, "obj", None), _PIPELINES):
            item.add_marker("slow")
        if fixtures & _SOAKED or getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("soak")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    if (seed := config.getoption("shuffle")) is not None:
        draw = random.Random(seed)
        places = {path: draw.random() for path in sorted({item.path for item in items})}
        items.sort(key=lambda item: (places[item.path], draw.random()))
    else:
        items.sort(key=lambda item: item.path not in slow)
