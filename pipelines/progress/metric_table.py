"""All metrics of /metrics, in one table: names by Prometheus' conventions, base units, `_total` for counters.

docs/operating.md and deploy/grafana.json are written from it, and tests hold them against it.
https://prometheus.io/docs/practices/naming/
"""

import dataclasses

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

# The states of a job, the best first; see pipelines.progress.state.
WORKING, DEGRADED, PAUSED, STUCK = "working", "degraded", "paused", "stuck"
STATES = (WORKING, DEGRADED, PAUSED, STUCK)


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric as it is scraped.

    Attributes:
      name: with its suffix: a histogram NAME has the samples NAME_bucket, NAME_sum and NAME_count.
      labels: besides a histogram's `le`.
      unit: of its values, as Prometheus names it; "": a plain number.
      beam: the metric of Beam's that carries the same on Dataflow and Flink, of namespace "sluice" and with "/LABEL"
        for each label; distributions are in milliseconds. "": there is none.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    beam: str = ""


METRICS = (
    # Rows and messages.
    Metric("sluice_rows_read_total", COUNTER, "Rows that were read and decoded", beam="rows_read"),
    Metric("sluice_read_bytes_total", COUNTER, "Bytes of the messages that were decoded", (), "bytes", "bytes_read"),
    Metric(
        "sluice_rows_predicted_total",
        COUNTER,
        "Rows with a prediction, by the version of the model; an empty version: the model has none",
        ("version",),
        beam="rows_predicted/version",
    ),
    Metric(
        "sluice_rows_failed_total",
        COUNTER,
        "Rows that became failures, by the stage (read, decode, bind, predict, encode, write) and type of the error",
        ("stage", "type"),
        beam="rows_failed/stage/type",
    ),
    Metric(
        "sluice_rows_finished_total",
        COUNTER,
        "Rows with an outcome: predicted, or failed; both are there from the start, so that a "
        "rate sees the first failures",
        ("outcome",),
    ),
    Metric("sluice_messages_pulled_total", COUNTER, "Messages that were pulled from the subscription"),
    Metric(
        "sluice_messages_acknowledged_total",
        COUNTER,
        "Messages that were acknowledged, each with its prediction or failure written",
    ),
    Metric("sluice_messages_returned_total", COUNTER, "Messages that were given back, and come again"),
    Metric("sluice_bundles_total", COUNTER, "Bundles of messages that were begun", beam="bundles"),
    # Where messages wait.
    Metric("sluice_messages_buffered", GAUGE, "Messages that were pulled and are not yet in work"),
    Metric("sluice_messages_in_work", GAUGE, "Messages in work: handed out and not yet acknowledged"),
    Metric(
        "sluice_oldest_unacknowledged_message_age_seconds",
        GAUGE,
        "Age, since its publishing, of the oldest message that the job holds; 0: it holds none",
        (),
        "seconds",
        "oldest_unacknowledged_msec",
    ),
    Metric(
        "sluice_message_latency_seconds",
        HISTOGRAM,
        "Time from the publishing of a message until its prediction or failure was written; exact to 2 percent",
        (),
        "seconds",
    ),
    # The model.
    Metric(
        "sluice_predict_latency_seconds",
        HISTOGRAM,
        "Time that a call of the model took, the attempt that was answered",
        (),
        "seconds",
        "predict_latency_msec",
    ),
    Metric(
        "sluice_queue_wait_seconds",
        HISTOGRAM,
        "Time that rows waited for their call of the model to begin",
        (),
        "seconds",
        "queue_msec",
    ),
    Metric("sluice_batch_size_rows", HISTOGRAM, "Rows of a call of the model", (), "rows", "batch_size"),
    Metric("sluice_calls_in_flight", GAUGE, "Calls of the model under way", beam="calls_in_flight"),
    Metric(
        "sluice_calls_in_flight_limit",
        GAUGE,
        "How many calls of the model may be under way now",
        beam="calls_in_flight_limit",
    ),
    Metric(
        "sluice_pending_bytes",
        GAUGE,
        "Bytes of the rows that wait for the model or are in a call",
        (),
        "bytes",
        "pending_bytes",
    ),
    Metric("sluice_rpc_retries_total", COUNTER, "Calls of the model that were repeated", beam="rpc_retries"),
    Metric(
        "sluice_throttled_seconds_total",
        COUNTER,
        "Whole seconds in which some call waited for a model that was away or overloaded",
        (),
        "seconds",
        "cumulativeThrottlingSeconds",
    ),
    Metric(
        "sluice_model_load_seconds",
        HISTOGRAM,
        "Time that loading a version of the model took",
        (),
        "seconds",
        "model_load_msec",
    ),
    Metric("sluice_model_swaps_total", COUNTER, "Switches to another version of the model", beam="model_swaps"),
    Metric(
        "sluice_model_versions_rejected_total",
        COUNTER,
        "Versions of the model that did not pass the checks, and were not taken",
        beam="model_versions_rejected",
    ),
    Metric(
        "sluice_model_info",
        GAUGE,
        "1 for the model that answers now: its URI and its version; an empty version: not known",
        ("model", "version"),
        beam="model_version",
    ),
    # Faults of the environment.
    Metric(
        "sluice_lease_extensions_failed_total",
        COUNTER,
        "Messages whose lease could not be extended at a try; the next try is 2 s later",
        beam="lease_extensions_failed",
    ),
    Metric(
        "sluice_acknowledgements_failed_total",
        COUNTER,
        "Messages that were done and could not be acknowledged: they come again",
        beam="acknowledgements_failed",
    ),
    Metric("sluice_restarts_total", COUNTER, "How often messages in work were given back and tried again"),
    Metric("sluice_segments_total", COUNTER, "Pipelines that have run, one after the other"),
    Metric("sluice_source_reachable", GAUGE, "1: the subscription is pulled and answers; 0: it does not"),
    Metric("sluice_draining", GAUGE, "1: the job ends, and finishes the messages in work"),
    # The job.
    Metric(
        "sluice_state",
        GAUGE,
        "1 for the state of the job, 0 for the others: working, degraded (most rows fail), paused (the environment "
        "is at fault), stuck (messages are there and nothing moves)",
        ("state",),
    ),
    Metric(
        "sluice_no_progress_seconds",
        GAUGE,
        "For how long messages have been here without one being acknowledged or a row getting its prediction; 0: no "
        "messages are here",
        (),
        "seconds",
    ),
    Metric("sluice_start_time_seconds", GAUGE, "When the job began to run, in seconds since the epoch", (), "seconds"),
    Metric(
        "sluice_build_info",
        GAUGE,
        "Always 1: the versions of Sluice, Apache Beam, TensorFlow and Python",
        ("version", "beam", "tensorflow", "python"),
    ),
)
# Besides these, /metrics has what prometheus_client tells of the process, of which the docs name the memory and the
# processor time: process_resident_memory_bytes, process_cpu_seconds_total, process_open_fds.
PROCESS_METRICS = (
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
)


def table() -> str:
    """Returns the metrics as a table in Markdown, for docs/operating.md."""
    lines = ["| metric | type | labels | Beam's name | what it tells |", "| --- | --- | --- | --- | --- |"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        beam = f"`{metric.beam}`" if metric.beam else ""
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {beam} | {metric.help} |")
    return "\n".join(lines)
