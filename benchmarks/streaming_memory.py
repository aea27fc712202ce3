"""The streaming graph without Pub/Sub: messages come from this process, encoded predictions are dropped.

Everything else is as in `sluice streaming`: bundles, leases, decoding, model, encoding, acknowledgement.
"""

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa

from benchmarks.streaming_runs import HEAD
from sluice.models.cache import ModelRecipe
from sluice.pipelines.commands.simulate_run import zoo_rows
from sluice.pipelines.dataflow.runner import beam_options, make_pipeline
from sluice.pipelines.options.streaming import StreamingOptions
from sluice.pipelines.plan.messages import MessagePlan
from sluice.pipelines.plan.streaming_job import plan_streaming
from sluice.transforms.core.failures import Failure
from sluice.transforms.encode.base import OutputSpec
from sluice.transforms.encode.rows import encode_rows
from sluice.transforms.predict.transform import Predict
from sluice.transforms.pubsub.decode_messages import DecodeMessages
from sluice.transforms.pubsub.fused import check_fused
from sluice.transforms.pubsub.message_attributes import messages_of
from sluice.transforms.pubsub.read import ReadMessages
from sluice.transforms.pubsub.read_local import close_source, open_source
from sluice.transforms.pubsub.source_parts import SourceOptions
from tests.support.pubsub.memory_subscription import MemorySubscription

_NAME = "projects/benchmark/subscriptions/memory"


class Encode(beam.DoFn):
    """Makes the messages that `WriteMessages` would publish, and drops them."""

    def __init__(self, spec: OutputSpec) -> None:
        self._spec = spec

    def process(self, batch: pa.RecordBatch) -> Iterator[None]:
        data, numbers, failures = encode_rows(batch, self._spec)
        messages, errors = messages_of(batch, data)
        if failures or errors or numbers is not None or len(messages.data) != batch.num_rows:
            raise RuntimeError(f"rows are no messages: {failures[:1]} {errors}")
        yield from ()


def refuse(failure: Failure) -> None:
    """Fails the benchmark.

    Raises:
      RuntimeError: always, because no row may fail.
    """
    raise RuntimeError(f"a row failed: {failure.error_message}")


def plan(model: str) -> tuple[ModelRecipe, MessagePlan]:
    """Returns the model and the stream of `sluice streaming --output_topic`, without looking up the topic."""
    options = StreamingOptions(
        input_subscription=_NAME, model=model, output="dropped.jsonl", failures="dropped", model_poll_secs=0.0
    )
    planned = plan_streaming(options, native=False)
    return planned.recipe, planned.messages


def measure(model: str, payloads: Sequence[bytes], repeats: int) -> dict[str, float]:
    """Scores `payloads` this many times in one job; returns messages per second and the process's CPU per message."""
    recipe, stream = plan(model)
    assert stream.files is not None
    total = repeats * len(payloads)
    subscription = MemorySubscription(_NAME)
    for _ in range(repeats):
        subscription.publish(payloads, {"id": "benchmark-0", "sent": "1700000000000000"})
    done: list[tuple[int, float, float]] = [(0, time.perf_counter(), time.process_time())]

    def note(messages: Sequence[Any]) -> None:
        done.append((done[-1][0] + len(messages), time.perf_counter(), time.process_time()))
        if done[-1][0] >= total:
            source.drain()

    source = open_source(subscription, SourceOptions(), note)
    try:
        pipeline: Any = make_pipeline(beam_options([]))
        decoded = pipeline | ReadMessages(False, _NAME) | DecodeMessages(stream.decode)
        scored = decoded.rows | Predict(recipe)
        scored.rows | beam.ParDo(Encode(stream.files))
        decoded.failures | "RefuseDecode" >> beam.Map(refuse)
        scored.failures | "RefusePredict" >> beam.Map(refuse)
        check_fused(pipeline)
        pipeline.run().wait_until_finish()
    finally:
        close_source(source)
    if done[-1][0] != total:
        raise RuntimeError(f"{done[-1][0]} of {total} messages were acknowledged")
    first = next(each for each in done if each[0] >= HEAD * total)
    if first == done[-1]:
        raise RuntimeError(f"{total} messages are too few to be timed")
    count, wall, cpu = (last - begin for last, begin in zip(done[-1], first, strict=True))
    return {"messages_s": count / wall, "cpu_us": 1e6 * cpu / count}


def medians(model: str, rows: int, repeats: int, runs: int) -> dict[str, float]:
    """Returns the medians of this many jobs' figures, after a first job that loads the model and does not count."""
    payloads = list(itertools.islice(itertools.chain.from_iterable(zoo_rows("criteo")), rows))
    measure(model, payloads, 1)
    found = [measure(model, payloads, repeats) for _ in range(runs)]
    return {name: statistics.median(each[name] for each in found) for name in found[0]}
