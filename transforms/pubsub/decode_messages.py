"""Decodes the payloads of messages into columns, a micro-batch at a time; each message stays beside its row."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sluice.models.cache import ModelRecipe, OpenedScheduler
from sluice.models.reserved import DELIVERY_ATTEMPT, PAYLOAD, POSITION
from sluice.models.wording import message, text_of
from sluice.transforms.core.batches import failure_of
from sluice.transforms.core.composite import Composite
from sluice.transforms.core.failures import DECODE, READ, TOO_MANY_DELIVERIES, Failure, Result, named
from sluice.transforms.core.messages import with_envelope
from sluice.transforms.decode.avro import avro_columns
from sluice.transforms.decode.convert import convert_or_mark
from sluice.transforms.decode.datum import read_datum
from sluice.transforms.decode.examples import decode_examples
from sluice.transforms.decode.json import decode_json
from sluice.transforms.decode.lines import BOM, LineBlock
from sluice.transforms.decode.spec import INVALID_ROW, Decoded, InputSpec, count_decoded, finish, row_failure

JSON, EXAMPLE, AVRO, RAW = "json", "example", "avro", "raw"
FORMATS = (JSON, EXAMPLE, AVRO, RAW)

FAILURES = "failures"

_Output: TypeAlias = pa.RecordBatch | beam.pvalue.TaggedOutput[Literal["failures"], Failure]


@dataclasses.dataclass(frozen=True)
class MessageSpec:
    """What the payloads of a job's messages hold, decided once at launch. Picklable.

    Attributes:
      format: "json", "example" (a serialized tf.Example), "avro" (one datum, without a container) or "raw" (the
        payload is the value).
      spec: the columns that are read; a single one for raw. A message's payload stays beside its row in any case.
      avro_schema: JSON text of the schema that the data were written with.
    """

    format: str
    spec: InputSpec
    avro_schema: str = ""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format '{self.format}' is not one of {', '.join(FORMATS)}")


def decode_messages(messages: pa.RecordBatch, spec: MessageSpec) -> Decoded:
    """Returns the rows that messages hold, each followed by all columns of its message.

    Every message becomes one row or one failure, independently of the messages beside it.

    Args:
      messages: of transforms.core.messages.MESSAGE_SCHEMA.
    """
    if not messages.num_rows:
        return Decoded()
    decoded = _DECODERS[spec.format](_payloads(messages), spec)
    failures = [_failure(messages, int(failure.origin), failure.error_message) for failure in decoded.failures]
    batches = [_with_envelope(batch, messages, spec) for batch in decoded.joined().batches]
    if decoded.rows < messages.num_rows:
        failures += [
            _failure(messages, row, message("the message is empty")) for row in _left_out(decoded, messages.num_rows)
        ]
    return Decoded([batch for batch in batches if batch.num_rows], failures)


def _failure(messages: pa.RecordBatch, row: int, message: str) -> Failure:
    return failure_of(messages, row, DECODE, INVALID_ROW, message)


def _with_envelope(batch: pa.RecordBatch, messages: pa.RecordBatch, spec: MessageSpec) -> pa.RecordBatch:
    whole = batch.num_rows == messages.num_rows
    numbers = None if whole else np.asarray(batch.column(POSITION))
    return with_envelope(batch.select(range(len(spec.spec.schema))), messages, numbers)


def _left_out(decoded: Decoded, count: int) -> list[int]:
    """Returns the numbers of the messages, of `count`, that a decoder took for nothing."""
    left = np.ones(count, bool)
    for batch in decoded.batches:
        left[np.asarray(batch.column(POSITION))] = False
    left[[int(failure.origin) for failure in decoded.failures]] = False
    return np.flatnonzero(left).tolist()


def _payloads(messages: pa.RecordBatch) -> list[bytes]:
    payloads = messages.column(PAYLOAD)
    return (payloads.fill_null(b"") if payloads.null_count else payloads).to_pylist()


# Each of these decodes the payloads of some messages. The positions and origins that it returns are message numbers.


def _decode_json(payloads: list[bytes], spec: MessageSpec) -> Decoded:
    ends = np.cumsum(np.fromiter(map(len, payloads), np.int64, len(payloads)) + 1)
    numbers = np.arange(len(payloads))
    # The gaps turn what would be offsets into message numbers.
    block = LineBlock(b"\n".join([*payloads, b""]), 0, ends, numbers - np.append(0, ends[:-1]))
    decoded = decode_json(block, spec.spec, "")
    for place, failure in enumerate(decoded.failures):
        if failure.payload.startswith(BOM):
            text = "{}; it begins with a byte order mark, which RFC 8259 keeps out of messages"
            text = message(text, failure.error_message)
            decoded.failures[place] = dataclasses.replace(failure, error_message=text)
    return decoded


def _decode_examples(payloads: list[bytes], spec: MessageSpec) -> Decoded:
    """Leaves out empty messages, which would be tf.Examples without features."""
    numbers = np.flatnonzero(np.fromiter(map(len, payloads), np.int64, len(payloads)))
    return decode_examples([payloads[number] for number in numbers.tolist()], numbers, spec.spec, "")


def _decode_avro(payloads: list[bytes], spec: MessageSpec) -> Decoded:
    rows, numbers, failures = [], [], []
    for number, payload in enumerate(payloads):
        try:
            rows.append(read_datum(payload, spec.avro_schema))
            numbers.append(number)
        except ValueError as error:
            failures.append(row_failure(text_of(error), str(number), payload))
    decoded = avro_columns(rows, np.array(numbers, np.int64), spec.spec, "") if rows else Decoded()
    return Decoded(decoded.batches, decoded.failures + failures)


def _decode_raw(payloads: list[bytes], spec: MessageSpec) -> Decoded:
    ((name, kind),) = spec.spec.columns
    values, misfits = convert_or_mark(pa.array(payloads, pa.binary()), lambda part: part.cast(kind), kind)
    batch = finish([values], spec.spec, "", np.arange(len(payloads)), None)
    if misfits is None:
        return Decoded([batch])
    template = "the message is not valid UTF-8; if '{name}' takes bytes, declare it BYTES in --input_schema"
    text = message(template, name=name)
    failures = [row_failure(text, str(number), b"") for number in np.flatnonzero(misfits).tolist()]
    return Decoded([batch.filter(pa.array(~misfits))], failures)


_DECODERS: dict[str, Callable[[list[bytes], MessageSpec], Decoded]] = {
    JSON: _decode_json,
    EXAMPLE: _decode_examples,
    AVRO: _decode_avro,
    RAW: _decode_raw,
}


def refuse_redelivered(messages: pa.RecordBatch, max_delivery_attempts: int) -> tuple[pa.RecordBatch, list[Failure]]:
    """Returns the messages within the limit of deliveries, and failures of the others.

    Args:
      max_delivery_attempts: 0: no limit.
    """
    attempts = messages.column(DELIVERY_ATTEMPT).fill_null(0).to_numpy()
    over = attempts > max_delivery_attempts
    if not max_delivery_attempts or not over.any():
        return messages, []
    failures = [
        failure_of(
            messages,
            row,
            READ,
            TOO_MANY_DELIVERIES,
            message(
                "delivered {times} times, more than --max_delivery_attempts {limit}, and never acknowledged: it may "
                "have killed the workers that had it, or they could not write its prediction",
                times=attempts[row],
                limit=max_delivery_attempts,
            ),
        )
        for row in np.flatnonzero(over).tolist()
    ]
    return messages.filter(pa.array(~over)), failures


class DecodeMessages(Composite):
    """Decodes micro-batches of messages into RecordBatches of the job's columns, followed by those of MESSAGE_SCHEMA.

    Every message comes out once: as a row, or as a `Failure`. Rows and failures keep the window and the timestamp of
    the micro-batch.

    Args:
      max_delivery_attempts: a message that was delivered more often fails without being decoded; 0: no limit.
      model: the recipe of the model that the rows are for, which failures name; None: they name none.
      version: of the model, as found at launch; failures name it until a version is in use in their process.
    """

    def __init__(
        self,
        spec: MessageSpec,
        max_delivery_attempts: int = 0,
        model: ModelRecipe | None = None,
        version: int | None = None,
    ) -> None:
        super().__init__()
        self._fn = _DecodeMessages(spec, max_delivery_attempts, model, version)

    def expand(self, messages: beam.PCollection[pa.RecordBatch]) -> Result:
        outputs = messages | "Parse" >> beam.ParDo(self._fn).with_outputs(FAILURES, main="rows")
        return Result(outputs.rows, outputs[FAILURES])


class _DecodeMessages(beam.DoFn):
    """Counts: rows_read, bytes_read, rows_failed."""

    def __init__(
        self, spec: MessageSpec, max_delivery_attempts: int, model: ModelRecipe | None, version: int | None
    ) -> None:
        self._spec = spec
        self._max_delivery_attempts = max_delivery_attempts
        self._opened = OpenedScheduler(model) if model else None
        self._version = version

    def process(self, messages: pa.RecordBatch) -> Iterator[_Output]:
        kept, refused = refuse_redelivered(messages, self._max_delivery_attempts)
        decoded = decode_messages(kept, self._spec)
        decoded.failures += refused
        count_decoded(decoded, pc.sum(pc.binary_length(messages.column(PAYLOAD)), min_count=0).as_py())
        yield from decoded.batches
        yield from (beam.pvalue.TaggedOutput(FAILURES, failure) for failure in self._named(decoded.failures))

    def _named(self, failures: list[Failure]) -> list[Failure]:
        if self._opened is None or not failures:
            return failures
        scheduler = self._opened()
        version = self._version if scheduler is None else scheduler.version
        return [named(failure, self._opened.recipe.spec.uri, version) for failure in failures]
