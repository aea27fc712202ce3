"""The options of a streaming job."""

import dataclasses
import ipaddress
import re

from sluice.models.errors import UsageError
from sluice.pipelines.options.device import DeviceFlags
from sluice.pipelines.options.flags import check_number, flag
from sluice.pipelines.options.job import JobFlags
from sluice.pipelines.options.schema import AUTO
from sluice.pipelines.options.table import STORAGE_WRITE_API, STREAMING_INSERTS, TableFlags

MESSAGE_FORMATS = ("json", "example", "avro", "raw")

# https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names
_ID = r"projects/[^/]+/{kind}/[A-Za-z][A-Za-z0-9\-_.~+%]{{2,254}}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamingEnds(DeviceFlags, TableFlags):
    """Where a streaming job reads and writes. A class of its own, so that --help shows these flags before JobFlags."""

    input_subscription: str = flag(
        "Subscription to read: projects/P/subscriptions/S", "", group="Input", metavar="SUBSCRIPTION"
    )
    input_topic: str = flag(
        "Topic to read: projects/P/topics/T. The job creates a subscription and removes it at its end; it misses "
        "messages that are published while it does not run",
        "",
        group="Input",
        metavar="TOPIC",
    )
    input_format: str = flag(
        "Content of messages: a JSON object, a serialized tf.Example, an Avro record, or (raw) the value of the "
        "model's only column, a string",
        "json",
        choices=MESSAGE_FORMATS,
        group="Input",
    )
    input_schema: str = flag(
        "JSON file in BigQuery's schema form with the types of columns; needed to carry columns that the model does "
        "not read into a table, or into files other than JSON Lines",
        "",
        group="Input",
        metavar="FILE",
    )
    avro_schema: str = flag("Avro: file with the schema that messages were written with", "", group="Input",
        metavar="FILE",
    )  # fmt: skip
    output_topic: str = flag("Topic for predictions, as JSON: projects/P/topics/T", "", group="Output", metavar="TOPIC")
    write_method: str = flag(
        "How to write --output_table. storage_write_api: as Arrow, for about a tenth of the processor time; a message "
        "that is delivered again makes a second row. streaming_inserts: as JSON, each row with its message's id, so "
        "that BigQuery drops most repeated rows within a minute or so",
        STORAGE_WRITE_API,
        choices=(STORAGE_WRITE_API, STREAMING_INSERTS),
        group="Output",
    )
    output: str = flag(
        "Files for predictions: out/pred.jsonl becomes out/pred-TIME-ID.jsonl, a new file per bundle, or on Dataflow "
        "per interval; local or gs://; the ending sets the format",
        "",
        group="Output",
        metavar="PATH",
    )
    failures_topic: str = flag("Topic for failed rows, as JSON", "", group="Failures", metavar="TOPIC")
    failures: str = flag(
        "Files for failed rows, as JSON Lines: out/failed becomes out/failed-TIME-ID.jsonl", "", group="Failures",
        metavar="PATH",
    )  # fmt: skip
    file_interval_secs: float = flag(
        "On Dataflow: rows gather for so long, in the job's state, before they become a file of --output or --failures"
        "; 0: each bundle makes a file",
        60.0,
        float,
        group="Run",
        metavar="S",
    )
    max_bundle_messages: int = flag(
        "Locally and on Flink: write at most so many messages together", 4000, int, group="Run", metavar="N"
    )
    max_bundle_delay_ms: float = flag(
        "Locally and on Flink: how long to gather messages before scoring them; -1: 0, or 10,000 with --output, where "
        "each bundle makes a file",
        -1.0,
        float,
        group="Run",
        metavar="MS",
    )
    max_restarts: int = flag(
        "Locally: how often in a row to retry messages after an error that no row caused; then the job ends with exit "
        "code 1",
        10,
        int,
        group="Run",
        metavar="N",
    )
    readers: int = flag(
        "On Flink: how many readers take messages of the subscription at a time; sets --parallelism to as many, unless "
        "it is given",
        1,
        int,
        group="Run",
        metavar="N",
    )
    health_port: int = flag(
        "Locally: answer /healthz, /readyz, /metrics (for Prometheus) and /figures on this port; 0: no port", 0, int,
        group="Run", metavar="PORT",
    )  # fmt: skip
    health_address: str = flag(
        "Locally: address of --health_port, without credentials; 0.0.0.0: all of the machine, as probes of Kubernetes "
        "need",
        "127.0.0.1",
        group="Run",
        metavar="ADDRESS",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamingOptions(JobFlags, StreamingEnds):
    """Options of `sluice streaming`. Checks itself: an invalid value raises UsageError."""

    timestamp_attribute: str = flag(
        "Attribute with a message's event time, in milliseconds since the epoch or RFC 3339; default: its publish time",
        "",
        group="Input",
        metavar="NAME",
    )
    id_label: str = flag(
        "On Dataflow: attribute that identifies a message; Dataflow drops repeated ones", "", group="Input",
        metavar="NAME",
    )  # fmt: skip
    max_delivery_attempts: int = flag(
        "Treat messages that were delivered more often as failures, without reading them: they may have killed "
        "workers. 0: one less than the subscription's dead-letter policy allows, if it has one",
        0,
        int,
        group="Input",
        metavar="N",
    )
    model_poll_secs: float = flag(
        "How often to look for a newer version of a SavedModel under its base path, and switch to it; 0: keep the "
        "version found at launch",
        30.0,
        float,
        group="Model",
        metavar="S",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_ends()
        self.check_tables()
        if self.write_method != STORAGE_WRITE_API and not self.output_table:
            raise UsageError("--write_method applies to --output_table, which is not given")
        for name in ("input_subscription", "input_topic", "output_topic", "failures_topic"):
            _check_resource(name, getattr(self, name))
        for name in ("max_restarts", "max_delivery_attempts"):
            check_number(self, name, whole=True)
        check_number(self, "health_port", most=65_535, whole=True)
        _check_address(self.health_address)
        check_number(self, "max_bundle_messages", above=0, whole=True)
        check_number(self, "readers", above=0, whole=True)
        check_number(self, "model_poll_secs")
        check_number(self, "file_interval_secs")
        self.check_read_paths()
        if self.max_bundle_delay_ms != -1:
            check_number(self, "max_bundle_delay_ms")
        if self.input_schema == AUTO:
            raise UsageError(
                f"--input_schema {AUTO}: messages cannot be looked at before the job; save some in a file, and let "
                "`sluice schema` make a schema of it"
            )
        if (self.input_format == "avro") != bool(self.avro_schema):
            raise UsageError("--avro_schema FILE and --input_format avro go together; give both or neither")

    def _check_ends(self) -> None:
        if bool(self.input_subscription) == bool(self.input_topic):
            raise UsageError("give either --input_subscription or --input_topic")
        if not (self.output_topic or self.output_table or self.output):
            raise UsageError("predictions need a sink: give --output_topic, --output_table or --output")
        if not (self.failures_topic or self.failures_table or self.failures):
            raise UsageError(
                "rows that fail need a sink, so that none is lost: give --failures_topic, --failures_table or "
                "--failures PATH"
            )
        if self.input_topic and self.input_topic in (self.output_topic, self.failures_topic):
            raise UsageError(
                f"--input_topic {self.input_topic} is an output too, so the job would feed itself; give another topic"
            )

    @property
    def bundle_delay_ms(self) -> float:
        """How long messages are gathered, with the default worked out."""
        if self.max_bundle_delay_ms >= 0:
            return self.max_bundle_delay_ms
        return 10_000.0 if self.output else 0.0


def _check_address(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError as error:
        raise UsageError(
            f"--health_address {text}: expected an IP address of this machine, such as 127.0.0.1, or 0.0.0.0 for all"
        ) from error


def _check_resource(name: str, value: str) -> None:
    kind = "subscriptions" if name.endswith("subscription") else "topics"
    if value and not re.fullmatch(_ID.format(kind=kind), value):
        raise UsageError(
            f"--{name} {value}: expected projects/PROJECT/{kind}/NAME, where NAME has at least 3 letters, digits and "
            "-_.~+%, and starts with a letter"
        )
