"""GPUs that TensorFlow does not use are told of, with what it has logged; on a machine that has none they are faked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sluice.models.saved_model.gpus import gpu_trouble, gpus_here, reason_in, shown_gpus, warn_of_unused_gpus

NO_DRIVER = "I0000 00:00:17.6 29 cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be used."
NO_LIBRARIES = (
    "W0000 00:00:17.6 29 gpu_device.cc:2342] Cannot dlopen some GPU libraries. Please make sure the missing libraries "
    "mentioned above are installed properly if you would like to use GPU. Skipping registering GPU devices..."
)
CUDNN = "W0000 00:00:17.5 29 dso_loader.cc:59] Could not load dynamic library 'libcudnn.so.9'; dlerror: no such file"
OLD = "I0000 1 gpu_device.cc:1] Ignoring visible gpu device (device: 1, name: K80) with compute capability 3.7."
INIT = "E0000 00:00:17.6 29 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: UNKNOWN ERROR (303)"
OTHER = "I0000 00:00:17.6 29 cpu_feature_guard.cc:227] This TensorFlow binary is optimized\n"


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (NO_DRIVER, "Could not find cuda drivers on your machine, GPU will not be used."),
        (f"{OTHER}{NO_LIBRARIES}\n{OTHER}", "Cannot dlopen some GPU libraries. Please make sure"),
        (f"{CUDNN}\n{NO_LIBRARIES}", "Could not load dynamic library 'libcudnn.so.9'; dlerror: no such file"),
        (f"{OTHER}{INIT}", "failed call to cuInit: INTERNAL: CUDA error: UNKNOWN ERROR (303)"),
        (OLD, "Ignoring visible gpu device (device: 1, name: K80)"),
        (OTHER, "it does not say why"),
        ("", "it does not say why"),
    ],
)
def test_the_reason_is_the_most_telling_line(log: str, words: str) -> None:
    assert reason_in(log).startswith(words)
    trouble = gpu_trouble(0, 2, lambda: log)
    assert trouble.startswith(f"TensorFlow uses no GPU of this machine: {words}") and "\n" not in trouble


def test_gpus_that_are_used_are_no_trouble() -> None:
    assert gpu_trouble(2, 2, lambda: pytest.fail("needs no reason")) == ""
    assert gpu_trouble(0, 0, lambda: pytest.fail("needs no reason")) == ""
    assert gpu_trouble(1, 2, lambda: OLD).startswith("TensorFlow uses 1 of this machine's 2 GPU(s): Ignoring")


def make_pci(root: Path, name: str, vendor: str, kind: str) -> None:
    device = root / "sys/bus/pci/devices" / name
    device.mkdir(parents=True)
    (device / "vendor").write_text(f"{vendor}\n")
    (device / "class").write_text(f"{kind}\n")


def test_gpus_are_found_with_and_without_their_driver(tmp_path: Path) -> None:
    assert gpus_here(str(tmp_path)) == 0
    make_pci(tmp_path, "0000:00:00.0", "0x8086", "0x030000")
    make_pci(tmp_path, "0000:00:01.0", "0x10de", "0x040300")  # the sound of a GPU
    assert gpus_here(str(tmp_path)) == 0
    make_pci(tmp_path, "0000:00:02.0", "0x10de", "0x030200")
    assert gpus_here(str(tmp_path)) == 1
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    assert gpus_here(str(tmp_path)) == 2
    for name in ("a", "b", "c"):
        (tmp_path / "proc/driver/nvidia/gpus" / name).mkdir(parents=True)
    assert gpus_here(str(tmp_path)) == 3


@pytest.mark.parametrize(
    ("value", "wanted"), [(None, 4), ("", 0), ("-1", 0), ("2", 1), ("0, 3", 2), ("0,-1,2", 1), ("0,1,2,3,4,5", 4)]
)
def test_gpus_that_the_user_hides_do_not_count(value: str | None, wanted: int) -> None:
    assert shown_gpus(4, {} if value is None else {"CUDA_VISIBLE_DEVICES": value}) == wanted


def test_a_gpu_without_a_driver_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if gpus_here():
        pytest.skip("this machine has a GPU, of which TensorFlow may say anything")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    for _ in range(2):
        warn_of_unused_gpus(0, str(tmp_path))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert re.fullmatch(
        "TensorFlow uses no GPU of this machine: .*(?i:cuda).*. --device CPU:0 says that none is wanted",
        record.getMessage(),
    )
