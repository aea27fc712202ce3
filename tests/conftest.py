"""Fixtures of several test modules, and what is set for all of them: order, markers, hypothesis."""

import os
import random
import signal
from collections.abc import Callable, Iterator, Mapping

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings

from sluice.models import zoo
from tests.support.bigquery.cases import load, make_births
from tests.support.paths import ROOT
from tests.support.saved_models.cases import CASES
from tests.support.saved_models.zoo import ZooSample, ZooSamples
from tests.support.servers import (
    BigQuery,
    Gcs,
    Pubsub,
    beam_uses,
    bigquery_clients_use,
    bigquery_emulator,
    gcs_emulator,
    pubsub_clients_use,
    pubsub_emulator,
)
from tests.support.serving.backends import Uris, uris_of
from tests.support.shared import SharedDirectory
from tests.support.sizes import size

# No test depends on time: a busy machine draws the first example, and makes the first call, in seconds.
# A directory of a test may hold files of several of its examples.
_UNCHECKED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
settings.register_profile("default", max_examples=size(40, soak=400), deadline=None, suppress_health_check=_UNCHECKED)
# On CI the examples are the same at every run, so that what passed passes again; elsewhere they are drawn anew.
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# Fixtures that start a server or train models, and those of tables as large as `make soak` wants them.
_SERVERS = {"gcs", "pubsub", "bigquery", "zoo_samples", "zoo_uris", "uris"}
_SOAKED = {"births", "births_table"}
# Its files run whole jobs; a test of another folder that does is marked `job`.
_JOBS = ROOT / "tests" / "pipelines"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run files, and the tests of a file, in random order")


def pytest_configure(config: pytest.Config) -> None:
    """Where the shell ignores SIGINT for what runs in the background, tests and their processes still see it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Names bytes by their argument: those of a gzip or Avro file differ between the workers, and ids may not."""
    return argname if isinstance(val, bytes) else None


@pytest.hookimpl(tryfirst=True)  # before what `-m` leaves out is left out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what takes long, and puts it first, so that no worker is left with it at the end."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & _SERVERS or item.path.parent == _JOBS or item.get_closest_marker("job"):
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


@pytest.fixture(scope="session")
def gcs() -> Iterator[Gcs]:
    """A GCS emulator that gs:// paths go to, from its first test on until the session ends."""
    with gcs_emulator() as server, beam_uses(server):
        yield server


@pytest.fixture(scope="session")
def pubsub() -> Iterator[Pubsub]:
    """A Pub/Sub emulator that clients go to, from its first test on until the session ends."""
    with pubsub_emulator() as server, pubsub_clients_use(server):
        yield server


@pytest.fixture(scope="session")
def bigquery(gcs: Gcs) -> Iterator[BigQuery]:
    """A BigQuery emulator that Google's clients go to, from its first test on until the session ends."""
    with bigquery_emulator(gcs) as server, bigquery_clients_use(server):
        _emulators.append(server)
        yield server
        _emulators.clear()


_emulators: list[BigQuery] = []


@pytest.fixture(autouse=True)
def datasets_of_one_test() -> Iterator[None]:
    """Deletes the datasets that a test has made, and not those of fixtures of many tests."""
    kept = [dataset for server in _emulators for dataset in server.datasets]
    yield
    for server in _emulators:
        server.drop_datasets(kept)


@pytest.fixture(scope="session")
def births() -> pa.Table:
    """Rows in natality's shape, nulls among them."""
    return make_births(size(20_000, soak=200_000))


@pytest.fixture(scope="session")
def births_table(bigquery: BigQuery, births: pa.Table) -> str:
    """The table that holds them."""
    return load(bigquery, births)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> SharedDirectory:
    return SharedDirectory(tmp_path_factory)


@pytest.fixture(scope="session")
def zoo_samples(shared: SharedDirectory) -> Mapping[str, ZooSample]:
    """The models of the zoo, each trained when it is first asked for, and 700 rows for it in every format."""
    return ZooSamples(shared, rows=700)


@pytest.fixture(scope="session")
def criteo(zoo_samples: Mapping[str, ZooSample]) -> ZooSample:
    return zoo_samples["criteo"]


@pytest.fixture(scope="session")
def cases(shared: SharedDirectory) -> Callable[[str], str]:
    """Builds a SavedModel of tests.support.saved_models.cases by name, once; returns its directory."""
    by_name = {case.name: case for case in CASES}
    return lambda name: str(shared.made(name, lambda directory: by_name[name].build(str(directory))))


@pytest.fixture(scope="session")
def uris(cases: Callable[[str], str]) -> Iterator[Uris]:
    """The URI of a SavedModel of `CASES`, by backend and name; one server serves them all."""
    with uris_of(cases, [case.name for case in CASES]) as uri:
        yield uri


@pytest.fixture(scope="session")
def zoo_uris(zoo_samples: Mapping[str, ZooSample]) -> Iterator[Uris]:
    """The URI of a model of the zoo, likewise."""
    with uris_of(lambda name: zoo_samples[name].model, zoo.NAMES) as uri:
        yield uri
