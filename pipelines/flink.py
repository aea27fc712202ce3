"""Runs a stream on Flink: gives the job to the job server, follows it, and ends it once its readers are drained.

Workers read the subscription themselves (transforms.pubsub.read_worker). A file asks them to drain. When nothing is in
work any more, the job is cancelled: Flink's own drain waits for a source that has ended, and cancelling loses nothing
then, as it never does, since messages that are not acknowledged come again.
"""

import contextlib
import dataclasses
import logging
import shutil
import tempfile
import uuid
from collections.abc import Iterable

import grpc
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineResult

from sluice.models.errors import UsageError
from sluice.pipelines.dataflow.defaults import job_name
from sluice.pipelines.dataflow.runner import make_pipeline
from sluice.pipelines.graph import build_streaming
from sluice.pipelines.logs import tell
from sluice.pipelines.options.streaming import StreamingOptions
from sluice.pipelines.outcome import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, tell_end_of_stream
from sluice.pipelines.plan.model import without_account
from sluice.pipelines.plan.streaming_job import StreamingPlan
from sluice.pipelines.portable.flink_rest import cancel_jobs, check_name, master_of
from sluice.pipelines.portable.follow import JobServerLost
from sluice.pipelines.portable.follow_stream import End, StreamJob
from sluice.pipelines.portable.kind import works_here
from sluice.pipelines.portable.words import in_words
from sluice.pipelines.subscribing import bundle_options, subscribed
from sluice.transforms.core.failures import FULL
from sluice.transforms.pubsub.clients import subscriber
from sluice.transforms.pubsub.fused import check_fused
from sluice.transforms.pubsub.google_subscription import GoogleSubscription
from sluice.transforms.pubsub.read_worker import HOLD_SECS, LOST_SECS, WorkerSource, close_here
from sluice.transforms.pubsub.reader_files import ReaderFiles, Report
from sluice.transforms.pubsub.source_parts import SourceOptions

_LOG = logging.getLogger(__name__)

# So many messages of a process may wait for a checkpoint: some ten seconds' worth.
_MOST_IN_WORK = 100_000
# A message is finished when its bundle is, and then a checkpoint. A drain may take some of both.
_DRAIN_CHECKPOINTS, _DRAIN_SECS = 20, 120.0
# A message that is written and waits for so many is not waited for in a drain: a share of what it may take.
_LOST_CHECKPOINTS = 5
# How long Flink may take to end a job.
_END_SECS = 60.0
# Messages that may be left where nobody knows how many.
_LEFT = 1

_EXITS = {End.DRAINED: EXIT_OK, End.LATE: EXIT_FAILED, End.ABORTED: EXIT_INTERRUPTED}


def run_on_flink(options: StreamingOptions, plan: StreamingPlan, beam: PipelineOptions, checkpoint_secs: float) -> int:
    """Runs a stream until it is drained; returns the exit code.

    Args:
      beam: with the flags of pipelines.portable.streams.stream_flags.

    Raises:
      UsageError: the subscription cannot be read, workers would not hear of a drain, or the job's name is another's.
    """
    google, here = beam.view_as(GoogleCloudOptions), works_here(beam)  # Beam changes some options
    google.job_name = google.job_name or job_name(plan.recipe.spec, streaming=True)
    beam.view_as(StandardOptions).streaming = True
    check_name(master_of(beam), google.job_name)
    directory = _directory(beam, here)
    files, drain_secs = ReaderFiles(directory), max(_DRAIN_SECS, _DRAIN_CHECKPOINTS * checkpoint_secs)
    goes_on = False
    try:
        plan = _with_source(options, plan, directory, checkpoint_secs)
        goes_on = not here  # unless it is known that the job has ended
        code, ended = _run(options, plan, beam, files, drain_secs)
        goes_on = goes_on and not ended
        return code
    except UsageError:  # the job has not begun
        goes_on = False
        _close_subscription(plan, 0)
        raise
    except KeyboardInterrupt:  # before it was known whether the job server has the job
        _ask_to_drain(files)
        raise
    finally:
        close_here(directory)
        _leave(files, goes_on)


def _leave(files: ReaderFiles, goes_on: bool) -> None:
    """Deletes the files of a job, unless it may go on: a reader that began anew would not find that it is to drain."""
    if goes_on:
        _LOG.warning("The job may still be with Flink: its files are kept, and %s drains it", files.drain_file)
        return
    files.clear()
    if "://" not in files.directory:
        shutil.rmtree(files.directory, ignore_errors=True)


def _directory(beam: PipelineOptions, here: bool) -> str:
    """Returns the directory of the job's reader files, which is of this launch alone, whatever the job is called.

    Args:
      here: the workers are in this process.

    Raises:
      UsageError: the workers are elsewhere, and no directory is named that they and this process reach.
    """
    google = beam.view_as(GoogleCloudOptions)
    temp = google.temp_location or ""
    if not temp and here:
        return tempfile.mkdtemp(prefix="sluice-")
    if not temp or ("://" not in temp and not temp.startswith("/")):
        raise UsageError(
            f"--temp_location {temp or 'is missing'}: give a directory that this machine and all workers reach, a URI "
            "or an absolute path; by a file there the readers of a stream hear that they are to drain"
        )
    return f"{temp.rstrip('/')}/{google.job_name}-{uuid.uuid4().hex[:12]}"


def _with_source(
    options: StreamingOptions, plan: StreamingPlan, directory: str, checkpoint_secs: float
) -> StreamingPlan:
    """Returns the plan with a source for workers, completed by what the subscription says."""
    client = subscriber()
    try:
        plan = subscribed(plan, client)
    finally:
        client.close()
    source = WorkerSource(
        plan.subscription,
        SourceOptions(bundle_options(options), most_in_work=_MOST_IN_WORK),
        directory,
        options.readers,
        hold_secs=max(HOLD_SECS, _DRAIN_CHECKPOINTS * checkpoint_secs),
        lost_secs=max(LOST_SECS, _LOST_CHECKPOINTS * checkpoint_secs),
    )
    return dataclasses.replace(plan, worker=source, recipe=without_account(plan.recipe))


def _run(
    options: StreamingOptions, plan: StreamingPlan, beam: PipelineOptions, files: ReaderFiles, drain_secs: float
) -> tuple[int, bool]:
    """Returns the exit code, and whether the job is known to have ended where it runs."""
    private = options.failure_payload != FULL
    master, name = master_of(beam), beam.view_as(GoogleCloudOptions).job_name  # Beam changes some options
    pipeline = make_pipeline(beam)
    build_streaming(pipeline, plan)
    check_fused(pipeline)

    def submit() -> PipelineResult:
        result = pipeline.run()
        _say(f"the job {name} is with Flink; waiting for its workers. {files.drain_file} drains it")
        return result

    job = StreamJob(submit, files, drain_secs, _say)
    try:
        end = job.follow()
        ended = _finish(job, master, name, files)
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001  it ends the job, and its text is printed
        _say(_figures(job))
        _close_subscription(plan, _LEFT)
        return tell_end_of_stream(in_words(error), private), not isinstance(error, JobServerLost | grpc.RpcError)
    done = _figures(job)
    _close_subscription(plan, left_by(end, job.reports.values()))
    _say(f"{end.value}: {done}")
    return _EXITS[end], ended


def left_by(end: End, reports: Iterable[Report]) -> int:
    """Returns how many messages may wait in the subscription that readers had; 0: none that is known of.

    A reader that drains gives back what it had pulled ahead, and one that was killed has given back nothing.
    """
    left = sum(each.returned + (0 if each.drained else max(each.in_work, _LEFT)) for each in reports)
    return left if end is End.DRAINED else max(left, _LEFT)


def _finish(job: StreamJob, master: str, name: str, files: ReaderFiles) -> bool:
    """Ends the job where it runs; returns whether it has ended. Does not fail.

    Where it does not end, its readers find that they are to drain, also those that begin anew.
    """
    try:
        if master:
            cancel_jobs(master, name)
            if job.ended.wait(_END_SECS):
                return True
            _LOG.warning("The job %s has not ended in %.0f s", name, _END_SECS)
        else:
            _LOG.info("A Flink cluster may still show the job %s, which does nothing more; cancel it there", name)
            with contextlib.suppress(Exception):
                job.cancel()
    except Exception as error:  # noqa: BLE001  as said
        _LOG.warning("The job %s cannot be cancelled; cancel it where it runs: %s", name, error)
    _ask_to_drain(files)
    return False


def _ask_to_drain(files: ReaderFiles) -> None:
    with contextlib.suppress(Exception):  # the storage may be away
        files.ask_to_drain()


def _figures(job: StreamJob) -> str:
    reports = list(job.reports.values())
    acknowledged, returned = (sum(getattr(each, name) for each in reports) for name in ("acknowledged", "returned"))
    return f"{acknowledged:,} messages are done, and {returned:,} were given back, by {len(reports)} worker(s)"


def _close_subscription(plan: StreamingPlan, left: int) -> None:
    """Deletes the subscription that was made for the job, if there is one, unless messages are left in it."""
    if plan.topic and plan.subscription:
        GoogleSubscription(subscriber(), plan.subscription, temporary=True).close(left)


def _say(text: str, level: int = logging.INFO) -> None:
    tell(f"sluice: {text}\n", level)
