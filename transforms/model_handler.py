"""`SluiceModelHandler`: any Sluice model, a SavedModel or an endpoint, inside Beam's own RunInference.

It is for pipelines that already use RunInference: they get the named inputs and outputs of the model, endpoints,
retries and the shared mini-batching. `sluice.Predict` costs less for each row, and a bad row costs one row, where
RunInference loses the batch.
"""

import concurrent.futures
import dataclasses
import inspect
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from apache_beam.ml.inference.base import ModelHandler, PredictionResult

from sluice.models.batching.mini_batch import RowFailure
from sluice.models.batching.scheduler import Scheduler
from sluice.models.batching.tickets import Prediction
from sluice.models.cache import ModelLike, open_scheduler, recipe_of, shared_scheduler
from sluice.models.errors import BIND, PREDICT, FailedRow, ModelLost, RowsFailed, UsageError
from sluice.models.files import ModelFiles
from sluice.models.tensors.binding import Bound
from sluice.models.uri import parse_model_uri
from sluice.transforms.core.beam_files import BeamFiles
from sluice.transforms.core.outputs import rows_of
from sluice.transforms.core.rows import row_bytes, to_batch
from sluice.transforms.core.worker import replace_worker

# The arguments of Beam's ModelHandler. It ignores others.
_BATCHING = {*inspect.signature(ModelHandler.__init__).parameters, "env_vars"} - {"self", "kwargs"}


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model in this process.

    Beam shares it with other processes (`large_model`, `model_copies`, several handlers of a KeyedModelHandler) by a
    proxy that has its methods and no attributes.

    Attributes:
      private: the log tells nothing that may quote a row.
    """

    scheduler: Scheduler
    private: bool = False

    def predict(self, rows: Sequence[Any]) -> list[dict[str, Any] | RowFailure]:
        """Returns the outputs of each row by name, or the reason why it has none.

        If the model is lost, the process that has it ends, as a worker of `sluice.Predict` does.
        """
        try:
            return predict_rows(rows, self.scheduler)
        except ModelLost as error:
            replace_worker(error, private=self.private)
            raise

    def uri(self) -> str:
        """Returns the URI of the model."""
        return self.scheduler.model.uri


class SluiceModelHandler(ModelHandler[Any, PredictionResult, LoadedModel]):
    """Makes a Sluice model usable as `RunInference(SluiceModelHandler(model))`.

    An example maps the column names of the signature to values: scalars, lists, NumPy arrays or tensors. It is a dict,
    a NamedTuple or a beam.Row. If the model has a single column, an example may be the value itself. The `inference`
    of a prediction maps the names of the outputs to their values.

    Args:
      model: a path or URI; or a recipe, which has options of the model and of the mini-batching of its calls. A side
        input of RunInference (`model_metadata_pcoll`) may change it to another path or URI, which is opened with the
        same options.
      on_failure: "raise": a row that cannot be predicted fails the batch, as RunInference expects. "return": such a row
        has a `models.batching.mini_batch.RowFailure` as its inference, and the others have their predictions.
      files: read the files of the model; Beam's FileSystems by default.
      batching: `min_batch_size` and the other arguments of Beam's ModelHandler.

    Raises:
      UsageError: the URI is none, or an argument is unknown.
    """

    def __init__(
        self,
        model: ModelLike,
        on_failure: Literal["raise", "return"] = "raise",
        files: ModelFiles | None = None,
        **batching: object,
    ) -> None:
        unknown = sorted(batching.keys() - _BATCHING)
        if unknown:
            raise UsageError(
                f"SluiceModelHandler has no argument {unknown[0]}; what a model is loaded with stands in ModelOptions"
            )
        if on_failure not in ("raise", "return"):
            raise UsageError(f"on_failure is {on_failure!r}; give 'raise' or 'return'")
        super().__init__(**batching)
        self._recipe = recipe_of(model)
        self._is_first = True
        self._on_failure = on_failure
        self._files = files

    def load_model(self) -> LoadedModel:
        """Returns the model. That of the first is one for the process; a later one closes when Beam drops it."""
        files = self._files or BeamFiles()
        if self._is_first:
            return LoadedModel(shared_scheduler(self._recipe, files), self._recipe.model.private)
        loaded = LoadedModel(open_scheduler(self._recipe, files), self._recipe.model.private)
        weakref.finalize(loaded, loaded.scheduler.close).atexit = False
        return loaded

    def update_model_path(self, model_path: str | None = None) -> None:
        """Makes the next `load_model` return the model of another path or URI; None, or "": it stays.

        Raises:
          UsageError: the URI is none.
        """
        if not model_path:
            return
        spec = parse_model_uri(model_path)
        if spec.uri != self._recipe.spec.uri:
            self._recipe = dataclasses.replace(self._recipe, spec=spec, signature=None)
            self._is_first = False

    def validate_inference_args(self, inference_args: dict[str, Any] | None) -> None:
        """Refuses arguments, which a SavedModel's signature has no place for.

        Raises:
          UsageError: there are some.
        """
        if inference_args:
            raise UsageError(
                f"inference_args {', '.join(inference_args)}: a signature takes columns only; add a column to the "
                "examples, or choose another signature in ModelOptions"
            )

    def run_inference(
        self, batch: Sequence[Any], model: LoadedModel, inference_args: dict[str, Any] | None = None
    ) -> Iterable[PredictionResult]:
        """Returns a prediction for each example, in order.

        Raises:
          RowsFailed: rows cannot be predicted, and `on_failure` is "raise".
          UsageError: there are inference_args.
        """
        self.validate_inference_args(inference_args)
        results = model.predict(batch)
        failures = [
            FailedRow(
                row, BIND if result.type == "InvalidRow" else PREDICT, result.type, result.message, result.version
            )
            for row, result in enumerate(results)
            if isinstance(result, RowFailure)
        ]
        if failures and self._on_failure == "raise":
            raise RowsFailed.of(failures, len(batch))
        uri = model.uri()
        return [PredictionResult(row, result, uri) for row, result in zip(batch, results, strict=True)]

    def get_num_bytes(self, batch: Sequence[Any]) -> int:
        """Returns roughly the number of bytes. Beam's own estimate pickles the batch."""
        return sum(map(row_bytes, batch))

    def get_metrics_namespace(self) -> str:
        """Returns the namespace of RunInference's metrics."""
        return "BeamML_Sluice"


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
