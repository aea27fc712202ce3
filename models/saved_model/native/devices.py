"""The devices that TensorFlow sees."""

import os

from sluice.models.devices import short_name
from sluice.models.saved_model.native.copier import close_session
from sluice.models.saved_model.native.library import Library
from sluice.models.saved_model.reasons import TensorFlowError
from sluice.models.saved_model.session_options import SessionOptions


def devices_of(library: Library, session: int) -> dict[str, int]:
    """Returns a session's devices, as TYPE:NUMBER, and the bytes of memory that each may use."""
    found = library.checked(lambda status: library.TF_SessionListDevices(session, status))
    try:
        return dict(_device(library, found, index) for index in range(library.TF_DeviceListCount(found)))
    finally:
        library.TF_DeleteDeviceList(found)


def _device(library: Library, devices: int, index: int) -> tuple[str, int]:
    name = library.checked(lambda status: library.TF_DeviceListName(devices, index, status))
    memory = library.checked(lambda status: library.TF_DeviceListMemoryBytes(devices, index, status))
    return short_name(name.decode()), memory


def find_devices(library: Library, options: SessionOptions) -> dict[str, int]:
    """Returns the devices of a session with these options, before there is one.

    Raises:
      TensorFlowError: TensorFlow makes no session.
    """
    config = options.config().SerializeToString()
    made, graph = library.TF_NewSessionOptions(), library.TF_NewGraph()
    try:
        library.checked(lambda status: library.TF_SetConfig(made, config, len(config), status))
        session = library.checked(lambda status: library.TF_NewSession(graph, made, status))
    except TensorFlowError:
        library.TF_DeleteGraph(graph)
        raise
    finally:
        library.TF_DeleteSessionOptions(made)
    try:
        return devices_of(library, session)
    finally:
        close_session(library, session, graph, os.getpid())
