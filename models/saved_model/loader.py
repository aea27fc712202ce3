"""A SavedModel in this process.

TensorFlow's C API runs it, and for some models Python TensorFlow (models.saved_model.ways); it is loaded when the first
model is opened, not before.
"""

import functools
import logging
from typing import Any

import numpy as np
import pyarrow as pa

from sluice.models.batching.mini_batch import row_count
from sluice.models.errors import BadInput, ModelLost
from sluice.models.files import CopyInUse, LocalFiles, ModelFiles
from sluice.models.interface import ModelOptions, Outputs, arrow_values
from sluice.models.saved_model.native.pages import release_pages
from sluice.models.saved_model.native.preload import library_files
from sluice.models.saved_model.reasons import SessionClosed, TensorFlowError, call_error
from sluice.models.saved_model.signature_reader import pick_signature, read_signatures
from sluice.models.saved_model.start_line import start_line
from sluice.models.saved_model.versions import Version, find_version, read_meta_graph
from sluice.models.saved_model.warm_up import replay_requests
from sluice.models.saved_model.ways import load
from sluice.models.signature import Signature, TensorSpec
from sluice.models.tensors.binding import Bound, Feeds, bind
from sluice.models.tensors.strings import Tensor
from sluice.models.uri import ModelSpec

_LOG = logging.getLogger(__name__)


class SavedModel:
    """A loaded SavedModel. Thread-safe.

    Args:
      uri: the model's name in messages: what the user gave.
      found: the version to load.

    Raises:
      ModelNotFound: TensorFlow cannot load it.
      SignatureError: no such signature, or one that cannot be served from columns.
    """

    remote = False

    def __init__(self, uri: str, found: Version, options: ModelOptions, files: ModelFiles) -> None:
        self.uri = uri
        self.version = found.number
        self.signature = read_signature(found.directory, options, files)
        self._defaults = dict(options.defaults)
        directory = files.local_copy(found.directory)
        self._copy = CopyInUse(directory)
        meta_graph = read_meta_graph(found.directory, files)
        self._load = functools.partial(load, directory, meta_graph, options, self.signature)
        self._abandoned = False
        self.first_answered: Feeds | None = None
        self.renew()
        if options.warm_up:
            answered = replay_requests(directory, self, options.time_limit_secs, options.private)
            self.warmed_up = len(answered)
            self.first_answered = next((feeds for feeds in answered if row_count(feeds)), None)
        release_pages(library_files())
        _LOG.info("%s", start_line(uri, self.version, self._way, options))

    def bind(self, batch: pa.RecordBatch) -> Bound:
        """Returns the batch as the signature's input tensors."""
        return bind(batch, self.signature, self._defaults)

    def call(self, feeds: Feeds) -> Outputs:
        """Returns the outputs for these tensors.

        Raises:
          CallError: TensorFlow failed; models.error_table says what its codes mean.
        """
        _check_shapes(feeds, self.signature)
        try:
            values = self._run([feeds[spec.name] for spec in self.signature.inputs])
        except TensorFlowError as error:
            raise call_error(error) from error
        except SessionClosed as error:
            raise ModelLost(f"model {self.uri}: {error}") from error
        return Outputs(_name_outputs(self.signature, values), self.version)

    def renew(self) -> None:
        """Loads the model anew, for calls from now on. The session before is freed when its last call ends."""
        way = self._load()
        feeds = [spec.tensors[0] for spec in self.signature.inputs]
        fetches = [name for spec in self.signature.outputs for name in spec.tensors]
        self._way, self._run = way, way.prepare(feeds, fetches)

    def abandon(self) -> None:
        """Makes `close` leave the session alone, because calls hang in it."""
        self._abandoned = True

    def close(self) -> None:
        """Frees the session and its variables, and lets go of the files."""
        if not self._abandoned:
            self._way.close()
        self._copy.let_go()


def read_signature(directory: str, options: ModelOptions, files: ModelFiles) -> Signature:
    """Returns the signature that the options name, read without TensorFlow.

    Raises:
      SignatureError: the model has none of this name, or it cannot be served from columns.
    """
    signatures = read_signatures(read_meta_graph(directory, files))
    return pick_signature(signatures, options.signature, options.outputs)


def open_saved_model(spec: ModelSpec, options: ModelOptions, files: ModelFiles | None = None) -> SavedModel:
    """Returns the SavedModel, loaded and warmed up.

    Raises:
      ModelNotFound: the URI has no complete SavedModel, or TensorFlow cannot load it.
      SignatureError: no such signature, or one that cannot be served from columns.
    """
    files = files or LocalFiles()
    return SavedModel(spec.uri, find_version(spec.uri, files, spec.version), options, files)


def _check_shapes(feeds: Feeds, signature: Signature) -> None:
    """Checks what TensorFlow's C API accepts in silence: [2, 4] fed to [None, 3] has an answer."""
    for spec in signature.inputs:
        shape = feeds[spec.name].shape
        if spec.shape is None:
            continue
        fits = len(shape) == len(spec.shape) and all(
            wanted in (None, size) for wanted, size in zip(spec.shape, shape, strict=True)
        )
        if not fits:
            raise BadInput(f"input '{spec.name}' has shape {list(shape)}, and the signature says {spec}")


def _name_outputs(signature: Signature, values: list[Tensor]) -> dict[str, Tensor | pa.Array]:
    arrays: dict[str, Tensor | pa.Array] = {}
    position = 0
    for spec in signature.outputs:
        parts = values[position : position + len(spec.tensors)]
        position += len(spec.tensors)
        arrays[spec.name] = _as_array(spec, parts)
    return arrays


def _as_array(spec: TensorSpec, parts: list[Any]) -> Tensor | pa.Array:
    if spec.kind == "dense":
        return parts[0]
    if spec.kind == "ragged":
        values, splits = parts
    else:  # sparse: a row is the list of its values, in order
        values, indices, shape = parts
        row = indices[:, 0]
        values = values if (row[1:] >= row[:-1]).all() else values[np.argsort(row, kind="stable")]
        splits = np.append(0, np.cumsum(np.bincount(row, minlength=int(shape[0]))))
    return pa.ListArray.from_arrays(pa.array(splits.astype(np.int32)), arrow_values(values))
