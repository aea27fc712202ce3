"""The options of a streaming job."""

import dataclasses
import re

from sluice.models.errors import UsageError
from sluice.pipelines.options.batch import PAYLOAD_MODES, PROGRESS
from sluice.pipelines.options.flags import flag, parse_bool, parse_names, parse_pairs
from sluice.pipelines.options.model import ModelFlags, check_number
from sluice.pipelines.options.table import STORAGE_WRITE_API, STREAMING_INSERTS, TableFlags
from sluice.transforms.core.formats import FORMATS

MESSAGE_FORMATS = ("json", "example", "avro", "raw")

# https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names
_ID = r"projects/[^/]+/{kind}/[A-Za-z][A-Za-z0-9\-_.~+%]{{2,254}}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamingOptions(ModelFlags, TableFlags):
    """Options of `sluice streaming`. Checks itself; a value that cannot be raises UsageError."""

    input_subscription: str = flag(
        "Subscription to read: projects/P/subscriptions/S", "", group="Input", metavar="SUBSCRIPTION"
    )
    input_topic: str = flag(
        "Topic to read, projects/P/topics/T, by a subscription that is made for this job and removed at its end: what "
        "is published while no job runs is not seen",
        "",
        group="Input",
        metavar="TOPIC",
    )
    input_format: str = flag(
        "What messages hold: a JSON object, a serialized tf.Example, an Avro record, or (raw) the value of the one "
        "string that the model takes",
        "json",
        choices=MESSAGE_FORMATS,
        group="Input",
    )
    input_schema: str = flag(
        "JSON file in BigQuery's schema form that types columns; needed to carry columns that the model does not take "
        "into a table, or into files that are not JSON Lines",
        "",
        group="Input",
        metavar="FILE",
    )
    avro_schema: str = flag(
        "Avro: file with the schema that messages are written with", "", group="Input", metavar="FILE"
    )
    column_defaults: tuple[tuple[str, str], ...] = flag(
        "What stands for a null in a column that the model takes", (), parse_pairs, group="Input", metavar="A=0,B=x"
    )
    timestamp_attribute: str = flag(
        "Attribute with a message's event time, in milliseconds since the epoch or RFC 3339; default: its publish time",
        "",
        group="Input",
        metavar="NAME",
    )
    id_label: str = flag(
        "On Dataflow: attribute that tells messages apart; it drops those that come twice", "", group="Input",
        metavar="NAME",
    )  # fmt: skip
    max_delivery_attempts: int = flag(
        "Messages that were delivered more often are failures, unread: their processing may have killed workers. 0: "
        "one less than the subscription's own dead-letter policy allows, if it has one",
        0,
        int,
        group="Input",
        metavar="N",
    )
    model_poll_secs: float = flag(
        "How often to look for a newer version of a SavedModel under its base path, which is then loaded and takes "
        "over; 0: keep the one found at launch",
        30.0,
        float,
        group="Model",
        metavar="S",
    )
    output_topic: str = flag("Topic for predictions, as JSON: projects/P/topics/T", "", group="Output", metavar="TOPIC")
    write_method: str = flag(
        "How rows get into --output_table. storage_write_api: as Arrow, for about a tenth of the processor time; a "
        "message that comes again makes a second row. streaming_inserts: as JSON, each row with its message's id, by "
        "which BigQuery drops most of those that come again within a minute or so",
        STORAGE_WRITE_API,
        choices=(STORAGE_WRITE_API, STREAMING_INSERTS),
        group="Output",
    )
    output: str = flag(
        "Files for predictions: out/pred.jsonl becomes out/pred-TIME-ID.jsonl, again and again; local or gs://; the "
        "ending picks the format",
        "",
        group="Output",
        metavar="PATH",
    )
    output_format: str = flag("Format of the files; default: by the ending", "", choices=FORMATS, group="Output")
    output_prefix: str = flag("Put before the names of the model's outputs", "", group="Output", metavar="TEXT")
    columns: tuple[str, ...] | None = flag(
        "Input columns to carry into the output; default: all; empty: none", None, parse_names, group="Output",
        metavar="A,B,...",
    )  # fmt: skip
    exclude_columns: tuple[str, ...] = flag(
        "Input columns and model outputs to leave out", (), parse_names, group="Output", metavar="A,B,..."
    )
    add_model_columns: bool = flag(
        "Add _model and _version to each row (messages have them as attributes, tables always)", False, parse_bool,
        group="Output",
    )  # fmt: skip
    flatten: bool = flag("CSV files: write lists as JSON text in one field", False, parse_bool, group="Output")
    failures_topic: str = flag("Topic for failed rows, as JSON", "", group="Failures", metavar="TOPIC")
    failures: str = flag(
        "Files for failed rows, as JSON Lines: out/failed becomes out/failed-TIME-ID.jsonl", "", group="Failures",
        metavar="PATH",
    )  # fmt: skip
    failure_payload: str = flag(
        "What a failure shows of its row: all of it, its SHA-256, or nothing", "full", choices=PAYLOAD_MODES,
        group="Failures",
    )  # fmt: skip
    max_bundle_messages: int = flag(
        "Locally: messages that are written and acknowledged together, at most", 4000, int, group="Run", metavar="N"
    )
    max_bundle_delay_ms: float = flag(
        "Locally: how long messages are gathered before they are scored; -1: 0, or 10,000 if --output is given, since "
        "each bundle is a file",
        -1.0,
        float,
        group="Run",
        metavar="MS",
    )
    max_restarts: int = flag(
        "Locally: how often in a row messages are given back and tried again after an error that is not about a row; "
        "then the job ends with exit code 1",
        10,
        int,
        group="Run",
        metavar="N",
    )
    health_port: int = flag(
        "Locally: answer /healthz, /readyz and /metrics on this port of 127.0.0.1; 0: not", 0, int, group="Run",
        metavar="PORT",
    )  # fmt: skip
    summary_file: str = flag("Write the summary as JSON to this file too", "", group="Run", metavar="FILE")
    progress: str = flag(
        "Progress: a line that is renewed on a terminal, or a log line every 30 s", "auto", choices=PROGRESS,
        group="Run",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_ends()
        self.check_tables()
        if self.write_method != STORAGE_WRITE_API and not self.output_table:
            raise UsageError("--write_method is about --output_table, which is not given")
        for name in ("input_subscription", "input_topic", "output_topic", "failures_topic"):
            _check_resource(name, getattr(self, name))
        for name in ("max_restarts", "max_delivery_attempts"):
            check_number(self, name, whole=True)
        check_number(self, "health_port", most=65_535, whole=True)
        check_number(self, "max_bundle_messages", above=0, whole=True)
        check_number(self, "model_poll_secs")
        if self.max_bundle_delay_ms != -1:
            check_number(self, "max_bundle_delay_ms")
        if (self.input_format == "avro") != bool(self.avro_schema):
            raise UsageError("--avro_schema FILE goes with --input_format avro, and the other way round")

    def _check_ends(self) -> None:
        if bool(self.input_subscription) == bool(self.input_topic):
            raise UsageError("give --input_subscription or --input_topic, one of them")
        if not (self.output_topic or self.output_table or self.output):
            raise UsageError("predictions have no place to go: give --output_topic, --output_table or --output")
        if not (self.failures_topic or self.failures_table or self.failures):
            raise UsageError(
                "rows that fail have no place to go, and no row may be lost: give --failures_topic, --failures_table "
                "or --failures PATH"
            )
        if self.input_topic and self.input_topic in (self.output_topic, self.failures_topic):
            raise UsageError(f"--input_topic {self.input_topic} is written to as well: the job would feed itself")

    @property
    def bundle_delay_ms(self) -> float:
        """How long messages are gathered, decided."""
        if self.max_bundle_delay_ms >= 0:
            return self.max_bundle_delay_ms
        return 10_000.0 if self.output else 0.0


def _check_resource(name: str, value: str) -> None:
    kind = "subscriptions" if name.endswith("subscription") else "topics"
    if value and not re.fullmatch(_ID.format(kind=kind), value):
        raise UsageError(
            f"--{name} {value}: projects/PROJECT/{kind}/NAME is expected, the name of 3 or more letters, digits and "
            "-_.~+%, a letter first"
        )
