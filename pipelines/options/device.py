"""The flags for the devices that a model in the worker runs on."""

import dataclasses

from sluice.models.devices import PLACEMENTS, SOFT, DeviceOptions
from sluice.pipelines.options.flags import check_number, flag, parse_bool, parse_names
from sluice.pipelines.options.model import ModelFlags


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceFlags(ModelFlags):
    """Which model to call, and which devices it runs on if it is in the worker."""

    device: tuple[str, ...] = flag(
        "Devices that the model runs on, such as GPU:0 or GPU:0,GPU:1: a copy of it on each, with calls spread over "
        "them; CPU:0: no GPU is used. Empty: the first GPU if there is one",
        (),
        parse_names,
        group="Model",
        metavar="DEVICE,...",
    )
    device_placement: str = flag(
        "soft: an op that the device cannot run runs on the CPU; strict: the model is refused", SOFT,
        choices=PLACEMENTS, group="Model",
    )  # fmt: skip
    gpu_memory_growth: bool = flag(
        "Take a GPU's memory as it is needed, not all of it at the start", True, parse_bool, group="Model"
    )
    gpu_memory_fraction: float = flag(
        "The most of each GPU's memory that a process takes, 0 to 1; 0: TensorFlow's own limit", 0.0, float,
        group="Model", metavar="SHARE",
    )  # fmt: skip
    cpu_devices: int = flag(
        "How many devices TensorFlow makes of the CPU, to try --device without GPUs; 0: one", 0, int, group="Model",
        metavar="N",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "gpu_memory_fraction", most=1)
        check_number(self, "cpu_devices", whole=True)
        self.device_options()  # checks its own values

    def device_options(self) -> DeviceOptions:
        """Returns where the model runs.

        Raises:
          UsageError: a name is none of a device's.
        """
        return DeviceOptions(
            self.device,
            self.device_placement,
            self.gpu_memory_growth,
            self.gpu_memory_fraction,
            self.cpu_devices,
        )
