"""`sluice replay`: failures back to the topic that a streaming job reads."""

import argparse
import collections
import contextlib
import dataclasses
import datetime
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

from sluice.models.errors import SluiceError, UsageError
from sluice.pipelines.options.batch import PROGRESS
from sluice.pipelines.options.flags import add_arguments as add_flags
from sluice.pipelines.options.flags import flag, from_namespace, parse_bool, parse_names
from sluice.pipelines.progress.outcome import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK

_LOG = logging.getLogger(__name__)

DESCRIPTION = """Feeds failures back: publishes the message of each to a topic, with the attributes that it had, and how
often it will have been tried in the attribute sluice_attempt, which a streaming job writes into a new failure of it. A
failure that has been tried --max_attempts times, whose payload was not kept, or that the topic does not take goes to
--final instead. Nothing is dropped, and what is replayed may arrive twice."""

EPILOG = """Files stay as they are: replaying the same file again sends the same messages again, so delete it or move
it away afterwards. Of a subscription a failure is acknowledged once it is sent or written; what is published to it
after the start is left, so that failures of what is fed back do not come round and round.

examples:
  sluice replay --failures 'gs://bucket/failures-*.jsonl' --to projects/P/topics/input
  sluice replay --failures projects/P/subscriptions/failures --to projects/P/topics/input --stages predict"""

_TOPIC = re.compile(r"projects/[^/]+/topics/[^/]+")
_SUBSCRIPTION = re.compile(r"projects/[^/]+/subscriptions/[^/]+")
_CALL_SECS = 20.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """Options of `sluice replay`. Checks itself; a value that cannot be raises UsageError."""

    failures: str = flag(
        "What --failures of a streaming job wrote: a path or glob of JSON Lines, local or gs://, also .gz; or a "
        "subscription of its --failures_topic, as projects/P/subscriptions/S",
        group="Input",
        metavar="SOURCE",
    )
    stages: tuple[str, ...] = flag(
        "Only failures at these stages (read, decode, bind, predict, encode, write); others are left", (), parse_names,
        group="Input", metavar="A,B,...",
    )  # fmt: skip
    error_types: tuple[str, ...] = flag(
        "Only failures of these types, as their error_type says, e.g. Unavailable,TimedOut; others are left",
        (), parse_names, group="Input", metavar="A,B,...",
    )  # fmt: skip
    limit: int = flag("End after so many of them", 0, int, group="Input", metavar="N")
    idle_secs: float = flag("Of a subscription: end when nothing has come for so long", 10.0, float, group="Input")
    to: str = flag("Where they go, as projects/P/topics/T", group="Output", metavar="TOPIC")
    max_attempts: int = flag("A failure that has been tried so often goes to --final", 5, int, group="Output")
    final: str = flag(
        "A new file for what is not sent, as JSON Lines (on gs://, the beginning of objects' names); default: "
        "replay-final-TIME.jsonl in the current directory",
        "",
        group="Output",
        metavar="PATH",
    )
    dry_run: bool = flag("Send and write nothing; tell what would be", False, parse_bool, group="Run")
    progress: str = flag(
        "Progress: a bar on a terminal, or a log line every 30 s", "auto", choices=PROGRESS, group="Run"
    )

    def __post_init__(self) -> None:
        if not _TOPIC.fullmatch(self.to):
            raise UsageError(f"--to {self.to}: a topic is expected, as projects/P/topics/T")
        if self.failures.startswith("projects/") and not self.from_subscription:
            raise UsageError(f"--failures {self.failures}: a subscription is projects/P/subscriptions/S")
        if self.max_attempts < 1 or self.limit < 0:
            raise UsageError("--max_attempts is 1 or more, and --limit 0 or more; 0: no limit")
        if not self.idle_secs > 0:
            raise UsageError(f"--idle_secs is above 0, found {self.idle_secs:g}")

    @property
    def from_subscription(self) -> bool:
        return _SUBSCRIPTION.fullmatch(self.failures) is not None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice replay`."""
    add_flags(parser, ReplayOptions)


def run(args: argparse.Namespace) -> int:
    """Feeds failures back; returns the exit code.

    Raises:
      UsageError: source, topic or final place do not fit, or cannot be reached; nothing has been sent.
    """
    options = from_namespace(ReplayOptions, args)
    _check_stages(options.stages)
    counts: collections.Counter[str] = collections.Counter()
    with _open_source(options) as source, _open_sinks(options) as (publisher, final):
        error = _replay(options, source, publisher, final, counts)
    _report(options, source, final, counts)
    problems = [*getattr(source, "damaged", ())]
    if isinstance(error, KeyboardInterrupt):
        sys.stderr.write("sluice: interrupted; what was not sent or written yet is still where it was\n")
        return EXIT_INTERRUPTED
    if error is not None:
        problems.append(f"{error}; what was not sent or written yet is still where it was")
    for problem in problems:
        sys.stderr.write(f"sluice: the replay failed: {problem}\n")
    return EXIT_FAILED if problems else EXIT_OK


def _check_stages(stages: tuple[str, ...]) -> None:
    from sluice.transforms.core import failures

    known = (failures.READ, failures.DECODE, failures.BIND, failures.PREDICT, failures.ENCODE, failures.WRITE)
    for stage in stages:
        if stage not in known:
            raise UsageError(f"--stages {stage}: it is not one of {', '.join(known)}")


@contextlib.contextmanager
def _open_source(options: ReplayOptions) -> Iterator[Any]:
    from sluice.transforms.pubsub.replay.failure_files import FailureFiles
    from sluice.transforms.pubsub.replay.failure_messages import open_messages

    if options.from_subscription:
        source: Any = open_messages(options.failures, options.to, options.idle_secs)
    else:
        source = FailureFiles(options.failures)
    try:
        yield source
    finally:
        source.close()


@contextlib.contextmanager
def _open_sinks(options: ReplayOptions) -> Iterator[tuple[Any, Any]]:
    """Gives what publishes, and the final place; both None for a dry run."""
    from sluice.transforms.pubsub.publish import Publisher
    from sluice.transforms.pubsub.publish_sender import PublishOptions
    from sluice.transforms.pubsub.replay.final_sink import open_final_sink
    from sluice.transforms.pubsub.resources import check_topic

    check_topic(options.to)
    if options.dry_run:
        yield None, None
        return
    final = open_final_sink(options.final, datetime.datetime.now(datetime.UTC))
    publisher: Publisher[Any] = Publisher(options.to, PublishOptions())
    try:
        yield publisher, final
    finally:
        publisher.close()
        final.close()


def _replay(
    options: ReplayOptions, source: Any, publisher: Any, final: Any, counts: "collections.Counter[str]"
) -> BaseException | None:
    """Returns what ended it before its time."""
    from sluice.pipelines.progress.batch import Progress
    from sluice.transforms.core.metrics import ROWS_FAILED, ROWS_PREDICTED
    from sluice.transforms.pubsub.replay.replay import ABSENT, REFUSED, SENT, TRIED, ReplayRules, replay

    rules = ReplayRules(options.max_attempts, options.stages, options.error_types, options.limit)

    def tally() -> dict[str, int]:
        return {ROWS_PREDICTED: counts[SENT], ROWS_FAILED: counts[TRIED] + counts[ABSENT] + counts[REFUSED]}

    try:
        with Progress(tally, 0, mode=options.progress):
            replay(source, publisher, final, rules, counts)
    except UsageError:
        raise
    except (SluiceError, OSError, KeyboardInterrupt) as error:
        _LOG.debug("The replay failed", exc_info=error)
        return error
    return None


def _report(options: ReplayOptions, source: Any, final: Any, counts: "collections.Counter[str]") -> None:
    from sluice.transforms.pubsub.replay.replay import ABSENT, READ, REFUSED, SENT, SKIPPED, TRIED

    place = f"; in {final.name}" if final else ""
    lines = [
        ("Read", counts[READ], options.failures, True),
        ("Would be sent" if options.dry_run else "Sent", counts[SENT], f"to {options.to}", True),
        ("Tried too often", counts[TRIED], f"{options.max_attempts} times or more{place}", False),
        ("Not replayable", counts[ABSENT], f"no payload of a row was kept{place}", False),
        ("Refused", counts[REFUSED], f"the topic does not take them{place}", False),
        ("Skipped", counts[SKIPPED], "not of --stages and --error_types; left where they are", False),
        ("Newer", getattr(source, "newer", 0), "published since the start; left where they are", False),
        ("No failures", getattr(source, "strangers", 0), "something else; left where they are", False),
    ]
    shown = [(label, f"{count:,}", note) for label, count, note, always in lines if count or always]
    labels, width = (max(len(each[place]) for each in shown) for place in (0, 1))
    sys.stderr.writelines(f"{label:<{labels}}  {count:>{width}}  {note}\n" for label, count, note in shown)
    if counts[SENT] and not options.dry_run and not options.from_subscription:
        sys.stderr.write(f"Delete {options.failures} or move it away: replayed again, it is sent again\n")
