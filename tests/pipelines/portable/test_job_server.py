"""The check that a job server answers."""

import concurrent.futures
import socket
from collections.abc import Iterator

import grpc
import pytest

from sluice.models.errors import UsageError
from sluice.pipelines.dataflow.runner import beam_options
from sluice.pipelines.portable.job_server import ask_options


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.create_server(("localhost", 0)) as listener:
        yield f"localhost:{listener.getsockname()[1]}"


@pytest.fixture
def other() -> Iterator[str]:
    """A gRPC server that is no job server."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield f"localhost:{port}"
    server.stop(0)


def test_an_address_that_is_silent_is_refused_with_the_remedy(silent: str) -> None:
    with pytest.raises(
        UsageError, match=rf"--job_endpoint {silent}: no job server answers there within 0.1 s; start it"
    ):
        ask_options(silent, 0.1)


def test_another_server_is_refused(other: str) -> None:
    with pytest.raises(UsageError, match="no job server of Beam") as refused:
        beam_options(["--runner=PortableRunner", f"--job_endpoint={other}"])
    assert "UNIMPLEMENTED" in str(refused.value) and "debug_error_string" not in str(refused.value)
