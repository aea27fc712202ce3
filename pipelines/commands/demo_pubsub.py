"""The emulated Pub/Sub of `sluice demo-streaming`: its topics and subscriptions, and the rows that go through them."""

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator

from sluice.pipelines.commands.demo import MODEL
from sluice.pipelines.commands.job_process import JobProcess
from sluice.pipelines.commands.pubsub_emulator import running_emulator
from sluice.pipelines.commands.simulate_run import Simulation, zoo_rows
from sluice.pipelines.options.stream_tools import SimulateOptions
from sluice.transforms.pubsub.clients import EMULATOR_VARIABLE, subscriber
from sluice.transforms.pubsub.publish import Publisher
from sluice.transforms.pubsub.publish_sender import PublishOptions
from sluice.transforms.pubsub.resources import create_topic

_PROJECT = "projects/sluice-demo"
INPUT_TOPIC, OUTPUT_TOPIC, FAILURES_TOPIC = (f"{_PROJECT}/topics/{name}" for name in ("input", "predictions", "failed"))
INPUT, OUTPUT = f"{_PROJECT}/subscriptions/input", f"{_PROJECT}/subscriptions/predictions"

# The flags of a job that reads and writes these.
END_FLAGS = (
    f"--input_subscription={INPUT}",
    f"--output_topic={OUTPUT_TOPIC}",
    f"--failures_topic={FAILURES_TOPIC}",
)

_CALL_SECS = 20.0
# The start of a job imports TensorFlow and loads the model.
_START_SECS = 120.0


@contextlib.contextmanager
def emulator() -> Iterator[str]:
    """Runs an emulator while the block runs; yields HOST:PORT. Clients of this process and its children use it.

    Raises:
      RuntimeError: see pipelines.commands.pubsub_emulator.
    """
    before = os.environ.get(EMULATOR_VARIABLE)
    with running_emulator() as host:
        os.environ[EMULATOR_VARIABLE] = host
        try:
            yield host
        finally:
            del os.environ[EMULATOR_VARIABLE]
            if before is not None:
                os.environ[EMULATOR_VARIABLE] = before


def make_ends() -> None:
    """Creates the topics, the subscription that the job reads, and the one that receives its predictions."""
    for topic in (INPUT_TOPIC, OUTPUT_TOPIC, FAILURES_TOPIC):
        create_topic(topic)
    with contextlib.closing(subscriber()) as client:
        for name, topic in ((INPUT, INPUT_TOPIC), (OUTPUT, OUTPUT_TOPIC)):
            client.create_subscription(name=name, topic=topic, timeout=_CALL_SECS)


def warm_up(job: JobProcess) -> None:
    """Waits until the job has scored a message, so that its start is not measured. Removes the prediction."""
    job.wait_until(lambda figures: figures["ready"], "the job reads messages", _START_SECS)
    simulate(SimulateOptions(topic=INPUT_TOPIC, rows=1, rate=0.0))
    job.wait_for(1, _START_SECS)
    with contextlib.closing(subscriber()) as client:
        pulled = client.pull(subscription=OUTPUT, max_messages=1, timeout=_CALL_SECS).received_messages
        client.acknowledge(subscription=OUTPUT, ack_ids=[each.ack_id for each in pulled], timeout=_CALL_SECS)


def simulate(options: SimulateOptions, pause: Callable[[float], None] = time.sleep) -> Simulation:
    """Publishes the same rows repeatedly; returns the simulation when all are published.

    Args:
      pause: waits for so many seconds; called between rows.

    Raises:
      SluiceError: rows could not be published.
    """
    rows = next(zoo_rows(MODEL))  # no more: making rows would take time from the job
    publisher: Publisher[int] = Publisher(options.topic, PublishOptions())
    with contextlib.closing(publisher):
        simulation = Simulation(options, publisher, itertools.repeat(rows), pause=pause)
        simulation.run()
        simulation.finish()
    return simulation
