"""The message classes that need no TensorFlow."""

from __future__ import annotations

import pytest

from sluice.models.protos import message_class
from tools.make_protos import TARGET, descriptor_set


@pytest.mark.slow
def test_the_descriptors_are_those_of_the_installed_tensorflow_serving_api() -> None:
    assert TARGET.read_bytes() == descriptor_set().SerializeToString(deterministic=True), (
        "run `python tools/make_protos.py`"
    )


def test_messages_are_those_that_tensorflow_serving_reads() -> None:
    from tensorflow_serving.apis import predict_pb2

    ours = message_class("tensorflow.serving.PredictRequest")()
    ours.model_spec.name = "m"
    ours.model_spec.version.value = 7
    ours.inputs["x"].float_val.extend([1.0, 2.0])
    theirs = predict_pb2.PredictRequest.FromString(ours.SerializeToString())
    assert theirs.model_spec.version.value == 7
    assert list(theirs.inputs["x"].float_val) == [1.0, 2.0]
    assert type(ours) is message_class("tensorflow.serving.PredictRequest")


def test_a_message_that_is_not_there() -> None:
    with pytest.raises(KeyError):
        message_class("tensorflow.serving.Nonsense")
