"""Readers and writers of a stream: `DecodeMessages`, `WriteMessages`, `WriteStreamFiles`."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import pyarrow as pa

from sluice.models.cache import ModelLike
from sluice.models.errors import UsageError
from sluice.models.signature import Signature
from sluice.pipelines.library.parts import types_of
from sluice.pipelines.library.signature import default_columns, signature_of
from sluice.pipelines.plan.messages import MessageWanted, plan_columns
from sluice.pipelines.plan.model import launch_errors
from sluice.pipelines.plan.output_paths import parse_output
from sluice.transforms.files import write_stream
from sluice.transforms.files.open_file import FirstBatchFormat
from sluice.transforms.pubsub import decode_messages, write
from sluice.transforms.pubsub.decode_messages import AVRO, FORMATS, JSON, RAW, MessageSpec
from sluice.transforms.pubsub.publish_sender import PublishOptions
from sluice.transforms.pubsub.resources import check_topic


class DecodeMessages(decode_messages.DecodeMessages):
    """Decodes RecordBatches of messages, which `ReadMessages` returns, into columns, followed by the messages' own.

    Returns `Result(rows, failures)`: every message is one row or one `Failure`, in the window and at the time of its
    batch. A column has one type: of the columns that the model takes the one that it needs, of others that of `schema`.

    Args:
      model: as for `Predict`; None: no column has the type that a model needs.
      format: of a message: "json", "example" (a serialized tf.Example), "avro" (one datum, without a container) or
        "raw" (it is the value of the model's one column).
      schema: types of columns by name. Avro has types.
      columns: the columns to keep besides those of the model; None: all whose types are known.
      avro_schema: JSON text of the schema that the data of "avro" were written with.
      max_delivery_attempts: a message that was delivered more often fails without being decoded; 0: no limit.

    Raises:
      UsageError: messages and model do not fit, or the type of a column is not known.
    """

    def __init__(
        self,
        model: ModelLike | None = None,
        *,
        format: str = JSON,
        schema: Mapping[str, pa.DataType] | pa.Schema | None = None,
        columns: Sequence[str] | None = None,
        avro_schema: str = "",
        max_delivery_attempts: int = 0,
    ) -> None:
        if format not in FORMATS:
            raise UsageError(f"format is {format!r}; give one of {', '.join(FORMATS)}")
        wanted = MessageWanted(
            format,
            avro_schema=avro_schema,
            schema=types_of(schema),
            columns=None if columns is None else tuple(columns),
            defaults=default_columns(model),
        )
        with launch_errors():
            signature = signature_of(model)
            _check(signature, wanted)
            spec = dataclasses.replace(plan_columns(signature, wanted, raw=False).spec, payload=False)
        super().__init__(MessageSpec(format, spec, avro_schema), max_delivery_attempts)


def _check(signature: Signature, wanted: MessageWanted) -> None:
    if wanted.format == AVRO and not wanted.avro_schema:
        raise UsageError("Avro messages do not contain their schema; give it as JSON text, as avro_schema=...")
    if wanted.format == RAW and not signature.columns:
        raise UsageError("format 'raw': a message is the value of the model's one column; give the model")
    typed = {*wanted.schema, *(spec.name for spec in signature.columns)}
    untyped = [name for name in wanted.columns or () if name not in typed]
    if untyped and wanted.format not in (AVRO, RAW):
        name = untyped[0]
        raise UsageError(f"the type of column '{name}' is not known; give it, as schema={{'{name}': pyarrow.string()}}")
    if not typed and wanted.format != AVRO and not signature.takes_examples:
        raise UsageError("no column is known; give the model, or types of columns, as schema={'x': pyarrow.int64()}")


class WriteMessages(write.WriteMessages):
    """Publishes each row of RecordBatches as a JSON object; returns the `Failure`s of rows that cannot be published.

    The object has all columns but `_model`, `_version` and those whose names begin with `_sluice_`. The message has the
    attributes and the ordering key of the one that its row came from, and `sluice_model`, `sluice_version`,
    `sluice_message_id` and `sluice_publish_time`. Every row is published, or returned as a failure, before its bundle
    is finished; at least once.

    Args:
      topic: projects/P/topics/T. It is looked up when this is made.
      retry_secs: how long the service may be away before the bundle fails.

    Raises:
      UsageError: there is no such topic, or it may not be published to.
    """

    def __init__(self, topic: str, *, retry_secs: float = PublishOptions.retry_secs) -> None:
        with launch_errors():
            check_topic(topic)
        super().__init__(topic, None, retry_secs)


class WriteStreamFiles(write_stream.WriteStreamFiles):
    """Writes RecordBatches of a stream to files PREFIX-TIME-ID.csv and so on; returns the `Failure`s of rows.

    Each bundle makes at least one file, which appears when the bundle is finished; at least once. All batches of a file
    must have the same columns; those whose names begin with `_sluice_` are left out.

    Args:
      path: the name of the files, whose ending is their format; or a directory, with a slash at its end.
      format: "csv", "jsonl", "parquet", "avro" or "tfrecord"; "": by the ending.
      flatten: of CSV: write a list as JSON text in one field.
      interval_secs: rows gather for so long before they become a file, on a runner that keeps state safe, as Dataflow
        does; 0: each bundle makes a file.

    Raises:
      UsageError: no file can be written under this name.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        format: str = "",
        flatten: bool = False,
        interval_secs: float = 0.0,
    ) -> None:
        with launch_errors():
            to = parse_output(os.fspath(path), format)
            write_stream.check_stream_target(to.prefix, to.suffix)
        super().__init__(to.prefix, to.suffix, FirstBatchFormat(to.format, flatten), interval_secs=interval_secs)
