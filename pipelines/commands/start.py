"""The start of `sluice batch` and `sluice streaming`: what takes seconds is done side by side, and once."""

import contextlib
import gc
import sys
from collections.abc import Iterator, Sequence

from sluice.models.errors import UsageError
from sluice.models.saved_model.native.library import begin_to_load
from sluice.models.uri import parse_model_uri
from sluice.pipelines.commands.without_pandas import without_pandas
from sluice.pipelines.progress.phases import IMPORTS, Phases, process_age

# With one of these flags of Beam's, the job may run in other processes than this.
_ELSEWHERE = ("--runner", "--direct_running_mode")


@contextlib.contextmanager
def importing(phases: Phases, model: str, beam_flags: Sequence[str]) -> Iterator[None]:
    """Spares imports what makes them slow; times them, for the process's first job, from the process's start.

    Garbage is not collected meanwhile: the collector would go over the modules again and again, and find nothing. Nor
    does it look at them later, which would stop all rows for a quarter of a second, and the process's exit for another.
    TensorFlow's library is loaded beside them, if it seems that a model will be loaded here. Beam does without pandas.
    """
    if "apache_beam" in sys.modules:
        with phases.timed(IMPORTS):
            yield
        return
    with phases.timed(IMPORTS, before=process_age()), _without_collections(), without_pandas():
        _import_extensions()
        if _may_load(model, beam_flags):
            begin_to_load()
        yield


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def _import_extensions() -> None:
    """Imports the modules in native code that a job needs: none can be imported while another library is loaded."""
    import tfx_bsl.coders.example_coder  # noqa: F401


def _may_load(model: str, beam_flags: Sequence[str]) -> bool:
    if any(flag.startswith(_ELSEWHERE) for flag in beam_flags):
        return False
    try:
        return parse_model_uri(model).is_here
    except UsageError:  # the plan will say so
        return False
