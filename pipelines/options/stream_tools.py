"""The options of the commands around a stream: `sluice simulate`, `sluice latency` and `sluice replay`."""

import dataclasses
import re

from sluice.models import zoo
from sluice.models.errors import UsageError
from sluice.models.signature import DEFAULT_SIGNATURE
from sluice.pipelines.options.flags import check_number, flag, parse_bool, parse_names, parse_pair, progress_flag
from sluice.pipelines.options.table import BigQueryFlags

_TOPIC = re.compile(r"projects/[^/]+/topics/[^/]+")
_SUBSCRIPTION = re.compile(r"projects/[^/]+/subscriptions/[^/]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulateOptions:
    """Options of `sluice simulate`. Checks itself: an invalid value raises UsageError."""

    topic: str = flag("Topic for the rows: projects/P/topics/T", group="Output", metavar="TOPIC")
    create: bool = flag("Create the topic if it does not exist", False, parse_bool, group="Output")
    zoo: str = flag(
        f"Rows from this model's sample input: {', '.join(zoo.NAMES)} (default: criteo)", "", choices=zoo.NAMES,
        group="Input",
    )  # fmt: skip
    input: str = flag(
        "Rows from this JSON Lines file; with --rows or --seconds, repeatedly", "", group="Input", metavar="FILE"
    )
    poison: int = flag("Make every Nth message invalid JSON, to test failures; 0: none", 0, int, group="Input")
    rate: float = flag("Rows per second; 0: as fast as possible", 50.0, float, group="Run")
    rows: int = flag("End after so many rows", 0, int, group="Run")
    seconds: float = flag("End after so many seconds", 0.0, float, group="Run")
    progress: str = progress_flag()

    def __post_init__(self) -> None:
        if self.zoo and self.input:
            raise UsageError("--zoo and --input are two sources of rows; give one")
        for name in ("rate", "seconds"):
            check_number(self, name)
        for name in ("rows", "poison"):
            check_number(self, name, whole=True)

    @property
    def endless(self) -> bool:
        return not (self.rows or self.seconds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatencyOptions:
    """Options of `sluice latency`. Checks itself: an invalid value raises UsageError."""

    subscription: str = flag(
        "Subscription to the predictions' topic: projects/P/subscriptions/S; its messages are acknowledged",
        group="Input",
        metavar="SUBSCRIPTION",
    )
    count: int = flag("End when the predictions of so many rows have come", 0, int, group="Run")
    seconds: float = flag("End after so many seconds", 0.0, float, group="Run")
    json: str = flag("Write the figures as JSON to this file", "", group="Output", metavar="FILE")
    progress: str = progress_flag()

    def __post_init__(self) -> None:
        check_number(self, "count", whole=True)
        check_number(self, "seconds")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplayOptions(BigQueryFlags):
    """Options of `sluice replay`. Checks itself: an invalid value raises UsageError."""

    failures: str = flag(
        "Failures of a streaming job: a path or glob of --failures files, local or gs://, also .gz; or a subscription "
        "to its --failures_topic, projects/P/subscriptions/S",
        "",
        group="Input",
        metavar="SOURCE",
    )
    failures_table: str = flag(
        "Failures of a streaming job: the BigQuery table of its --failures_table, PROJECT.DATASET.TABLE",
        "",
        group="Input",
        metavar="TABLE",
    )
    row_restriction: str = flag(
        "Read only the rows of --failures_table that meet this condition, as after WHERE: timestamp > '...'", "",
        group="Input", metavar="SQL",
    )  # fmt: skip
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
    set: tuple[tuple[str, str], ...] = flag(
        "Give this column of each message, a JSON object or a tf.Example, this value before it is sent, or add the "
        "column. May be repeated. The type is that of --model or --input_schema; without them VALUE is what JSON reads "
        "it as, or else text",
        (),
        parse_pair,
        group="Output",
        metavar="COLUMN=VALUE",
        repeated=True,
    )
    model: str = flag("Model of the stream, whose inputs give --set their types", "", group="Output", metavar="URI")
    signature: str = flag("Signature of --model", DEFAULT_SIGNATURE, group="Output", metavar="NAME")
    input_schema: str = flag(
        "Types of further columns of --set: JSON file in BigQuery's schema form", "", group="Output", metavar="FILE"
    )
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
        if bool(self.failures) == bool(self.failures_table):
            raise UsageError("Give either --failures or --failures_table: where the failures are read")
        if self.row_restriction and not self.failures_table:
            raise UsageError("--row_restriction applies to --failures_table, which is not given")
        if self.failures.startswith("projects/") and not self.from_subscription:
            raise UsageError(f"--failures {self.failures}: a subscription is projects/P/subscriptions/S")
        if self.max_attempts < 1 or self.limit < 0:
            raise UsageError("--max_attempts is 1 or more, and --limit 0 or more; 0: no limit")
        if not self.set and (self.model or self.input_schema):
            raise UsageError("--model and --input_schema are for --set, which is not given")
        if not self.idle_secs > 0:
            raise UsageError(f"--idle_secs is above 0, found {self.idle_secs:g}")

    @property
    def source(self) -> str:
        """Where the failures are read, as it was given."""
        return self.failures or self.failures_table

    @property
    def from_subscription(self) -> bool:
        return _SUBSCRIPTION.fullmatch(self.failures) is not None
