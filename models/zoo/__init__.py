"""Well-known models, small enough to train in seconds: each generates its rows, trains, and exports a SavedModel."""

import importlib

from sluice.models.errors import UsageError
from sluice.models.zoo.base import ZooModel

NAMES = ("criteo", "natality", "census", "mnist")


def get(name: str) -> ZooModel:
    """Returns the model of this name.

    Raises:
      UsageError: the zoo has no such model.
    """
    if name not in NAMES:
        raise UsageError(f"the zoo has no model {name!r}; it has {', '.join(NAMES)}")
    model: ZooModel = importlib.import_module(f"sluice.models.zoo.{name}").MODEL
    return model
