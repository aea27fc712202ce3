"""Stands for the service of a managed job: reads instances, and writes results as the service does."""

import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from sluice.models.endpoints.instances import KEY_FIELD
from sluice.models.errors import SluiceError
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import Failure
from sluice.transforms.files.read import Read
from sluice.transforms.managed.find_answers import FindAnswers
from sluice.transforms.managed.join_answers import Decoding, JoinAnswers
from sluice.transforms.managed.place import Answers, Place, Prepared
from sluice.transforms.managed.prepare import Encoding, PrepareInstances
from tests.support.fakes import X_TO_Y


def doubled(instance: dict[str, Any]) -> dict[str, Any]:
    """Returns what the model of tests.support.fakes.X_TO_Y makes of an instance."""
    return {"text": str(instance["x"]), "y": 2 * instance["x"]}


def instances_of(files: Iterable[Path]) -> list[dict[str, Any]]:
    """Returns the instances in files."""
    return [json.loads(line) for path in sorted(files) for line in path.read_text().splitlines()]


def answer(
    instances: list[dict[str, Any]],
    directory: Path,
    files: int = 3,
    batch: int = 64,
    is_bad: Callable[[dict[str, Any]], bool] = lambda instance: False,
    lost: Iterable[int] = (),
    seed: int | None = None,
) -> None:
    """Writes results.

    Args:
      batch: a bad row takes so many with it.
      lost: numbers of result files that are not written.
      seed: of the order of the answers; None: that of the instances.
    """
    lines, errors = list[str](), list[str]()
    for group in _groups(instances, batch):
        if any(map(is_bad, group)):
            errors.append(str(("the model refuses a row", len(group))))
            continue
        for instance in group:
            plain = {name: value for name, value in instance.items() if name != KEY_FIELD}
            lines.append(json.dumps({"key": instance[KEY_FIELD], "prediction": doubled(plain)}))
    if seed is not None:
        random.Random(seed).shuffle(lines)
    directory.mkdir(parents=True, exist_ok=True)
    size = -(-len(lines) // files)
    for number in range(files):
        part = lines[number * size : (number + 1) * size]
        if number not in lost:
            path = directory / f"prediction.results-{number:05d}-of-{files:05d}"
            path.write_text("".join(f"{line}\n" for line in part))
    (directory / "prediction.errors_stats-00000-of-00001").write_text("\n".join(errors))


def _groups(items: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    left = iter(items)
    while group := list(itertools.islice(left, size)):
        yield group


class FixedRows(Composite):
    """A reader of given batches and failures."""

    def __init__(self, batches: list[pa.RecordBatch], failures: list[Failure]) -> None:
        super().__init__()
        self._batches, self._failures = batches, failures

    def expand(self, pbegin: beam.pvalue.PBegin) -> Read:
        rows = sum(batch.num_rows for batch in self._batches) + len(self._failures)
        return Read(
            pbegin | "Rows" >> beam.Create(self._batches),
            pbegin | "Failures" >> beam.Create(self._failures).with_output_types(Failure),
            pbegin | "Tally" >> beam.Create([rows]),
        )


def prepare(
    place: Place, batches: list[pa.RecordBatch], failures: list[Failure] | None = None, max_rows: int = 1000
) -> Prepared:
    """Prepares rows for X_TO_Y."""
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        write = PrepareInstances(place, Encoding("m", X_TO_Y), max_rows)
        pipeline | "Read" >> FixedRows(batches, failures or []) | "Prepare" >> write
    prepared = Prepared.read(place)
    if prepared is None:
        raise SluiceError("there is no record")
    return prepared


def find(place: Place, job: str, directory: Path, again: bool = True, range_bytes: int = 4096) -> Answers:
    """Looks through results."""
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        pipeline | "Find" >> FindAnswers(place, job, str(directory), again, range_bytes)
    answers = Answers.read(place, job)
    if answers is None:
        raise SluiceError("there is no record")
    return answers


class Collected:
    """What a join has returned."""

    def __init__(self, directory: Path) -> None:
        self.rows = _read(directory / "rows")
        self.failures = [Failure(**each) for each in _read(directory / "failures")]
        self.earlier = [Failure(**each) for each in _read(directory / "earlier")]
        self.tally = sum(_read(directory / "tally"))


def join(place: Place, jobs: tuple[str, ...], directory: Path) -> Collected:
    """Joins answers to the rows."""
    directory.mkdir()
    decoding = Decoding("m", 7, X_TO_Y, "", "no answer")
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        joined = pipeline | "Join" >> JoinAnswers(place, decoding, jobs)
        for name, rows in joined._asdict().items():
            rows | f"Write{name}" >> beam.ParDo(_Append(str(directory / name)))
    return Collected(directory)


class _Append(beam.DoFn):
    """Writes elements as JSON to a file of its own."""

    def __init__(self, path: str) -> None:
        self._path = path

    def process(self, element: Any) -> None:
        values = element.to_pylist() if isinstance(element, pa.RecordBatch) else [element]
        with open(self._path, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(_plain(value)) + "\n" for value in values)


def _plain(value: Any) -> Any:
    if isinstance(value, Failure):
        return {name: getattr(value, name) for name in ("stage", "error_type", "error_message", "origin", "model")}
    if isinstance(value, dict):
        return {name: each for name, each in value.items() if not isinstance(each, bytes)}
    return value


def _read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
