"""Which runner a job runs on, and Beam's own flags."""

import argparse
import contextlib
import difflib
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import EmbeddedPythonEnvironment

from sluice.models.errors import UsageError
from sluice.models.uri import parse_model_uri
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.streaming import StreamingOptions

_LOOPBACK = ("localhost", "127.0.0.1", "::1")

# Beam's DirectRunner is a switch whose choice depends on the network; we name the runner that we mean.
_LOCAL = ("", "directrunner", "fnapirunner")
_DATAFLOW = "dataflowrunner"


def beam_options(flags: list[str]) -> PipelineOptions:
    """Returns Beam's options of these flags.

    Raises:
      UsageError: a flag is neither ours nor Beam's: Beam itself would drop it with a warning.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    for options in [PipelineOptions, *_all_subclasses(PipelineOptions)]:
        add = options.__dict__.get("_add_argparse_args")
        if add is not None:
            _add_all(options, parser)
    _, unknown = parser.parse_known_args(flags)
    for flag in unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        near = difflib.get_close_matches(flag.split("=")[0], known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"{flag}: neither Sluice nor Beam has such a flag{hint}")
    return PipelineOptions(flags)


def _all_subclasses(root: Any) -> list[Any]:
    children: list[Any] = root.__subclasses__()
    return [each for child in children for each in (child, *_all_subclasses(child))]


def _add_all(options: Any, parser: argparse.ArgumentParser) -> None:
    # Two of Beam's classes name the same flag; the first one stands.
    with contextlib.suppress(argparse.ArgumentError):
        options._add_argparse_args(parser)


def is_local(options: PipelineOptions) -> bool:
    """Whether the job runs in this process."""
    return _runner(options) in _LOCAL


def is_dataflow(options: PipelineOptions) -> bool:
    """Whether the job runs on Dataflow."""
    return _runner(options) == _DATAFLOW


def _runner(options: PipelineOptions) -> str:
    """Returns the runner's name as Beam takes it: in any case, and without "Runner" as well."""
    name = (options.view_as(StandardOptions).runner or "").lower()
    return name if not name or name.endswith("runner") else f"{name}runner"


def check_reachable(job: BatchOptions | StreamingOptions, options: PipelineOptions) -> None:
    """
    Raises:
      UsageError: the job runs on Dataflow, and a path of it is on this machine, which workers there do not see.
    """
    if not is_dataflow(options):
        return
    endpoint = parse_model_uri(job.model).endpoint
    if endpoint and endpoint.host in _LOOPBACK:
        raise UsageError(
            f"--model {job.model} is on this machine, where Dataflow's workers do not reach it; give the server's "
            "address in their network"
        )
    for name in ("input", "model", "output", "failures"):
        path = getattr(job, name, "")
        if path and "://" not in path:
            raise UsageError(
                f"--{name} {path} is on this machine, where Dataflow's workers do not see it; give a gs:// path"
            )


def make_pipeline(options: PipelineOptions) -> beam.Pipeline:
    """Returns an empty pipeline on the runner that the options name; Beam's in-process FnApiRunner by default.

    Raises:
      UsageError: the runner's options do not hold.
    """
    try:
        return beam.Pipeline(runner=FnApiRunner() if is_local(options) else None, options=options)
    except ValueError as error:
        raise UsageError(" ".join(str(error).split())) from error


def local_graph(pipeline: beam.Pipeline) -> Any:
    """Returns a pipeline as `run_graph` takes it."""
    return pipeline.to_runner_api(default_environment=EmbeddedPythonEnvironment.default())


def run_graph(graph: Any, options: PipelineOptions) -> None:
    """Runs a graph on the in-process runner to its end, as often as wanted."""
    FnApiRunner().run_via_runner_api(graph, options).wait_until_finish()


def check_streams(options: PipelineOptions) -> None:
    """
    Raises:
      UsageError: the runner is neither this process nor Dataflow, on which alone nothing is lost; or Beam is asked to
        run a local job in several processes or threads, whereas a local stream is read by one.
    """
    if is_dataflow(options):
        return
    if not is_local(options):
        raise UsageError(
            f"--runner {options.view_as(StandardOptions).runner}: a streaming job runs in this process (leave --runner "
            "out) or on Dataflow; others are not known to acknowledge messages only when they are written"
        )
    local = options.view_as(DirectOptions)
    if local.direct_running_mode != "in_memory" or local.direct_num_workers not in (None, 0, 1):
        raise UsageError(
            "a local streaming job runs in one process: leave out --direct_running_mode and --direct_num_workers. To "
            "use more cores, run the command several times on the same subscription"
        )
