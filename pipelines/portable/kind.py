"""Which runners are portable, and where their workers run.

A portable runner gives a job to a job server (Flink's, Prism, Beam's own), which runs it on workers of its own choice.
"""

import re

from apache_beam.options.pipeline_options import (
    DebugOptions,
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    SparkRunnerOptions,
    StandardOptions,
)

FLINK, PORTABLE, PRISM, SPARK = "flinkrunner", "portablerunner", "prismrunner", "sparkrunner"
_PORTABLE = (FLINK, PORTABLE, PRISM, SPARK)

# Environments of Beam: what starts a worker, and where.
LOOPBACK, DOCKER = "LOOPBACK", "DOCKER"

# Masters for which Beam starts a cluster in the job server, and workers in the process that launches.
_FLINK_HERE = ("[local]", "[auto]")
_SPARK_HERE = re.compile(r"local(\[.+\])?$")


def runner_name(options: PipelineOptions) -> str:
    """Returns the runner's name in lower case, with "runner" at its end, which Beam lets users leave out."""
    return full_name(options.view_as(StandardOptions).runner or "")


def full_name(name: str) -> str:
    """Returns the name of a runner likewise."""
    name = name.lower()
    return name if not name or name.endswith("runner") else f"{name}runner"


def is_portable(options: PipelineOptions) -> bool:
    """Whether a job server runs the job."""
    return is_portable_name(runner_name(options))


def is_portable_name(name: str) -> bool:
    """Whether a runner of this name, as `full_name` returns it, is portable."""
    return name in _PORTABLE


def environment_of(options: PipelineOptions) -> str:
    """Returns what starts the workers: an environment of Beam, or its URN; "": none is given, so Beam takes Docker."""
    given: str = options.view_as(PortableOptions).environment_type or ""
    if given:
        return given if ":" in given else given.upper()
    return LOOPBACK if _starts_here(options) else ""


def _starts_here(options: PipelineOptions) -> bool:
    """Whether Beam itself makes the launching process the worker, because no cluster is named."""
    name = runner_name(options)
    if name == FLINK:
        return options.view_as(FlinkRunnerOptions).flink_master in _FLINK_HERE
    if name == SPARK:
        return _SPARK_HERE.match(options.view_as(SparkRunnerOptions).spark_master_url) is not None
    return name == PRISM


def works_here(options: PipelineOptions) -> bool:
    """Whether a portable job's rows are scored in this process, though a job server hands them out."""
    apart = options.view_as(DebugOptions).lookup_experiment("use_loopback_process_worker", False)
    return is_portable(options) and environment_of(options) == LOOPBACK and not apart
