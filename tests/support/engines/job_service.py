"""Beam's own portable job service in this process, and a pool of worker processes for any job service."""

import contextlib
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from apache_beam.portability.api import beam_fn_api_pb2 as fn_api
from apache_beam.portability.api import beam_fn_api_pb2_grpc
from apache_beam.portability.api import beam_job_api_pb2 as api
from apache_beam.runners.job.utils import struct_to_dict
from apache_beam.runners.portability.local_job_service import LocalJobServicer
from apache_beam.utils.thread_pool_executor import shared_unbounded_instance

from tests.support.fakes import PATIENCE_SECS
from tests.support.processes import Forked


class JobService(LocalJobServicer):
    """Runs jobs on Beam's FnApiRunner, in this process.

    Attributes:
      endpoint: HOST:PORT.
      declared: the options that it says it has.
      given: the options of the last job, by name.
      limits: the seconds for which each client would have listened to the states of its job.
    """

    def __init__(self, declared: Sequence[api.PipelineOptionDescriptor] = ()) -> None:
        super().__init__()
        self.declared = declared
        self.given: dict[str, Any] = {}
        self.limits: list[float] = []
        self.endpoint = f"localhost:{self.start_grpc_server()}"

    def DescribePipelineOptions(self, request: object, context: object = None, timeout: object = None) -> object:
        return api.DescribePipelineOptionsResponse(options=self.declared)

    def Prepare(self, request: Any, context: Any = None, timeout: object = None) -> object:
        found = struct_to_dict(request.pipeline_options)
        self.given = {name.removeprefix("beam:option:").removesuffix(":v1"): value for name, value in found.items()}
        return super().Prepare(request, context)

    def GetStateStream(self, request: Any, context: Any = None, timeout: object = None) -> Iterator[object]:
        left = context.time_remaining()
        self.limits.append(math.inf if left is None else left)
        yield from super().GetStateStream(request, context)

    def wait(self) -> None:
        """Waits until no job runs: a job that was cancelled goes on here, unseen."""
        for job in self._jobs.values():
            job._run_thread.join(PATIENCE_SECS)


@contextlib.contextmanager
def job_service(declared: Sequence[api.PipelineOptionDescriptor] = ()) -> Iterator[JobService]:
    """Runs a job service while the block runs."""
    service = JobService(declared)
    try:
        yield service
    finally:
        service.stop(0)


class _Pool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Starts a process for each worker that a job asks for."""

    def __init__(self, run: Callable[[str, str], None]) -> None:
        self._run = run
        self.workers: dict[str, Forked] = {}

    def StartWorker(self, request: Any, context: object) -> object:
        self.workers[request.worker_id] = Forked(self._run, request.control_endpoint.url, request.worker_id)
        return fn_api.StartWorkerResponse()

    def StopWorker(self, request: Any, context: object) -> object:
        worker = self.workers.pop(request.worker_id, None)
        if worker:
            worker.kill()
        return fn_api.StopWorkerResponse()


@contextlib.contextmanager
def worker_pool(run: Callable[[str, str], None]) -> Iterator[str]:
    """Runs a pool of workers, each a process, while the block runs; yields its HOST:PORT.

    Args:
      run: `(address of the runner, ID of the worker)`, a function at a module's top level: the work of a worker.
    """
    pings = [("grpc.http2.max_pings_without_data", 0), ("grpc.http2.max_ping_strikes", 0)]  # clients ping at will
    server, pool = grpc.server(shared_unbounded_instance(), options=pings), _Pool(run)
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        yield f"localhost:{port}"
    finally:
        server.stop(0)
        for worker in pool.workers.values():
            worker.kill()


def work(control: str, worker: str) -> None:
    """Works as a worker until the runner needs it no more."""
    from apache_beam.runners.worker.sdk_worker import SdkHarness  # in the worker's process only

    SdkHarness(control, worker_id=worker).run()


def die_when_written(control: str, worker: str) -> None:
    """Works as a worker, which is killed as it ends its first file."""
    from sluice.transforms.files.write import OpenShard

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    OpenShard.finish = die  # type: ignore[method-assign]
    work(control, worker)


# The variable with the path of a file, which a worker makes once it is held.
HELD = "SLUICE_TEST_HELD"


def hold_when_written(control: str, worker: str) -> None:
    """Works as a worker, which goes no further when it ends a file."""
    from sluice.transforms.files.write import OpenShard

    def hold(*_: object) -> None:
        Path(os.environ[HELD]).touch()
        threading.Event().wait()

    OpenShard.finish = hold  # type: ignore[method-assign]
    work(control, worker)
