"""What is remembered of the arguments of methods is what Beam finds."""

import functools
from typing import Any

import apache_beam as beam
from apache_beam.transforms import core

from sluice.transforms.predict.batches import PredictBatches
from tests.support.quick_beam import Remembering, remember_arguments


def wrapped(function: Any) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


class Timed(beam.DoFn):
    def process(self, element: Any, window: Any = beam.DoFn.WindowParam, *others: Any, last: int = 1) -> Any: ...

    @wrapped
    def finish_bundle(self, window: Any = beam.DoFn.WindowParam) -> Any: ...

    @classmethod
    def make(cls, number: int = 3) -> Any: ...


def test_it_is_what_beam_finds() -> None:
    remember_arguments()
    found = core.get_function_args_defaults
    assert isinstance(found, Remembering)
    remember_arguments()
    assert core.get_function_args_defaults is found, "it wraps Beam's own"
    for kind in (Timed, PredictBatches):
        bound = [getattr(kind.__new__(kind), name) for name in dir(kind) if callable(getattr(kind, name))]
        for method in [each for each in bound if hasattr(each, "__func__")]:
            for _ in range(2):
                assert found(method) == found.find(method)
    assert found(Timed().process) == (["element", "window"], [beam.DoFn.WindowParam])
    assert found(lambda one, other=2: None) == (["one", "other"], [2])


def test_an_answer_may_be_changed() -> None:
    found = Remembering(core.get_function_args_defaults)
    for part in found(Timed().process):
        part.clear()
    assert found(Timed().process) == (["element", "window"], [beam.DoFn.WindowParam])
