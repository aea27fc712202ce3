"""`SluiceModelHandler`: any Sluice model, a SavedModel or an endpoint, inside Beam's own RunInference.

It is for pipelines that already use RunInference: they get the named inputs and outputs of the model, endpoints,
retries and the shared mini-batching. `transforms.predict.Predict` costs less for each row, and a bad row costs one
row, where RunInference loses the batch.
"""

import concurrent.futures
import dataclasses
import decimal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from apache_beam.ml.inference.base import ModelHandler, PredictionResult

from sluice.models.batching.mini_batch import RowFailure
from sluice.models.batching.scheduler import Scheduler
from sluice.models.batching.tickets import Prediction
from sluice.models.cache import ModelRecipe, shared_scheduler
from sluice.models.errors import CallError, UsageError
from sluice.models.files import ModelFiles
from sluice.models.signature import ColumnSpec, Signature
from sluice.models.tensors.binding import Bound
from sluice.models.tensors.column_types import type_fits
from sluice.transforms.core.beam_files import BeamFiles
from sluice.transforms.core.outputs import rows_of

Row = Mapping[str, Any]
# The errors of pyarrow, and of numbers, that mean that a value does not fit.
_MISFIT = (pa.ArrowException, TypeError, ValueError, OverflowError)


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model in this process.

    Beam shares it with other processes (`large_model`, `model_copies`, several handlers of a KeyedModelHandler) by a
    proxy that has its methods and no attributes.
    """

    scheduler: Scheduler

    def predict(self, rows: Sequence[Any]) -> list[dict[str, Any] | RowFailure]:
        """Returns the outputs of each row by name, or the reason why it has none."""
        return predict_rows(rows, self.scheduler)

    def uri(self) -> str:
        """Returns the URI of the model."""
        return self.scheduler.model.uri


class SluiceModelHandler(ModelHandler[Any, PredictionResult, LoadedModel]):
    """Makes a Sluice model usable as `RunInference(SluiceModelHandler(recipe))`.

    An example maps the column names of the signature to values: scalars, lists or NumPy arrays. If the model has a
    single column, an example may be the value itself. The `inference` of a prediction maps the names of the outputs to
    their values.

    Args:
      recipe: the model, and the mini-batching of its calls.
      on_failure: "raise": a row that cannot be predicted fails the batch, as RunInference expects. "return": such a row
        has a `models.batching.mini_batch.RowFailure` as its inference, and the others have their predictions.
      files: read the files of the model; Beam's FileSystems by default.
      batching: `min_batch_size` and the other arguments of Beam's ModelHandler.
    """

    def __init__(
        self,
        recipe: ModelRecipe,
        on_failure: Literal["raise", "return"] = "raise",
        files: ModelFiles | None = None,
        **batching: object,
    ) -> None:
        super().__init__(**batching)
        if on_failure not in ("raise", "return"):
            raise UsageError(f"on_failure is {on_failure!r}; give 'raise' or 'return'")
        self._recipe = recipe
        self._on_failure = on_failure
        self._files = files

    def load_model(self) -> LoadedModel:
        """Returns the model, whose scheduler is one for the process."""
        return LoadedModel(shared_scheduler(self._recipe, self._files or BeamFiles()))

    def run_inference(
        self, batch: Sequence[Any], model: LoadedModel, inference_args: dict[str, Any] | None = None
    ) -> Iterable[PredictionResult]:
        """Returns a prediction for each example, in order.

        Raises:
          CallError: a row cannot be predicted, and `on_failure` is "raise". The text names the first such row.
        """
        results = model.predict(batch)
        failed = [(row, result) for row, result in enumerate(results) if isinstance(result, RowFailure)]
        if failed and self._on_failure == "raise":
            row, failure = failed[0]
            raise CallError(
                f"{len(failed)} of {len(batch)} rows cannot be predicted; the first is row {row} of the batch: "
                f"{failure.type}: {failure.message}"
            )
        uri = model.uri()
        return [PredictionResult(row, result, uri) for row, result in zip(batch, results, strict=True)]

    def get_num_bytes(self, batch: Sequence[Any]) -> int:
        """Returns roughly the number of bytes. Beam's own estimate pickles the batch."""
        return sum(_size(value) for row in batch for value in (row.values() if isinstance(row, Mapping) else [row]))

    def get_metrics_namespace(self) -> str:
        """Returns the namespace of RunInference's metrics."""
        return "BeamML_Sluice"

    def update_model_path(self, model_path: str | None = None) -> None:
        """Refuses another model.

        Raises:
          UsageError: a path is given. A model of another path may have another signature.
        """
        if model_path is not None:
            raise UsageError(f"the model is fixed to {self._recipe.spec.uri}; it cannot be changed to {model_path}")


def predict_rows(rows: Sequence[Any], scheduler: Scheduler) -> list[dict[str, Any] | RowFailure]:
    """Returns the outputs of each row by name, or the reason why it has none."""
    batch, misfits = to_batch(rows, scheduler.model.signature)
    bound = scheduler.model.bind(batch)
    tickets = [(group, scheduler.submit(group.feeds)) for group in bound.groups]
    concurrent.futures.wait([ticket.future for _, ticket in tickets])
    results: dict[int, dict[str, Any] | RowFailure] = {}
    for group, ticket in tickets:
        prediction = ticket.future.result()
        members = np.arange(group.size) if group.rows is None else group.rows
        results |= {int(members[row]): failure for row, failure in prediction.failures.items()}
        results |= zip(rows_of(group, prediction).tolist(), _outputs(prediction), strict=True)
    results |= _failures(bound, misfits)
    return [results[row] for row in range(len(rows))]


def _outputs(prediction: Prediction) -> Iterator[dict[str, Any]]:
    arrays = {
        name: array.to_pylist() if isinstance(array, pa.Array) else np.asarray(array)
        for name, array in prediction.arrays.items()
    }
    count = sum(rows for rows, _ in prediction.versions)
    return ({name: array[row] for name, array in arrays.items()} for row in range(count))


def _failures(bound: Bound, misfits: Mapping[int, str]) -> dict[int, RowFailure]:
    return {row: RowFailure("InvalidRow", text) for row, text in (bound.errors | dict(misfits)).items()}


def to_batch(rows: Sequence[Any], signature: Signature) -> tuple[pa.RecordBatch, dict[int, str]]:
    """Returns rows as the columns of a signature, and the rows that do not fit, with the reason; they are null.

    Columns that no row has are left out, so that the defaults of the model apply.
    """
    specs = signature.columns or (ColumnSpec(signature.inputs[0].name, "string"),)
    if len(specs) == 1:
        rows = [row if isinstance(row, Mapping) else {specs[0].name: row} for row in rows]
    misfits = {row: f"a {type(value).__name__}, not a mapping of columns" for row, value in enumerate(rows)
               if not isinstance(value, Mapping)}  # fmt: skip
    named = [{} if row in misfits else value for row, value in enumerate(rows)]
    columns = {
        spec.name: _column([row.get(spec.name) for row in named], spec, misfits)
        for spec in specs
        if any(spec.name in row for row in named)
    }
    if not columns:
        columns = {specs[0].name: pa.nulls(len(rows), _bytes_for_text(specs[0].arrow_type))}
    return pa.RecordBatch.from_arrays(list(columns.values()), list(columns)), misfits


def _column(values: list[Any], spec: ColumnSpec, misfits: dict[int, str]) -> pa.Array:
    """Returns a column of the values' own type, which the binding casts and checks: pyarrow would cut 2.7 to 2."""
    kind = _wide(_bytes_for_text(spec.arrow_type))
    plain = [_plain(value, spec, kind) for value in values]
    try:
        array = pa.array(plain) if _is_number(kind) else pa.array(plain, kind)
        if type_fits(array.type, spec) and not (_is_number(kind) and any(map(_has_bool, plain))):
            return array
    except _MISFIT:
        pass
    return pa.concat_arrays([_cell(row, value, spec, kind, misfits) for row, value in enumerate(plain)])


def _has_bool(value: object) -> bool:
    """Whether it is or holds a truth value: among numbers pyarrow takes it for 1 or 0, and alone for itself."""
    if not isinstance(value, list):
        return isinstance(value, bool)
    kinds = set(map(type, value))
    return bool in kinds or (list in kinds and any(map(_has_bool, value)))


def _wide(kind: pa.DataType) -> pa.DataType:
    """Returns the widest type of the same kind of numbers, in which the binding finds those out of range."""
    if pa.types.is_list(kind):
        return pa.list_(_wide(kind.value_type))
    if pa.types.is_floating(kind):
        return pa.float64()
    return pa.int64() if pa.types.is_integer(kind) and not pa.types.is_uint64(kind) else kind


def _is_number(kind: pa.DataType) -> bool:
    while pa.types.is_list(kind):
        kind = kind.value_type
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _number(value: object, kind: pa.DataType) -> object:
    """Returns a value, or lists of them, as numbers of this type.

    Raises:
      ValueError, TypeError, OverflowError: it is another number in this type, or no number.
    """
    if isinstance(value, list) and pa.types.is_list(kind):
        return [_number(each, kind.value_type) for each in value]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | decimal.Decimal):
        raise TypeError(f"{value!r} is no number")
    if pa.types.is_floating(kind):
        return float(value)
    if value != int(value):
        raise ValueError(f"{value} is no whole number")
    return int(value)


def _cell(row: int, value: object, spec: ColumnSpec, kind: pa.DataType, misfits: dict[int, str]) -> pa.Array:
    try:
        return pa.array([_number(value, kind) if _is_number(kind) else value], kind)
    except _MISFIT as error:
        misfits.setdefault(row, f"column '{spec.name}': {error}; the model takes {spec}")
        return pa.nulls(1, kind)


def _plain(value: object, spec: ColumnSpec, kind: pa.DataType) -> object:
    """Returns a value as Arrow accepts it: Python's types in place of NumPy's, nested in lists as the column is."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, tuple):
        value = list(value)
    if not pa.types.is_list(kind):
        return _only(value) if isinstance(value, list) else value
    return list(_leaves(value)) if isinstance(value, list) and not spec.nested else value


def _only(value: list[Any]) -> object:
    leaves = list(_leaves(value))
    return leaves[0] if len(leaves) == 1 else value


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each)
    else:
        yield value


def _bytes_for_text(kind: pa.DataType) -> pa.DataType:
    """Returns the type with bytes for strings, which need not be text."""
    if pa.types.is_list(kind):
        return pa.list_(_bytes_for_text(kind.value_type))
    return pa.binary() if pa.types.is_string(kind) else kind


def _size(value: object) -> int:
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    return len(value) if isinstance(value, str | bytes) else 8
