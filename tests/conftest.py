"""Fixtures of several test modules."""

import os
from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest
from hypothesis import settings

from sluice.models import zoo
from tests.support.bigquery.cases import load, make_births
from tests.support.saved_models.cases import CASES, build_case
from tests.support.saved_models.zoo import ZooSample, make_sample
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

# On CI the examples are the same at every run, so that what passed passes again; elsewhere they are drawn anew.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


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
    """200,000 rows in natality's shape, nulls among them."""
    return make_births(200_000)


@pytest.fixture(scope="session")
def births_table(bigquery: BigQuery, births: pa.Table) -> str:
    """The table that holds them."""
    return load(bigquery, births)


@pytest.fixture(scope="session")
def zoo_samples(tmp_path_factory: pytest.TempPathFactory) -> "dict[str, ZooSample]":
    """Every model of the zoo, trained, and 700 rows for it in every format."""
    return {name: make_sample(name, tmp_path_factory.mktemp(name), rows=700) for name in zoo.NAMES}


@pytest.fixture(scope="session")
def criteo(zoo_samples: "dict[str, ZooSample]") -> "ZooSample":
    return zoo_samples["criteo"]


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Builds a SavedModel of tests.support.saved_models.cases by name, once; returns its directory."""
    directory = tmp_path_factory.mktemp("cases")
    by_name = {case.name: case for case in CASES}
    return lambda name: build_case(by_name[name], str(directory))


@pytest.fixture(scope="session")
def uris(cases: Callable[[str], str]) -> Iterator[Uris]:
    """The URI of a SavedModel of `CASES`, by backend and name; one server serves them all."""
    with uris_of(cases, [case.name for case in CASES]) as uri:
        yield uri


@pytest.fixture(scope="session")
def zoo_uris(zoo_samples: "dict[str, ZooSample]") -> Iterator[Uris]:
    """The URI of a model of the zoo, likewise."""
    with uris_of(lambda name: zoo_samples[name].model, list(zoo_samples)) as uri:
        yield uri
