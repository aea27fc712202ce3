"""The whole server: models, faults, gRPC and REST."""

import contextlib
import dataclasses
import socket
import threading
from collections.abc import Callable, Mapping

from sluice.models.errors import UsageError
from sluice.models.server.faults import Faults, Gate, Stats
from sluice.models.server.grpc_server import GrpcServer
from sluice.models.server.predict import Predictor
from sluice.models.server.rest_server import RestServer
from sluice.models.server.servable import Watch
from sluice.models.server.store import LATEST, ModelConfig, Store


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """How a server runs.

    Attributes:
      grpc_port, rest_port: on 127.0.0.1; 0: a free one.
      poll_secs: the interval between looks at the models' directories; 0: only when `poll` is called.
      max_message_bytes: larger gRPC requests get RESOURCE_EXHAUSTED; 0: no limit.
      model_timeout_secs: of a call of a model; 0: none. A call that does not end is tried once more.
      tensor_content: gRPC answers hold numbers as bytes instead of one by one, as with TF Serving's
        --enable_serialization_as_tensor_content.
      seed: of the random faults; None: another at each start.
    """

    grpc_port: int = 0
    rest_port: int = 0
    poll_secs: float = 0.0
    max_message_bytes: int = 0
    tensor_content: bool = False
    seed: int | None = None
    model_timeout_secs: float = 0.0

    def __post_init__(self) -> None:
        for name in ("grpc_port", "rest_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise UsageError(f"--{name} is {getattr(self, name)}; a port is from 0 to 65535")
        for name in ("poll_secs", "max_message_bytes", "model_timeout_secs"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name} is {getattr(self, name)}; it cannot be negative")


class ReferenceServer:
    """A server that is ready once constructed. See models.server for what it covers.

    Args:
      models: by name, each a directory, or a ModelConfig if it needs other versions or labels than the rest.
      on_lost: called with the reason when a model cannot be called any more.

    Attributes:
      store: the models; tests use its `poll`, `loaded` and `set_labels`.
      predictor: answers calls of them.

    Raises:
      UsageError: there is no such model, it cannot be loaded, or a port is in use.
    """

    def __init__(
        self,
        models: Mapping[str, str | ModelConfig],
        versions: str | tuple[int, ...] = LATEST,
        labels: Mapping[str, int] | None = None,
        faults: Faults | None = None,
        options: ServerOptions | None = None,
        on_lost: Callable[[str], None] = lambda reason: None,
    ) -> None:
        options = options or ServerOptions()
        configs = {
            name: model if isinstance(model, ModelConfig) else ModelConfig(model, versions, labels or {})
            for name, model in models.items()
        }
        self._gate = Gate(faults or Faults(), options.seed)
        self._closed = threading.Event()
        with contextlib.ExitStack() as stack:
            self.store = Store(configs, Watch(options.model_timeout_secs, on_lost))
            check_free("grpc_port", options.grpc_port)
            check_free("rest_port", options.rest_port)
            stack.callback(self.store.close)
            self.store.load()  # before anybody can connect, as in TF Serving
            self.predictor = predictor = Predictor(self.store, self._gate)
            rest = RestServer(predictor, options.rest_port)
            stack.callback(rest.close)
            grpc = GrpcServer(predictor, options.grpc_port, options.max_message_bytes, options.tensor_content)
            stack.callback(grpc.close)
            rest.start()
            grpc.start()
            stack.callback(self._gate.close)
            if options.poll_secs:
                poller = threading.Thread(target=self._poll, args=(options.poll_secs,), name="poll", daemon=True)
                poller.start()
                stack.callback(poller.join)
            stack.callback(self._closed.set)
            self._stack = stack.pop_all()
        self.grpc_port, self.rest_port = grpc.port, rest.port

    @property
    def faults(self) -> Faults:
        """The injected faults; new ones hold from the next predict call on."""
        return self._gate.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._gate.faults = faults

    @property
    def stats(self) -> Stats:
        """Counts of the predict calls so far, at this moment."""
        return self._gate.stats

    def wait_active(self, count: int, timeout_secs: float = 10.0) -> bool:
        """Waits until so many predict calls are under way at once; returns whether they were in time."""
        return self._gate.wait_active(count, timeout_secs)

    def poll(self) -> None:
        """Looks for new and removed versions once."""
        self.store.poll()

    def _poll(self, secs: float) -> None:
        while not self._closed.wait(secs):
            self.store.poll()

    def close(self) -> None:
        """Ends all calls, and frees the ports and the models."""
        self._stack.close()

    def __enter__(self) -> "ReferenceServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_free(flag: str, port: int) -> None:
    """Checks a port before the models are loaded, which takes long.

    Raises:
      UsageError: it is in use.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(f"--{flag} {port}: {error.strerror}; give another port, or 0 for a free one") from error
