"""A base path with hand-made versions, and a model that follows them; loading is faked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sluice.models.files import LocalFiles, ModelFiles
from sluice.models.interface import ModelOptions, Outputs
from sluice.models.protos import message_class
from sluice.models.saved_model.followed import FollowedModel
from sluice.models.saved_model.versions import Version
from sluice.models.tensors.binding import Feeds
from sluice.models.uri import ModelSpec
from tests.support.fakes import FakeModel, double

FLOAT, STRING, INT64 = 1, 7, 9
SHARD = "variables/variables.data-00000-of-00001"

# A version's answer.
Answer = Callable[[Feeds], Outputs]


def write_version(base: Path, name: str, signature: str = "serving_default", x: int = INT64, **outputs: int) -> Path:
    """Writes a complete version of X_TO_Y, or of a variant of it, with variables."""
    made = message_class("tensorflow.SavedModel")(saved_model_schema_version=1)
    meta_graph = made.meta_graphs.add()
    meta_graph.meta_info_def.tags.append("serve")
    meta_graph.graph_def.node.add(name="w", op="VarHandleOp")
    definition = meta_graph.signature_def[signature]
    tensors = [(definition.inputs, "x", x)]
    tensors += [(definition.outputs, *each) for each in {"text": STRING, "y": INT64, **outputs}.items()]
    for infos, key, dtype in tensors:
        infos[key].name, infos[key].dtype = f"{name}_{key}:0", dtype
        infos[key].tensor_shape.dim.add(size=-1)
    (base / name / "variables").mkdir(parents=True)
    for file, content in (("variables/variables.index", b"i"), (SHARD, b"shard")):
        (base / name / file).write_bytes(content)
    (base / name / "saved_model.pb").write_bytes(made.SerializeToString())
    return base / name


class Opener:
    """Opens fake models; a test sets how a version answers, or that it cannot be opened."""

    def __init__(self) -> None:
        self.answers: dict[int, Answer] = {}
        self.errors: dict[int, Exception] = {}
        self.models: dict[int, FakeModel] = {}
        self.opened: list[int] = []
        self.options: list[ModelOptions] = []

    def __call__(self, uri: str, version: Version, options: ModelOptions, files: ModelFiles) -> FakeModel:
        number = version.number
        assert number is not None
        self.opened.append(number)
        self.options.append(options)
        if number in self.errors:
            raise self.errors[number]
        model = self.models[number] = FakeModel(self.answers.get(number, double))
        model.version = number
        return model


class Files(LocalFiles):
    """Files that can be made unreadable."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.copies: list[str] = []

    def match(self, pattern: str) -> list[str]:
        self._check()
        return super().match(pattern)

    def local_copy(self, directory: str) -> str:
        self._check()
        self.copies.append(directory)
        return super().local_copy(directory)

    def _check(self) -> None:
        if self.fault:
            raise self.fault


class Setting:
    """A base path with versions, and a model that looks for new ones when the test says so."""

    def __init__(self, base: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.base, self.opener, self.files = base, Opener(), Files()
        self._caplog = caplog
        self._opened: FollowedModel | None = None

    @property
    def model(self) -> FollowedModel:
        return self._opened or self.use()

    def use(self, **arguments: Any) -> FollowedModel:
        """Opens the model with these arguments."""
        spec, options = ModelSpec(str(self.base)), ModelOptions(poll_secs=60.0)
        self._opened = FollowedModel(spec, options, self.files, open_version=self.opener, **arguments)
        return self._opened

    def close(self) -> None:
        if self._opened:
            self._opened.close()

    def write(self, name: str, **how: Any) -> Path:
        return write_version(self.base, name, **how)

    def poll(self, times: int = 2) -> int | None:
        """Looks for new versions twice, which a new one takes; returns the version that is followed then."""
        for _ in range(times):
            self.model.poll()
        return self.model.version

    def logged(self) -> list[str]:
        """Returns the lines logged since the last call."""
        lines = [f"{record.levelname} {record.getMessage()}" for record in self._caplog.records]
        self._caplog.clear()
        return [line.replace(str(self.base), "BASE") for line in lines]


def export_version(directory: str, number: int, fails: bool = False) -> None:
    """Writes a model that adds 1000 times its number, held in a variable, to x; or one that fails on any x."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        added = v1.get_variable("added", initializer=1000.0 * number, use_resource=True)
        y = tf.debugging.check_numerics(tf.sqrt(-1.0 - x * x), "no number") if fails else x + added
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, directory, {"x": x}, {"y": y})
