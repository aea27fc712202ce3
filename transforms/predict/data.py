"""`predict`: adds the outputs of a model to data in memory. No Beam here, and no pandas unless a DataFrame is given."""

import collections
import concurrent.futures
import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Sequence
from typing import Generic, Literal, NamedTuple, TypeVar, cast, overload

import numpy as np
import pyarrow as pa

from sluice.models.batching.options import SchedulerOptions
from sluice.models.batching.scheduler import Scheduler
from sluice.models.batching.tickets import Ticket
from sluice.models.cache import ModelLike, recipe_of, schedule
from sluice.models.errors import BIND, FailedRow, RowsFailed, UsageError
from sluice.models.interface import Model, ModelOptions
from sluice.models.opened import OPENED
from sluice.models.signature import Signature
from sluice.models.tensors.arrays import number_array
from sluice.models.tensors.binding import Group
from sluice.transforms.core.model_files import files_of
from sluice.transforms.core.outputs import output_schema, score_rows
from sluice.transforms.core.rows import input_columns, name_taken
from sluice.transforms.predict.forms import Columns, form_of

Data = TypeVar("Data")

# Rows that are bound at once: several of the largest calls, so that the model always has one to go on with.
_SLICE_ROWS = 4 * 4096
# Slices in work at once.
_SLICES = 3
# The column that holds the place of a row among all.
_PLACE = "_sluice_place"


class Predicted(NamedTuple, Generic[Data]):
    """The rows that were predicted, and those that were not, in the form of the data that was given.

    Attributes:
      rows: with the outputs of the model.
      failures: with the columns `row` (its place in the data, from 0), `stage`, `error_type` and `error_message`; of a
        DataFrame, under the labels of the rows.
    """

    rows: Data
    failures: Data


@overload
def predict(
    model: ModelLike | Model,
    data: Data,
    *,
    on_failure: Literal["raise"] = "raise",
    output_prefix: str = "",
    options: ModelOptions | None = None,
) -> Data: ...


@overload
def predict(
    model: ModelLike | Model,
    data: Data,
    *,
    on_failure: Literal["return"],
    output_prefix: str = "",
    options: ModelOptions | None = None,
) -> Predicted[Data]: ...


def predict(
    model: ModelLike | Model,
    data: Data,
    *,
    on_failure: Literal["raise", "return"] = "raise",
    output_prefix: str = "",
    options: ModelOptions | None = None,
) -> Data | Predicted[Data]:
    """Returns the data with the outputs of a model as further columns.

    Args:
      model: a path or URI, or a recipe, whose model stays open for the next call, and is opened anew if its files have
        changed; or a model that is open.
      data: a pandas DataFrame, an Arrow Table or RecordBatch, or a list of dicts (NamedTuples and beam.Rows are taken
        too, and returned as dicts). The result is of the same form. Other columns than the model's stay as they are. In
        a DataFrame NaN stands for no value, as everywhere in pandas.
      on_failure: "raise": a row that cannot be predicted is an error, and so is every other row of the call. "return":
        returns what was predicted, and the failures beside it.
      output_prefix: a prefix for the names of the outputs.
      options: how to open the model: its signature, or values in place of nulls (`defaults`).

    Raises:
      RowsFailed: rows cannot be predicted; its `failures` names all of them.
      UsageError: there is no such model, or it and the data do not fit: the data lacks a column, or has one of the name
        of an output.
      CallError: the model cannot be called.
    """
    if on_failure not in ("raise", "return"):
        raise UsageError(f"on_failure is {on_failure!r}; give 'raise' or 'return'")
    form = form_of(data)
    with _scheduler_of(model, options) as (scheduler, defaults):
        check_names(form.names, scheduler.model.signature, output_prefix, defaults)
        answers = score_columns(form, scheduler, output_prefix)
    if answers.failures and on_failure == "raise":
        raise RowsFailed.of(answers.failures, form.rows)
    rows = cast(Data, form.join(answers.places, answers.outputs))
    return rows if on_failure == "raise" else Predicted(rows, cast(Data, form.failures(answers.failures)))


@contextlib.contextmanager
def _scheduler_of(
    model: ModelLike | Model, options: ModelOptions | None
) -> Iterator[tuple[Scheduler, frozenset[str] | None]]:
    """Yields the scheduler of a model, and the columns that have a default; None: it is not known which have."""
    if callable(getattr(model, "bind", None)):
        if options is not None:
            raise UsageError("options say how to open a model, and this one is open; give them to open_model")
        scheduler = schedule(cast(Model, model), SchedulerOptions(), ModelOptions())
        try:
            yield scheduler, None
        finally:
            scheduler.stop()
        return
    recipe = recipe_of(cast(ModelLike, model))
    recipe = recipe if options is None else dataclasses.replace(recipe, model=options)
    with OPENED.lend(recipe, files_of(recipe.spec)) as scheduler:
        yield scheduler, frozenset(name for name, _ in recipe.model.defaults)


def check_names(
    names: Sequence[str] | None, signature: Signature, output_prefix: str, defaults: Collection[str] | None
) -> None:
    """Checks the columns of a table. The rows of a list may each have others, and fail one by one.

    Args:
      defaults: columns that need not be there; None: whether one is missing is not checked.

    Raises:
      UsageError: a column is missing, or has the name of an output.
    """
    if names is None:
        return
    there = set(names)
    taken = [name for name in output_schema(signature, output_prefix).names if name in there]
    if taken:
        raise name_taken(taken)
    is_known = defaults is not None and signature.features != ()
    for spec in input_columns(signature, names) if is_known else ():
        if spec.required and spec.name not in there and spec.name not in (defaults or ()):
            found = ", ".join(map(str, names)) or "no column"
            raise UsageError(f"the model takes column '{spec.name}' ({spec}), and the data has only: {found}")


@dataclasses.dataclass(frozen=True)
class Answers:
    """What became of the rows.

    Attributes:
      places: int64 [n]: the rows that were predicted, in order.
      outputs: their outputs, [n].
      failures: the others, in order.
    """

    places: np.ndarray
    outputs: pa.Table
    failures: list[FailedRow]


@dataclasses.dataclass
class _Slice:
    """Rows that have been submitted together.

    Attributes:
      places: those that are bound, of all rows.
      errors: by place among these, the reason why a row does not fit.
      failures: rows that could not even become columns.
    """

    places: np.ndarray
    errors: dict[int, str]
    tickets: list[tuple[Group, Ticket]]
    failures: list[FailedRow]


def score_columns(rows: Columns, scheduler: Scheduler, output_prefix: str = "") -> Answers:
    """Returns the outputs of a model for all rows; while it works on some, the next ones are bound.

    Raises:
      CallError: the model cannot be called.
    """
    work: collections.deque[_Slice] = collections.deque()
    done: list[Answers] = []
    try:
        for start, stop in _slices(rows):
            work.append(_submit(rows, start, stop, scheduler))
            if len(work) == _SLICES:
                done.append(_finish(work[0], scheduler, output_prefix))
                work.popleft()
        while work:
            done.append(_finish(work[0], scheduler, output_prefix))
            work.popleft()
    finally:
        scheduler.cancel([ticket for part in work for _, ticket in part.tickets])
    schema = output_schema(scheduler.model.signature, output_prefix)
    return Answers(
        np.concatenate([np.empty(0, np.int64), *(each.places for each in done)]),
        pa.concat_tables([schema.empty_table(), *(each.outputs for each in done)]),
        [failure for each in done for failure in each.failures],
    )


def _slices(rows: Columns) -> Iterator[tuple[int, int]]:
    start = 0
    while start < rows.rows:
        stop = rows.end(start, min(rows.rows, start + _SLICE_ROWS))
        yield start, stop
        start = stop


def _submit(rows: Columns, start: int, stop: int, scheduler: Scheduler) -> _Slice:
    batch, misfits = rows.columns(start, stop, scheduler.model.signature)
    places = np.arange(start, stop)
    version = scheduler.version
    failures = [FailedRow(start + row, BIND, "InvalidRow", text, version) for row, text in misfits.items()]
    if misfits:
        kept = np.array([row for row in range(stop - start) if row not in misfits], np.int64)
        places, batch = places[kept], batch.take(pa.array(kept))
    if not len(places):
        return _Slice(places, {}, [], failures)
    bound = scheduler.model.bind(batch)
    tickets = [(dataclasses.replace(group, feeds={}), scheduler.submit(group.feeds)) for group in bound.groups]
    return _Slice(places, bound.errors, tickets, failures)


def _finish(part: _Slice, scheduler: Scheduler, output_prefix: str) -> Answers:
    """Waits for the answers to a slice."""
    concurrent.futures.wait([ticket.future for _, ticket in part.tickets])
    predictions = [(group, ticket.future.result()) for group, ticket in part.tickets]
    batch = pa.RecordBatch.from_arrays([number_array(part.places)], [_PLACE])
    model, version = scheduler.model, scheduler.version
    scored, failed = score_rows(batch, part.errors, predictions, model.signature, model.uri, output_prefix, version)
    failures = [*part.failures, *(each._replace(row=int(part.places[each.row])) for each in failed)]
    schema = output_schema(model.signature, output_prefix)
    if scored is None:
        return Answers(np.empty(0, np.int64), schema.empty_table(), sorted(failures))
    outputs = pa.Table.from_batches([scored]).select(schema.names)
    return Answers(scored.column(_PLACE).to_numpy(), outputs, sorted(failures))
