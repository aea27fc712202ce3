"""Checkouts of Sluice that are compared with each other, and the data that all of them read."""

import dataclasses
import os
import sys
from collections.abc import Iterable, Mapping

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATA = os.path.join(ROOT, "benchmarks", "data")
MODEL = os.path.join(DATA, "model")

# Runs the command `sluice` of a checkout, also of one from before the packages had one import name.
COMMAND = """
import importlib.util, sys
name = "sluice.pipelines.cli" if importlib.util.find_spec("sluice") else "pipelines.cli"
sys.exit(importlib.import_module(name).main())
"""


@dataclasses.dataclass(frozen=True)
class Checkout:
    """A checkout of Sluice, with an environment of its own in .venv, or else that of this process."""

    path: str

    @property
    def name(self) -> str:
        return "this checkout" if self.path == ROOT else os.path.basename(self.path)

    @property
    def python(self) -> str:
        own = os.path.join(self.path, ".venv", "bin", "python")
        return own if os.path.exists(own) else sys.executable

    @property
    def environment(self) -> Mapping[str, str]:
        return os.environ | {"PYTHONPATH": self.path}


def checkouts(against: str | None) -> list[Checkout]:
    """Returns this checkout, and the other one if there is one to compare with."""
    return [Checkout(ROOT), *([Checkout(os.path.abspath(against))] if against else [])]


def prepare(sizes: Iterable[int], formats: tuple[str, ...]) -> None:
    """Makes the model, and a file of each size in each format, unless they exist."""
    from sluice.models import zoo
    from sluice.models.zoo.export import export_model
    from sluice.models.zoo.sample import write_samples

    criteo = zoo.get("criteo")
    if not os.path.exists(os.path.join(MODEL, "1", "saved_model.pb")):
        export_model(criteo, MODEL)
    for rows in sizes:
        missing = tuple(format_ for format_ in formats if not os.path.exists(source(rows, format_)))
        if missing:
            partial = os.path.join(DATA, f"{rows}.partial")
            os.makedirs(partial, exist_ok=True)
            os.makedirs(os.path.join(DATA, str(rows)), exist_ok=True)
            write_samples(criteo, partial, rows, missing)
            for format_ in missing:
                os.rename(os.path.join(partial, f"criteo.{format_}"), source(rows, format_))


def source(rows: int, format_: str) -> str:
    """Returns the path of the file of so many rows."""
    return os.path.join(DATA, str(rows), f"criteo.{format_}")


def signature(format_: str) -> str:
    """Returns the model's signature for rows of a format."""
    return "serving_examples" if format_ == "tfrecord" else "serving_default"
