"""The checks of the flags that say how a model is called."""

import argparse
import math

import pytest

from sluice.models.errors import UsageError
from sluice.models.interface import EndpointOptions
from sluice.pipelines.options.device import DeviceFlags
from sluice.pipelines.options.flags import add_arguments
from sluice.pipelines.options.model import EndpointFlags

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("rpc_timeout_secs", (0.0, -1.0, 86_400.1, NAN, INF, -INF), "a finite number, more than 0 and at most 86400"),
        ("max_retry_secs", (-0.1, NAN, INF, -INF), "a finite number, 0 or more"),
        ("max_batch_delay_ms", (-0.1, NAN, INF, -INF), "a finite number, 0 or more"),
        ("max_retries", (-1, 1.5, NAN, INF), "a whole number, 0 or more"),
        ("intra_op_threads", (-1, 0.5, NAN), "a whole number, 0 or more"),
        ("inter_op_threads", (-1, 0.5, NAN), "a whole number, 0 or more"),
        ("gpu_memory_fraction", (-0.1, 1.5, NAN, INF), "a finite number, 0 or more and at most 1"),
        ("cpu_devices", (-1, 1.5, NAN), "a whole number, 0 or more"),
        ("max_batch_bytes", (0, -1, 1.5, NAN), "a whole number, more than 0"),
    ],
)
def test_numbers_that_cannot_be(name: str, values: tuple[float, ...], words: str) -> None:
    for value in values:
        text = f"{value:g}" if isinstance(value, float) else value
        with pytest.raises(UsageError) as error:
            DeviceFlags(**{"model": "m", name: value})  # type: ignore[arg-type]
        assert str(error.value) == f"--{name} {text}: it is {words}"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("rpc_timeout_secs", (1e-3, 1, 86_400.0)),
        ("max_retry_secs", (0, 0.0, 1e6)),
        ("max_batch_delay_ms", (0, 0.0, 0.5)),
        ("max_retries", (0, 1000)),
        ("intra_op_threads", (0, 64)),
        ("inter_op_threads", (0, 64)),
        ("gpu_memory_fraction", (0.0, 0.5, 1.0)),
        ("cpu_devices", (0, 3)),
        ("max_batch_bytes", (1, 1 << 40)),
    ],
)
def test_numbers_that_can_be(name: str, values: tuple[float, ...]) -> None:
    for value in values:
        assert getattr(DeviceFlags(**{"model": "m", name: value}), name) == value  # type: ignore[arg-type]


def test_an_endpoints_flags_check_themselves_for_other_commands_too() -> None:
    with pytest.raises(UsageError, match="--rpc_timeout_secs nan: it is a finite number"):
        EndpointFlags(rpc_timeout_secs=NAN)


def test_an_empty_model() -> None:
    with pytest.raises(UsageError, match="--model is empty"):
        DeviceFlags(model="")


def test_the_endpoints_options() -> None:
    flags = EndpointFlags(
        rpc_timeout_secs=5.0,
        rpc_headers=(("a", "1"),),
        rpc_token_file="t",
        rpc_google_auth=True,
        rpc_google_audience="https://a",
        rest_format="rows",
        rest_gzip=True,
    )
    assert flags.endpoint_options() == EndpointOptions(
        rpc_timeout_secs=5.0,
        headers=(("a", "1"),),
        token_file="t",
        google_auth=True,
        google_audience="https://a",
        rest_format="rows",
        rest_gzip=True,
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rpc_google_auth", ["access token", "Google's APIs", "--rpc_google_audience"]),
        ("rpc_google_audience", ["ID token", "Cloud Run", "IAP", "implies --rpc_google_auth"]),
        ("rpc_headers", ["@FILE", "NAME: VALUE", "read at launch", "commas"]),
        ("on_unavailable", ["After --max_retry_secs or --max_retries: fail the job", "turn the rows into failures"]),
    ],
)
def test_help_can_be_read_alone(name: str, words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, DeviceFlags)
    parser.format_help()  # a stray % would raise
    [action] = [action for action in parser._actions if action.dest == name]
    assert all(word in (action.help or "") for word in words), action.help


def test_devices_are_checked_and_named_in_one_way() -> None:
    found = DeviceFlags(model="m", device=("gpu", "/device:GPU:1", "cpu:0")).device_options()
    assert found.devices == ("GPU:0", "GPU:1", "CPU:0") and found.uses_gpus
    assert not DeviceFlags(model="m", device=("CPU",)).device_options().uses_gpus
    for devices, words in (
        (("GPU:x",), "--device GPU:x: no device has such a name; give TYPE:NUMBER"),
        (("GPU", "GPU:0"), "--device has GPU:0 twice"),
        (("",), "no device has such a name"),
    ):
        with pytest.raises(UsageError, match=words):
            DeviceFlags(model="m", device=devices)
    with pytest.raises(UsageError, match="--device_placement is hard; give soft or strict"):
        DeviceFlags(model="m", device_placement="hard")


def test_the_options_of_vertex() -> None:
    options = EndpointFlags(vertex_endpoint="http://127.0.0.1:8502", signature_from="gs://b/m").endpoint_options("a@x")
    assert (options.vertex_endpoint, options.signature_from) == ("http://127.0.0.1:8502", "gs://b/m")
    assert options.google_account == "a@x"
    with pytest.raises(UsageError, match=r"--vertex_endpoint 127.0.0.1:8502 is no base URL; give http://HOST:PORT"):
        EndpointFlags(vertex_endpoint="127.0.0.1:8502")


def test_the_deadline_has_a_default_that_an_endpoint_may_replace() -> None:
    options = EndpointFlags().endpoint_options()
    assert (options.rpc_timeout_secs, options.own_timeout) == (60.0, True)
    options = EndpointFlags(rpc_timeout_secs=60.0).endpoint_options()
    assert (options.rpc_timeout_secs, options.own_timeout) == (60.0, False)
