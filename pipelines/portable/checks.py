"""What of a portable job would fail late, or be lost: its workers, and the paths that they resolve."""

import os
import shutil

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
)

from sluice.models.errors import UsageError
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.streaming import StreamingOptions
from sluice.pipelines.portable.kind import DOCKER, FLINK, PORTABLE, environment_of, is_portable, runner_name, works_here

# Flags whose paths workers resolve, and those of them that workers write to.
_PATHS = ("input", "read_paths_root", "model", "output", "failures", "failure_payload_dir")
_WRITTEN = ("output", "failures", "failure_payload_dir")
# Beam's own limit for its streams of states and messages: a longer job would end with DEADLINE_EXCEEDED. Ours: a year.
_JOB_SECS = 366 * 24 * 3600

_ENVIRONMENTS = (
    "give --environment_type EXTERNAL and --environment_config HOST:PORT of a worker pool beside each worker machine "
    "(python -m apache_beam.runners.worker.worker_pool_main --service_port=PORT); or DOCKER and --environment_config "
    "IMAGE, an image that holds Sluice; or LOOPBACK, if they can connect to this machine, which then does the work"
)


def check_workers(job: BatchOptions | StreamingOptions, options: PipelineOptions) -> None:
    """Checks that a portable job's workers can be started, and can find its paths. Of other jobs it checks nothing.

    Raises:
      UsageError: it is not said what starts the workers; or they would look for a path elsewhere than here.
    """
    if not is_portable(options):
        return
    _check_environment(options)
    _check_java(options)
    if not works_here(options):
        _check_paths(job, environment_of(options))


def _check_environment(options: PipelineOptions) -> None:
    portable, flink = options.view_as(PortableOptions), options.view_as(FlinkRunnerOptions)
    environment = environment_of(options)
    if runner_name(options) == PORTABLE and not portable.job_endpoint:
        raise UsageError("--runner PortableRunner: give --job_endpoint HOST:PORT of the job server that takes the job")
    if not environment:
        server = f"--job_endpoint {portable.job_endpoint}"
        if runner_name(options) == FLINK and not portable.job_endpoint:
            server = f"--flink_master {flink.flink_master}"
        raise UsageError(
            f"{server} without --environment_type: Beam would run the workers in Docker containers that do not hold "
            f"Sluice; {_ENVIRONMENTS}"
        )
    portable.environment_type = environment
    image = portable.environment_config or portable.lookup_environment_option("docker_container_image")
    if environment == DOCKER and not image and not options.view_as(SetupOptions).setup_file:
        raise UsageError(
            "--environment_type DOCKER: Beam's own image does not hold Sluice; give --environment_config IMAGE, an "
            "image that does (deploy/Dockerfile builds one)"
        )


def _check_java(options: PipelineOptions) -> None:
    launcher = options.view_as(JobServerOptions).job_server_java_launcher
    runs, jar = options.view_as(PortableOptions).job_endpoint, options.view_as(FlinkRunnerOptions).flink_submit_uber_jar
    if runner_name(options) == FLINK and not runs and not jar and not shutil.which(launcher):
        raise UsageError(
            f"Beam starts Flink's job server by {launcher}, which is not found: install Java 11 or later, or start "
            "one elsewhere and give --job_endpoint HOST:PORT"
        )


def _check_paths(job: BatchOptions | StreamingOptions, environment: str) -> None:
    for name in _PATHS:
        value = getattr(job, name, "")
        for path in (value,) if isinstance(value, str) else value:
            if not path or "://" in path:
                continue
            if not os.path.isabs(path):
                raise UsageError(
                    f"--{name} {path}: workers of --environment_type {environment} do not run in this directory; give "
                    f"{os.path.abspath(path)} if they find it there too, or a remote path"
                )
            if environment == DOCKER and name in _WRITTEN:
                raise UsageError(
                    f"--{name} {path}: the workers are Docker containers, whose files are lost when they end; give a "
                    "remote path, such as gs://BUCKET/DIRECTORY"
                )


def set_time_limit(options: PipelineOptions) -> None:
    """Lets a portable job take as long as it takes. Does nothing on other runners.

    Beam takes --job_server_timeout, by default 300 s, as the limit of the whole job, though its help denies it. Here it
    is what it says: how long the job server may take to answer (see pipelines.dataflow.runner.beam_options).
    """
    if is_portable(options):
        options.view_as(PortableOptions).job_server_timeout = _JOB_SECS
