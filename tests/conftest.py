"""What is set for all tests: order, markers, hypothesis. Their common fixtures are in tests.support.fixtures."""

import gc
import os
import random
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support import fast
from tests.support.paths import ROOT
from tests.support.quick_beam import remember_arguments
from tests.support.quick_logs import remember_loggers
from tests.support.quiet_worker import send_less
from tests.support.selection import reaches
from tests.support.sizes import SOAK, example_count

# No test depends on time: a busy machine draws the first example, and makes the first call, in seconds.
# A directory of a test may hold files of several of its examples.
_UNCHECKED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
settings.register_profile("default", max_examples=example_count(40), deadline=None, suppress_health_check=_UNCHECKED)
# On CI the examples are the same at every run, so that what passed passes again; elsewhere they are drawn anew.
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# Fixtures of tables as large as `make soak` wants them.
_SOAKED = {"births", "births_table"}
# Its files run whole jobs; a test of another folder that does is marked `job`.
_JOBS = ROOT / "tests" / "pipelines"
_ENGINES = ROOT / "tests" / "engines"
# What the code of a test, or of what it uses of the tests, names if it builds a pipeline of Beam, imports Python's
# TensorFlow (6 s of CPU in each worker), or starts another Python (`sys.executable`). `twin` is the one of Twins.
_DEAR = frozenset(
    {"Pipeline", "FnApiRunner", "tensorflow", "tensorflow_serving", "tfx_bsl", "twin", "Forked", "executable"}
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run files, and the tests of a file, in random order")


def pytest_configure(config: pytest.Config) -> None:
    """Where the shell ignores SIGINT for what runs in the background, tests and their processes still see it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The process that hands out tests to the workers of pytest-xdist runs none. It begins without Beam and the clients.
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        gc.disable()  # until all is imported
        send_less(config)
        remember_loggers()
        config.pluginmanager.import_plugin("tests.support.fixtures")
        if _is_fast(config):
            fast.refuse_tensorflow()
            config.pluginmanager.register(fast, fast.__name__)
    else:
        threading.Thread(target=_build_models, args=(config,), daemon=True).start()


def _build_models(config: pytest.Config) -> None:
    """Builds the SavedModels of the tests, if need be, while the workers collect: else all wait for it later."""
    from tests.support.saved_models.built import BuiltModels  # numpy and pyarrow, which this process can do without

    assert config.cache is not None
    BuiltModels(config.cache.mkdir("saved_models")).build()


def _is_fast(config: pytest.Config) -> bool:
    return bool(config.getoption("markexpr") == "not slow")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files of which every test would be left out are not imported; those of engines are, where ENGINES=1."""
    if collection_path == _ENGINES:
        return None if os.environ.get("ENGINES") == "1" else True
    return True if _is_fast(config) and collection_path.parent == _JOBS and collection_path.suffix else None


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Names bytes by their argument: those of a gzip or Avro file differ between the workers, and ids may not."""
    return argname if isinstance(val, bytes) else None


@pytest.hookimpl(tryfirst=True)  # before what `-m` leaves out is left out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what takes long, and puts it first, so that no worker is left with it at the end."""
    if not SOAK and (left := [item for item in items if item.get_closest_marker("soak_only")]):
        items[:] = [item for item in items if not item.get_closest_marker("soak_only")]
        config.hook.pytest_deselected(items=left)
    for item in items:
        fixtures = _fixtures(item)
        job = item.path.parent == _JOBS or item.get_closest_marker("job")
        if fixtures & fast.SERVERS or job or reaches(item, _DEAR):
            item.add_marker("slow")
        if fixtures & _SOAKED or getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("soak")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    if (seed := config.getoption("shuffle")) is not None:
        draw = random.Random(seed)
        places = {path: draw.random() for path in sorted({item.path for item in items})}
        items.sort(key=lambda item: (places[item.path], draw.random()))
    elif _is_fast(config):
        sizes = {path: path.stat().st_size for path in {item.path for item in items}}
        items.sort(key=lambda item: -sizes[item.path])
    else:
        items.sort(key=lambda item: item.path not in slow)


def _fixtures(item: pytest.Item) -> set[str]:
    """Returns the fixtures of a test. Where a model is loaded in this process, `uris` starts no server."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    in_process = {"uris"} if params.get("backend") == "saved_model" else set()
    return set(getattr(item, "fixturenames", ())) - in_process


def pytest_collection_finish() -> None:
    """What has been imported and collected stays, so the garbage collector need not look at it after each test."""
    remember_arguments()
    gc.freeze()  # with the garbage, a tenth of it: to collect that takes longer than a hundred tests
    gc.enable()
