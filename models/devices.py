"""Which of a machine's devices a model in this process runs on, as the user says it."""

import dataclasses
import re

from sluice.models.errors import UsageError

SOFT, STRICT = "soft", "strict"
PLACEMENTS = (SOFT, STRICT)

CPU, GPU = "CPU", "GPU"

_NAME = re.compile(r"(?:/?(?:device:)?)([A-Za-z_]+)(?::(\d{1,4}))?")


@dataclasses.dataclass(frozen=True)
class DeviceOptions:
    """The devices of a model in this process. Hashable: part of the key of the process's model cache.

    Attributes:
      devices: as TYPE:NUMBER; a copy of the model is loaded on each, and calls are spread over them. (): TensorFlow
        places each op, on the first GPU if there is one.
      placement: "soft": an op that a device cannot run, or whose device is not there, runs elsewhere; "strict": the
        model is refused.
      gpu_memory_growth: take a GPU's memory as it is needed, not all of it at the start.
      gpu_memory_fraction: the most of a GPU's memory that the process takes, 0 to 1; 0: TensorFlow's own limit.
      cpu_devices: how many devices TensorFlow makes of the CPU; they share its cores. 0: one.
    """

    devices: tuple[str, ...] = ()
    placement: str = SOFT
    gpu_memory_growth: bool = True
    gpu_memory_fraction: float = 0.0
    cpu_devices: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "devices", tuple(parse_device(text) for text in self.devices))
        twice = sorted({name for name in self.devices if self.devices.count(name) > 1})
        if twice:
            raise UsageError(f"--device has {twice[0]} twice; a device has one copy of the model")
        if self.placement not in PLACEMENTS:
            raise UsageError(f"--device_placement is {self.placement}; give {' or '.join(PLACEMENTS)}")
        if not 0 <= self.gpu_memory_fraction <= 1:
            raise UsageError(f"--gpu_memory_fraction is {self.gpu_memory_fraction}; give a share of 0 to 1")
        if self.cpu_devices < 0:
            raise UsageError(f"--cpu_devices is {self.cpu_devices}; give a whole number, 0 or more")

    @property
    def is_strict(self) -> bool:
        return self.placement == STRICT

    @property
    def uses_gpus(self) -> bool:
        """Whether the model may run on a GPU."""
        return not self.devices or any(not name.startswith(f"{CPU}:") for name in self.devices)


def short_name(name: str) -> str:
    """Returns TYPE:NUMBER of TensorFlow's own name, such as /job:localhost/replica:0/task:0/device:CPU:0."""
    return name.rpartition("device:")[2].upper()


def parse_device(text: str) -> str:
    """Returns a device's name as TYPE:NUMBER. "GPU", "gpu:0" and "/device:GPU:0" are all "GPU:0".

    Raises:
      UsageError: it is no such name.
    """
    match = _NAME.fullmatch(text.strip())
    if not match:
        raise UsageError(f"--device {text}: no device has such a name; give TYPE:NUMBER, such as GPU:0 or CPU:0")
    return f"{match.group(1).upper()}:{int(match.group(2) or 0)}"
