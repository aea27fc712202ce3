"""Sends failures back to the topic that a streaming job reads."""

import collections
import contextlib
import datetime
import logging
from collections.abc import Iterator

from sluice.models.errors import SluiceError, UsageError
from sluice.pipelines.commands.replay_set import find_changes
from sluice.pipelines.commands.replay_table import FailureTable
from sluice.pipelines.logs import tell
from sluice.pipelines.options.stream_tools import ReplayOptions
from sluice.pipelines.outcome import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from sluice.pipelines.progress.batch_progress import BatchProgress
from sluice.pipelines.progress.display import Display
from sluice.pipelines.progress.table import align
from sluice.transforms.core.failures import STAGES
from sluice.transforms.core.metrics import ROWS_FAILED, ROWS_PREDICTED
from sluice.transforms.pubsub.publish import Publisher
from sluice.transforms.pubsub.publish_sender import PublishOptions
from sluice.transforms.pubsub.replay.failure_files import FailureFiles
from sluice.transforms.pubsub.replay.failure_messages import FailureMessages, open_messages
from sluice.transforms.pubsub.replay.final_sink import FinalSink, open_final_sink
from sluice.transforms.pubsub.replay.replay import (
    ABSENT,
    READ,
    REFUSED,
    SENT,
    SKIPPED,
    TRIED,
    UNSET,
    ReplayRules,
    replay,
)
from sluice.transforms.pubsub.replay.stored_failure import StoredFailure
from sluice.transforms.pubsub.resources import check_topic

_LOG = logging.getLogger(__name__)

# The fates of failures that go to --final.
_FINAL = (TRIED, ABSENT, UNSET, REFUSED)

Source = FailureFiles | FailureMessages | FailureTable
Counts = collections.Counter[str]


def replay_failures(options: ReplayOptions) -> int:
    """Replays failures; returns the exit code.

    Raises:
      UsageError: source, topic or --final do not fit, or cannot be reached; nothing has been sent.
    """
    for stage in options.stages:
        if stage not in STAGES:
            raise UsageError(f"--stages {stage}: give one or more of {', '.join(STAGES)}")
    counts: Counts = collections.Counter()
    changes = find_changes(options)
    rules = ReplayRules(options.max_attempts, options.stages, options.error_types, options.limit, *changes)
    with contextlib.closing(_open_source(options)) as source, _open_sinks(options) as (publisher, final):
        error = _replay(options, rules, source, publisher, final, counts)
    _report(options, source, final, counts)
    problems = [*getattr(source, "damaged", ())]
    if isinstance(error, KeyboardInterrupt):
        tell(
            "sluice: interrupted; failures that were not sent or written yet are still where they were\n",
            logging.WARNING,
        )
        return EXIT_INTERRUPTED
    if error is not None:
        problems.append(f"{error}; failures that were not sent or written yet are still where they were")
    for problem in problems:
        tell(f"sluice: the replay failed: {problem}\n", logging.ERROR)
    return EXIT_FAILED if problems else EXIT_OK


def _open_source(options: ReplayOptions) -> Source:
    if options.from_subscription:
        return open_messages(options.failures, options.to, options.idle_secs)
    if options.failures_table:
        return FailureTable(options, options.failures_table, options.row_restriction)
    return FailureFiles(options.failures)


@contextlib.contextmanager
def _open_sinks(options: ReplayOptions) -> Iterator[tuple[Publisher[StoredFailure] | None, FinalSink | None]]:
    """Yields the publisher and --final; None for both in a dry run."""
    check_topic(options.to)
    if options.dry_run:
        yield None, None
        return
    final = open_final_sink(options.final, datetime.datetime.now(datetime.UTC))
    publisher: Publisher[StoredFailure] = Publisher(options.to, PublishOptions())
    try:
        yield publisher, final
    finally:
        publisher.close()
        final.close()


def _replay(
    options: ReplayOptions,
    rules: ReplayRules,
    source: Source,
    publisher: Publisher[StoredFailure] | None,
    final: FinalSink | None,
    counts: Counts,
) -> BaseException | None:
    """Returns the error that ended the replay early, if any."""

    def tally() -> dict[str, int]:
        return {ROWS_PREDICTED: counts[SENT], ROWS_FAILED: sum(counts[fate] for fate in _FINAL)}

    try:
        with Display(BatchProgress(tally, 0), options.progress):
            replay(source, publisher, final, rules, counts)
    except UsageError:
        raise
    except (SluiceError, OSError, KeyboardInterrupt) as error:
        _LOG.debug("The replay failed", exc_info=error)
        return error
    return None


def _report(options: ReplayOptions, source: Source, final: FinalSink | None, counts: Counts) -> None:
    where = f"; in {final.name}" if final else ""
    lines = [
        ("Read", counts[READ], options.source, True),
        ("Would be sent" if options.dry_run else "Sent", counts[SENT], f"to {options.to}", True),
        ("Tried too often", counts[TRIED], f"{options.max_attempts} times or more{where}", False),
        ("Not replayable", counts[ABSENT], f"no payload of a row was kept{where}", False),
        ("Not set", counts[UNSET], f"neither JSON objects nor tf.Examples that can hold --set{where}", False),
        ("Refused", counts[REFUSED], f"the topic does not accept them{where}", False),
        ("Skipped", counts[SKIPPED], "not of --stages and --error_types; left where they are", False),
        ("Newer", getattr(source, "newer", 0), "published since the start; left where they are", False),
        ("No failures", getattr(source, "strangers", 0), "something else; left where they are", False),
    ]
    shown = [(label, f"{count:,}", note) for label, count, note, always in lines if count or always]
    tell("".join(f"{line}\n" for line in align(shown, "<><")))
    if counts[SENT] and not options.dry_run and not options.from_subscription:
        remedy = "Give --row_restriction the next time" if options.failures_table else "Delete it or move it away"
        tell(f"{options.source} stays as it is. {remedy}: what is replayed again is sent again\n")
