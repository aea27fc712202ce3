"""The runner of a job, and Beam's own flags."""

import argparse
import contextlib
import dataclasses
import difflib
from collections.abc import Iterator
from typing import TypeVar

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineResult, PipelineRunner
from apache_beam.transforms.environments import EmbeddedPythonEnvironment

from sluice.models.endpoints.secrets import is_loopback
from sluice.models.errors import UsageError
from sluice.models.uri import Endpoint, ModelSpec, parse_base_url, parse_model_uri
from sluice.pipelines.logs import tell
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.flags import SECRETS
from sluice.pipelines.options.streaming import StreamingOptions
from sluice.pipelines.portable.checks import check_workers, set_time_limit
from sluice.pipelines.portable.flags import find_declared
from sluice.pipelines.portable.kind import full_name, is_portable, is_portable_name, runner_name, works_here
from sluice.pipelines.portable.streams import check_engine

_View = TypeVar("_View", bound=PipelineOptions)

# Beam's DirectRunner picks a runner by what the network offers; we name the one that we mean.
_LOCAL = ("", "directrunner", "fnapirunner")
_DATAFLOW = "dataflowrunner"
# The option in which Dataflow shows ours (pipelines.dataflow.defaults).
_OURS = "sluice_options"


def beam_options(flags: list[str]) -> PipelineOptions:
    """Returns Beam's options for these flags. Those of a portable job may be options of its job server.

    Raises:
      UsageError: a flag is neither ours nor Beam's nor the job server's; Beam itself would only warn and drop it. Or
        the job server does not answer.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    for options in [PipelineOptions, *_all_subclasses(PipelineOptions)]:
        add = options.__dict__.get("_add_argparse_args")
        if add is not None:
            _add_all(options, parser)
    known = {option for action in parser._actions for option in action.option_strings}
    given, unknown = parser.parse_known_args(flags)
    if is_portable_name(full_name(given.runner or "")):
        declared = find_declared(given, known)
        others, passed = declared.pass_on(flags)
        known |= {f"--{name}" for name in declared.kinds}
        _check_known(parser.parse_known_args(others)[1], known)
        return _JobFlags([*others, *passed])
    _check_known(unknown, known)
    return _JobFlags(flags)


def _check_known(unknown: list[str], known: set[str]) -> None:
    for flag in unknown:
        if not flag.startswith("-"):
            raise UsageError(f"'{flag}' is no flag; give a glob in quotes, and --input again for each further path")
        ours = {f"--{field.name}" for job in (BatchOptions, StreamingOptions) for field in dataclasses.fields(job)}
        near = difflib.get_close_matches(flag.split("=")[0], [*sorted(ours), *sorted(known)], 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"{flag}: neither Sluice nor Beam has such a flag{hint}")


class _JobFlags(PipelineOptions):
    """Beam's options, which parse their flags once for each view.

    Beam parses them anew at each `view_as`: 180 times while it builds a batch job's graph, half of that time.
    """

    def view_as(self, cls: type[_View]) -> _View:
        views = self.__dict__.setdefault("_views", {})
        view = views.get(cls)
        if view is None or view._all_options is not self._all_options:
            view = views[cls] = super().view_as(cls)
        return view

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in super().__getstate__().items() if name != "_views"}


def _all_subclasses(root: type[PipelineOptions]) -> list[type[PipelineOptions]]:
    children: list[type[PipelineOptions]] = root.__subclasses__()
    return [each for child in children for each in (child, *_all_subclasses(child))]


def _add_all(options: type[PipelineOptions], parser: argparse.ArgumentParser) -> None:
    # Two of Beam's classes define the same flag; the first one counts.
    with contextlib.suppress(argparse.ArgumentError):
        options._add_argparse_args(parser)


def is_local(options: PipelineOptions) -> bool:
    """Whether Beam's runner is in this process, and no other one has a part in the job."""
    return runner_name(options) in _LOCAL


def is_here(options: PipelineOptions) -> bool:
    """Whether the rows are scored in this process: on one machine, or by a portable job whose worker it is."""
    return is_local(options) or works_here(options)


def loads_model(options: PipelineOptions, model: ModelSpec) -> bool:
    """Whether a job loads its model into this process. Workers of other processes load theirs."""
    mode = options.view_as(DirectOptions).direct_running_mode
    return is_here(options) and model.is_here and mode != "multi_processing"


def is_dataflow(options: PipelineOptions) -> bool:
    """Whether the job runs on Dataflow."""
    return runner_name(options) == _DATAFLOW


def check_reachable(job: BatchOptions | StreamingOptions, options: PipelineOptions) -> None:
    """Checks that workers which are not on this machine can reach the paths of a job.

    Raises:
      UsageError: the job runs on Dataflow, and a path is on this machine; or see `check_workers`.
    """
    check_workers(job, options)
    if not is_dataflow(options):
        return
    for flag, endpoint in _servers(job):
        if not is_loopback(endpoint.host):
            continue
        raise UsageError(
            f"{flag} is on this machine, which Dataflow's workers cannot reach; give the server's address "
            "in their network"
        )
    for name in ("input", "read_paths_root", "model", "output", "failures", "failure_payload_dir"):
        value = getattr(job, name, "")
        paths = (value,) if isinstance(value, str) else value
        path = next((path for path in paths if path and "://" not in path), "")
        if path:
            raise UsageError(
                f"--{name} {path} is on this machine, which Dataflow's workers cannot read; give a gs:// path"
            )


def _servers(job: BatchOptions | StreamingOptions) -> Iterator[tuple[str, Endpoint]]:
    """Yields where workers send calls of the model, as the user gave it."""
    endpoint = parse_model_uri(job.model).endpoint
    if endpoint is None:
        return
    yield f"--model {job.model}", endpoint
    if endpoint.protocol == "vertex" and job.vertex_endpoint:
        yield f"--vertex_endpoint {job.vertex_endpoint}", parse_base_url(job.vertex_endpoint, "--vertex_endpoint")


def used_beam_options(options: PipelineOptions) -> dict[str, object]:
    """Returns the options of Beam that a job ran with, except defaults and secrets, for its summary."""
    found = options.get_all_options(drop_default=True, retain_unknown_options=is_portable(options))
    found.pop("job_server_timeout", None)  # ours; see `set_time_limit`
    return {name: value for name, value in found.items() if name not in (*SECRETS, _OURS)}


def make_pipeline(options: PipelineOptions) -> beam.Pipeline:
    """Returns an empty pipeline on the runner that the options name; by default Beam's in-process FnApiRunner.

    Raises:
      UsageError: the runner's options are invalid.
    """
    set_time_limit(options)
    try:
        return beam.Pipeline(runner=_make_runner(options), options=options)
    except ValueError as error:
        raise UsageError(" ".join(str(error).split())) from error


def _make_runner(options: PipelineOptions) -> PipelineRunner | None:
    if is_local(options):
        return FnApiRunner()
    if not is_portable(options):
        return None
    from sluice.pipelines.portable.runners import portable_runner  # other jobs do without Beam's portable runners

    return portable_runner(options)


def is_started_later(result: PipelineResult | None) -> bool:
    """Whether this process only wrote the job, as the launcher of a Flex Template does; prints a line if so."""
    if getattr(result, "has_job", True):
        return False
    tell("sluice: the job is written; Dataflow starts it\n")
    return True


def local_graph(pipeline: beam.Pipeline) -> beam_runner_api_pb2.Pipeline:
    """Returns a pipeline in the form for `run_graph`."""
    return pipeline.to_runner_api(default_environment=EmbeddedPythonEnvironment.default())


def run_graph(graph: beam_runner_api_pb2.Pipeline, options: PipelineOptions) -> None:
    """Runs a graph on the in-process runner to its end. A graph may run any number of times."""
    FnApiRunner().run_via_runner_api(graph, options).wait_until_finish()


def check_streams(options: PipelineOptions) -> None:
    """Checks that a streaming job can run on the runner without losing messages.

    Raises:
      UsageError: the runner is neither this process nor Flink nor Dataflow; or Beam is asked to run a local job in
        several processes or threads, but a local stream has one reader.
    """
    if is_dataflow(options):
        return
    if not is_local(options):
        check_engine(options)
        return
    local = options.view_as(DirectOptions)
    if local.direct_running_mode != "in_memory" or local.direct_num_workers not in (None, 0, 1):
        raise UsageError(
            "a local streaming job runs in one process: leave out --direct_running_mode and --direct_num_workers. To "
            "use more cores, run the command several times on the same subscription"
        )
