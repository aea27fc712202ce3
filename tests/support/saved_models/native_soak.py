"""Calls natively loaded models with random shapes, types and errors, many times, and compares with known functions.

`python -m tests.support.saved_models.native_soak CALLS SEED DIRECTORY` prints the memory of the process on the way. The
directory has the models of `SOAKED` by name. In a process of its own nothing else grows, and a crash is an exit code.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sluice.models.files import LocalFiles
from sluice.models.saved_model.native.library import load_library
from sluice.models.saved_model.native.session import Session
from sluice.models.saved_model.reasons import TensorFlowError
from sluice.models.saved_model.session_options import SessionOptions
from sluice.models.saved_model.signature_reader import read_signatures
from sluice.models.saved_model.start_line import resident_bytes
from sluice.models.saved_model.versions import read_meta_graph
from tests.support.saved_models.case import save_function
from tests.support.saved_models.stateful import STATEFUL
from tests.support.saved_models.twins import Lent, same

Arrays = dict[str, np.ndarray]

# The types of numbers that a column can have.
_NUMBERS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_THREADS = 4
_ERROR_SHARE = 0.1
# A table keeps each text that it was fed, so there is a stock of them.
_STOCK = 300
_EMPTY_KEYS = (b"\1", b"\2")


def build_typed(directory: str) -> None:
    """Every type of number, and bool, in any rank: answers with each backwards along its rows."""
    import tensorflow as tf

    names = (*_NUMBERS, "bool")

    @tf.function(input_signature=[tf.TensorSpec(None, tf.as_dtype(name), name=name) for name in names])
    def serve(*given: Any) -> dict[str, Any]:
        return {
            f"{name}_back": tf.gather(value, tf.range(tf.shape(value)[0] - 1, -1, -1))
            for name, value in zip(names, given, strict=True)
        }

    save_function(directory, serve)


SOAKED = {"typed": build_typed, **{name: build for name, (build, _) in STATEFUL.items()}}


class Soaked:
    """A model, and the function that it is known to be."""

    def __init__(self, name: str, directory: str) -> None:
        meta_graph = read_meta_graph(directory, LocalFiles())
        signature = read_signatures(meta_graph)["serving_default"]
        self.inputs = [spec.name for spec in signature.inputs]
        self.outputs = [spec.name for spec in signature.outputs]
        library = load_library()
        assert library is not None
        session = Session(library, directory, meta_graph.graph_def, SessionOptions())
        self._run = session.prepare(
            [spec.tensors[0] for spec in signature.inputs], [spec.tensors[0] for spec in signature.outputs]
        )
        self.lock = threading.Lock()  # for models that remember the call before
        self.before: Arrays = {"text": _objects([b"first"]), "number": np.ones(1, np.float32)}
        self.table: dict[bytes, np.float32] = {}
        self.name = name

    def call(self, feeds: Arrays, offset: int) -> Arrays:
        """Returns the outputs. What was fed is spoilt afterwards."""
        lent = Lent([feeds[name] for name in self.inputs], offset)
        try:
            return dict(zip(self.outputs, map(np.asarray, self._run(lent.tensors)), strict=True))
        finally:
            lent.spoil()


def _objects(values: list[bytes]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


class Caller:
    """Makes random calls; for one thread."""

    def __init__(self, seed: int, models: Mapping[str, Soaked]) -> None:
        self._random = np.random.default_rng(seed)
        self._models = models
        self._stock = [b"%d-" % number + bytes([65 + number % 26]) * (number % 60) for number in range(_STOCK)]
        self.failed = 0

    def call(self) -> None:
        """Makes one call.

        Raises:
          AssertionError: the answer is wrong.
        """
        name = str(self._random.choice(list(self._models)))
        model, rows = self._models[name], self._rows()
        if self._random.random() < _ERROR_SHARE:
            self._fail(model, rows)
            return
        with model.lock:
            getattr(self, f"_call_{name}")(model, rows)

    def _rows(self) -> int:
        return int(self._random.choice([0, 1, self._random.integers(2, 60), self._random.integers(200, 2000)], p=_ROWS))

    def _texts(self, rows: int) -> np.ndarray:
        sizes = self._random.choice([0, 3, 12, 13, 22, 23, 60, 3000], rows, p=_SIZES)
        fill = self._random.integers(65, 91, rows).tolist()
        return _objects([bytes([letter]) * size for letter, size in zip(fill, sizes.tolist(), strict=True)])

    def _offset(self) -> int:
        return int(self._random.choice([0, 1, 8]))

    def _call_typed(self, model: Soaked, rows: int) -> None:
        feeds = {}
        for name in model.inputs:
            shape = (min(rows, 200), *self._random.integers(0, 4, self._random.integers(0, 3)).tolist())
            raw = self._random.integers(0, 2 if name == "bool" else 100, shape)
            feeds[name] = raw.astype(np.dtype(name))
        found = model.call(feeds, self._offset())
        assert all(same(found[f"{name}_back"], feeds[name][::-1]) for name in feeds), "typed"

    def _call_echo(self, model: Soaked, rows: int) -> None:
        number, text = self._random.random((rows, 3), np.float32) * 2, self._texts(rows)
        found = model.call({"number": number, "text": text}, self._offset())
        back = text[::-1]
        wanted = {
            "same": text,
            "backwards": back,
            "twice": np.stack([text, text], axis=1),
            "either": np.where(number[:, 0] > 1.0, text, back),
            "column": text.reshape(-1, 1),
            "numbers": number,
            "flat": number.reshape(-1),
            "joined": text + back if rows else text,
        }
        assert wanted.keys() == found.keys()
        assert all(same(found[name], wanted[name]) for name in wanted), "echo"

    def _call_variables(self, model: Soaked, rows: int) -> None:
        feeds = {"number": self._random.random(rows, np.float32), "text": self._texts(rows)}
        found = model.call(feeds, self._offset())
        assert all(same(found[name], model.before[name]) for name in feeds), "variables"
        model.before = feeds

    def _call_table(self, model: Soaked, rows: int) -> None:
        rows = min(rows, 100)
        asked, text = (_objects([self._stock[at] for at in self._random.integers(0, _STOCK, rows)]) for _ in range(2))
        text = _objects(sorted(set(text.tolist())))  # which of equal texts counts is not said
        number = self._random.random(len(text), np.float32)
        found = model.call({"asked": asked, "number": number, "text": text}, self._offset())["found"]
        wanted = np.array([model.table.get(each, np.float32(-1)) for each in asked], np.float32)
        assert same(found, wanted), model.name
        model.table.update(zip(text.tolist(), number, strict=True))

    _call_mutable_table = _call_dense_table = _call_table

    def _fail(self, model: Soaked, rows: int) -> None:
        """Calls with what the model, or TensorFlow, refuses."""
        if model.name == "echo":
            feeds = {"number": np.full((max(1, rows), 3), -1, np.float32), "text": self._texts(max(1, rows))}
        else:
            feeds = dict.fromkeys(model.inputs, np.zeros(2, np.complex128))
        try:
            model.call(feeds, 0)
        except TensorFlowError as error:
            assert error.code == 3, error
            self.failed += 1
        else:
            raise AssertionError(f"{model.name} answers what it should refuse")


_ROWS = (0.05, 0.25, 0.6, 0.1)
_SIZES = (0.1, 0.2, 0.2, 0.15, 0.15, 0.1, 0.098, 0.002)


def soak(calls: int, seed: int, directory: str, say: Callable[[str], None]) -> None:
    """Makes so many calls, and says how much memory the process holds before, half-way and after them.

    Raises:
      AssertionError: an answer was wrong, or memory grew.
    """
    models = {name: Soaked(name, os.path.join(directory, name)) for name in SOAKED}
    errors: list[BaseException] = []
    callers = [Caller(seed + number, models) for number in range(_THREADS)]

    def work(caller: Caller, count: int) -> None:
        try:
            for _ in range(count):
                caller.call()
        except BaseException as error:  # noqa: BLE001  it is raised again by the main thread
            errors.append(error)

    sizes = []
    for share in (0.1, 0.45, 0.45):  # the first tenth fills caches
        threads = [threading.Thread(target=work, args=(each, round(calls * share / _THREADS))) for each in callers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        sizes.append(resident_bytes() / 1e6)
    failed = sum(caller.failed for caller in callers)
    say(f"{calls} calls, of which {failed} were refused; memory {' -> '.join(f'{size:.0f}' for size in sizes)} MB")
    assert sizes[-1] - sizes[0] < _MOST_GROWTH_MB, sizes
    assert {"tensorflow", "keras"}.isdisjoint(sys.modules)


_MOST_GROWTH_MB = 40


if __name__ == "__main__":
    soak(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], print)
