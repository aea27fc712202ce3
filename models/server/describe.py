"""How a server describes its models: GetModelMetadata and GetModelStatus, for gRPC and REST alike."""

from collections.abc import Sequence

from google.protobuf.message import Message

from sluice.models.protos import message_class
from sluice.models.server.status import CODES, invalid
from sluice.models.server.store import Spec, Store

# The only field: tensorflow_serving/servables/tensorflow/get_model_metadata_impl.cc
SIGNATURE_DEF = "signature_def"


def metadata(store: Store, spec: Spec, fields: Sequence[str]) -> Message:
    """Returns the signatures of a model.

    Raises:
      StatusError: unknown model or field; see servables/tensorflow/get_model_metadata_impl.cc.
    """
    if not fields:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in fields:
        if field != SIGNATURE_DEF:
            raise invalid(f"Metadata field {field} is not supported")
    response = message_class("tensorflow.serving.GetModelMetadataResponse")()
    definitions = message_class("tensorflow.serving.SignatureDefMap")()
    with store.use(spec) as servable:
        for name, definition in servable.signatures.items():
            definitions.signature_def[name].CopyFrom(definition)
        response.model_spec.name = servable.name
        response.model_spec.version.value = servable.version
    response.metadata[SIGNATURE_DEF].Pack(definitions)
    return response


def model_status(store: Store, spec: Spec) -> Message:
    """Returns the states of a model's versions.

    Raises:
      StatusError: unknown model or version.
    """
    response = message_class("tensorflow.serving.GetModelStatusResponse")()
    for state in store.states(spec):
        entry = response.model_version_status.add()
        entry.version = state.version
        entry.state = type(entry).State.Value(state.state)
        entry.status.error_code = CODES.index(state.code)
        entry.status.error_message = state.message
    return response
