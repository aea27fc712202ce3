"""Requests that were recorded with a SavedModel, called after it is loaded.

https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

import io
import logging
import os

from sluice.models.batching.invoke import call_once
from sluice.models.batching.watchdog import hanging
from sluice.models.errors import CallError, CorruptFile, ModelHangs, TimedOut
from sluice.models.interface import Model
from sluice.models.protos import message_class
from sluice.models.signature import DEFAULT_SIGNATURE, Signature
from sluice.models.tensors.binding import Feeds
from sluice.models.tensors.tensor_proto import from_tensor
from sluice.models.tensors.tfrecord import read_records
from sluice.models.wording import log_text

_LOG = logging.getLogger(__name__)

_WARMUP = "assets.extra/tf_serving_warmup_requests"
_MAX_WARMUP_RECORDS = 1000


def replay_requests(directory: str, model: Model, time_limit_secs: float = 0.0, private: bool = False) -> list[Feeds]:
    """Calls a model with the recorded requests for its signature; returns those that it has answered.

    Args:
      private: the log tells of errors only what quotes no request.

    Raises:
      ModelHangs: a call has not ended within the limit.
    """
    path = os.path.join(directory, _WARMUP)
    if not os.path.exists(path):
        return []
    answered: list[Feeds] = []
    try:
        for feeds in _read_feeds(path, model.signature):
            call_once(model, feeds, time_limit_secs)
            answered.append(feeds)
    except (CallError, CorruptFile, ValueError) as error:
        if isinstance(error, TimedOut) and hanging():
            text = f"model {model.uri}: a warm-up request has not ended in time; this process has to be replaced"
            raise ModelHangs(text) from error
        said = log_text(error, private)
        _LOG.warning("Warm-up of %s stopped after %d requests: %s", model.uri, len(answered), said)
    return answered


def _read_feeds(path: str, signature: Signature) -> list[Feeds]:
    """Returns the inputs of a warm-up file's Predict requests for this signature."""
    log_class = message_class("tensorflow.serving.PredictionLog")
    feeds: list[Feeds] = []
    with open(path, "rb") as file:
        for _, record in read_records(io.BytesIO(file.read())):
            request = log_class.FromString(record).predict_log.request
            named = request.model_spec.signature_name or DEFAULT_SIGNATURE
            if named == signature.name and set(request.inputs) == {spec.name for spec in signature.inputs}:
                feeds.append({name: from_tensor(tensor) for name, tensor in request.inputs.items()})
    return feeds[:_MAX_WARMUP_RECORDS]
