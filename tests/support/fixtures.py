"""Fixtures of several test modules: servers, models, and tables. conftest.py loads them where tests run."""

from collections.abc import Callable, Iterator, Mapping

import pyarrow as pa
import pytest

from sluice.models import zoo
from tests.support.bigquery.cases import load, make_births
from tests.support.saved_models.built import BuiltModels
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
def cases(pytestconfig: pytest.Config) -> Callable[[str], str]:
    """Returns the directory of a SavedModel of tests.support.saved_models.built by its name."""
    assert pytestconfig.cache is not None
    return BuiltModels(pytestconfig.cache.mkdir("saved_models"))


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
