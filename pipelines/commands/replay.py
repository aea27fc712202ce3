"""`sluice replay`: its flags. commands.replay_run sends the failures."""

import argparse
import dataclasses
import re

from sluice.models.errors import UsageError
from sluice.pipelines.options.flags import add_arguments as add_flags
from sluice.pipelines.options.flags import flag, from_namespace, parse_bool, parse_names, progress_flag

HELP = "send a stream's failures back to its topic"
DESCRIPTION = """Publishes the message of each failure to a topic again, with the attributes that it had. The
attribute sluice_attempt counts the attempts; a streaming job copies it into a new failure of the message. A failure
goes to --final instead if it has been tried --max_attempts times, if its payload was not kept, or if the topic
refuses it. Nothing is dropped, and a replayed message may arrive twice."""
EPILOG = """Files are left as they are: replaying a file again sends its messages again, so delete it or move it away
afterwards. A failure in a subscription is acknowledged after it is sent or written. Failures that are published after
the start are left, so that replayed messages which fail again do not go round and round.

examples:
  sluice replay --failures 'gs://bucket/failures-*.jsonl' --to projects/P/topics/input
  sluice replay --failures projects/P/subscriptions/failures --to projects/P/topics/input --stages predict"""

_TOPIC = re.compile(r"projects/[^/]+/topics/[^/]+")
_SUBSCRIPTION = re.compile(r"projects/[^/]+/subscriptions/[^/]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """Options of `sluice replay`. Checks itself: an invalid value raises UsageError."""

    failures: str = flag(
        "Failures of a streaming job: a path or glob of --failures files, local or gs://, also .gz; or a subscription "
        "to its --failures_topic, projects/P/subscriptions/S",
        group="Input",
        metavar="SOURCE",
    )
    stages: tuple[str, ...] = flag(
        "Replay only failures of these stages (read, decode, bind, predict, encode, write)", (), parse_names,
        group="Input", metavar="A,B,...",
    )  # fmt: skip
    error_types: tuple[str, ...] = flag(
        "Replay only failures of these types, as in their error_type, e.g. Unavailable,TimedOut", (), parse_names,
        group="Input", metavar="A,B,...",
    )  # fmt: skip
    limit: int = flag("Replay so many failures at most; 0: no limit", 0, int, group="Input", metavar="N")
    idle_secs: float = flag("Subscription: end when nothing has come for so long", 10.0, float, group="Input")
    to: str = flag("Topic for the messages: projects/P/topics/T", group="Output", metavar="TOPIC")
    max_attempts: int = flag("Failures that have been tried so often go to --final", 5, int, group="Output")
    final: str = flag(
        "New JSON Lines file for failures that are not sent (on gs://, a prefix of object names); default: "
        "replay-final-TIME.jsonl in the current directory",
        "",
        group="Output",
        metavar="PATH",
    )
    dry_run: bool = flag("Send and write nothing; report what would be done", False, parse_bool, group="Run")
    progress: str = progress_flag()

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
    """Replays failures; returns the exit code. Raises as commands.replay_run.replay_failures does."""
    options = from_namespace(ReplayOptions, args)
    from sluice.pipelines.commands.replay_run import replay_failures  # imports Beam

    return replay_failures(options)
