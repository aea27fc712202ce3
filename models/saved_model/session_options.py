"""How TensorFlow runs a model, in the form that both of its APIs take."""

import dataclasses
import math
from typing import Any

from sluice.models.devices import CPU, GPU, DeviceOptions
from sluice.models.protos import message_class


@dataclasses.dataclass(frozen=True)
class SessionOptions:
    """How TensorFlow runs a model.

    Attributes:
      intra_op_threads, inter_op_threads: 0: one per core. The threads within ops are the process's, and the options of
        its first session count.
      time_limit_secs: of a call; 0: none. A kernel that runs is not interrupted. With a limit, the session has threads
        across ops of its own, so that a kernel that hangs takes none from other sessions.
    """

    intra_op_threads: int = 0
    inter_op_threads: int = 0
    time_limit_secs: float = 0.0
    devices: DeviceOptions = dataclasses.field(default_factory=DeviceOptions)

    def config(self) -> Any:
        """Returns a `tensorflow.ConfigProto`."""
        config = message_class("tensorflow.ConfigProto")(
            intra_op_parallelism_threads=self.intra_op_threads,
            inter_op_parallelism_threads=self.inter_op_threads,
            use_per_session_threads=bool(self.time_limit_secs),
            allow_soft_placement=not self.devices.is_strict,
        )
        # Idle threads would spin on cores that decode and encode meanwhile: see docs/performance.md.
        config.experimental.disable_thread_spinning = True
        if self.devices.cpu_devices:
            config.device_count[CPU] = self.devices.cpu_devices
        if not self.devices.uses_gpus:
            config.device_count[GPU] = 0  # else TensorFlow would take memory of each
        config.gpu_options.allow_growth = self.devices.gpu_memory_growth
        config.gpu_options.per_process_gpu_memory_fraction = self.devices.gpu_memory_fraction
        return config

    def run_options(self) -> bytes:
        """Returns a serialized `tensorflow.RunOptions`; empty: the defaults."""
        if not self.time_limit_secs:
            return b""
        options = message_class("tensorflow.RunOptions")(timeout_in_ms=math.ceil(1000 * self.time_limit_secs))
        content: bytes = options.SerializeToString()
        return content
