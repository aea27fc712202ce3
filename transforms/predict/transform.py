"""`Predict`: adds the outputs of a model to rows, in a pipeline."""

import apache_beam as beam
import pyarrow as pa

from sluice.models.cache import ModelLike, recipe_of
from sluice.models.files import ModelFiles
from sluice.transforms.core.beam_files import BeamFiles
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import FAILURES, Result
from sluice.transforms.core.file_contents import FileInputs
from sluice.transforms.predict.batches import PredictBatches
from sluice.transforms.predict.rows import PredictRows


class Predict(Composite):
    """Scores rows with a model.

    Accepts RecordBatches with a column for each input of the model's signature, or single rows: dicts, NamedTuples or
    beam.Rows with a field for each. Returns what it accepts, with the outputs as further columns or fields, and
    `_model` and `_version` after them; for NamedTuples it returns beam.Rows. Rows that do not fit, or that the model
    refuses, are returned as `Failure`s. Every row is in one of the two outputs, once. Columns or fields that are there
    already under the names that are added, as those of an earlier `Predict`, are an error.

    RecordBatches cost least. Their PCollection needs their type: `beam.Map(f).with_output_types(pa.RecordBatch)`.

    Args:
      model: a path or URI; or a recipe, which has options of the model and of the mini-batching of its calls.
      output_prefix: a prefix for the names of the outputs.
      files: read the files of the model; Beam's FileSystems by default.
      is_endless: of a stream, which no failure rate ends. Rows that fail before any row has passed then fail the
        bundle, because the model may be at fault; after 1,000 different ones, or 60 s with 10, by TooManyFailures.
      contents: of RecordBatches: inputs that get what is in files, whose paths are in columns; None: there are none.

    Raises:
      UsageError: the URI is none.
    """

    def __init__(
        self,
        model: ModelLike,
        output_prefix: str = "",
        files: ModelFiles | None = None,
        is_endless: bool = False,
        contents: FileInputs | None = None,
    ) -> None:
        super().__init__()
        self._recipe, self._prefix, self._contents = recipe_of(model), output_prefix, contents
        self._files, self._is_endless = files or BeamFiles(), is_endless

    def expand(self, rows: beam.PCollection) -> Result:
        kind = PredictBatches if rows.element_type is pa.RecordBatch else PredictRows
        fn = kind(self._recipe, self._prefix, self._files, self._is_endless, self._contents)
        outputs = rows | "Call" >> beam.ParDo(fn).with_outputs(FAILURES, main="rows")
        return Result(outputs.rows, outputs[FAILURES])
