"""Real servers on loopback, started for the tests that need them and stopped by process id.

Each has a context manager here and a fixture in tests/support/fixtures.py.
"""

import contextlib
import functools
import importlib.util
import itertools
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar

import grpc
import pytest
from google.api_core.exceptions import Cancelled, DeadlineExceeded
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.pubsub_v1 import PublisherClient, ReceivedMessage, SubscriberClient

from sluice.pipelines.commands import pubsub_emulator as emulator
from tests.support.fakes import PATIENCE_SECS
from tests.support.paths import ROOT
from tests.support.shared import WORKER

Found = TypeVar("Found")

_POLL_SECS = 0.05
_STOP_SECS = 10.0
_ENDING_WITH_US = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []


def require(server: Found | None, reason: str) -> Found:
    """Returns `server`; if it was not found, skips the test, or fails it where REQUIRE_SERVERS=1.

    Args:
      server: what names it (a path, a command); None or empty if it is not installed.
      reason: which server is missing and what to install.
    """
    if server:
        return server
    if os.environ.get("REQUIRE_SERVERS") == "1":
        pytest.fail(f"REQUIRE_SERVERS=1: {reason}", pytrace=False)
    pytest.skip(reason)


# Below those that the kernel hands out, which a client's connection may take before the server does; every worker of
# pytest-xdist has its own, and begins at random, because another run may be under way.
_WORKERS = 16
_PORTS = itertools.cycle(range(15_000 + int(WORKER.strip("gw") or 0) % _WORKERS, 32_000, _WORKERS))
for _ in range(random.randrange(1000)):
    next(_PORTS)


def free_port() -> int:
    """Returns a port of 127.0.0.1 that nothing listens on, and another one at every call."""
    for port in _PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("unreachable")


def answers(url: str) -> bool:
    """Whether a GET of the URL succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(200 <= response.status < 300)
    except OSError:
        return False


@contextlib.contextmanager
def running(command: Sequence[str], is_up: Callable[[], bool], start_secs: float = PATIENCE_SECS) -> Iterator[int]:
    """Runs a server while the block runs; yields its process id. It ends with this process, even a killed one.

    Args:
      is_up: whether it answers; called until it does.

    Raises:
      RuntimeError: it ended, or does not answer in time; the text includes what it printed.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*_ENDING_WITH_US, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _wait_until_up(process, is_up, start_secs, log)
            yield process.pid
        finally:
            _stop(process)


def _wait_until_up(process: "subprocess.Popen[bytes]", is_up: Callable[[], bool], secs: float, log: IO[bytes]) -> None:
    for _ in range(int(secs / _POLL_SECS)):
        if is_up():
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(_POLL_SECS)
            raise RuntimeError(f"{process.args!r} ended with code {code}: {_printed(log)}")
    raise RuntimeError(f"{process.args!r} does not answer after {secs:g} s: {_printed(log)}")


def _printed(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")[-2000:]


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Gcs:
    """An emulator of Google Cloud Storage with one bucket.

    Attributes:
      url: http://127.0.0.1:PORT, the value of STORAGE_EMULATOR_HOST.
    """

    url: str
    bucket: str

    def path(self, name: str) -> str:
        """Returns the gs:// path of an object, or of a directory, in the bucket."""
        return f"gs://{self.bucket}/{name}"


@contextlib.contextmanager
def gcs_emulator(bucket: str = "bkt") -> Iterator[Gcs]:
    """Runs gcp-storage-emulator, in memory, with an empty bucket."""
    require(
        importlib.util.find_spec("gcp_storage_emulator"),
        "the GCS emulator is not installed: pip install gcp-storage-emulator",
    )
    port = free_port()
    gcs = Gcs(f"http://127.0.0.1:{port}", bucket)
    arguments = ["start", "--host=127.0.0.1", f"--port={port}", "--in-memory", f"--default-bucket={bucket}", "--quiet"]
    with running(
        [sys.executable, "-m", "gcp_storage_emulator", *arguments],
        lambda: answers(f"{gcs.url}/storage/v1/b/{bucket}"),
    ):
        yield gcs


@contextlib.contextmanager
def beam_uses(gcs: Gcs) -> Iterator[None]:
    """Sends gs:// of this process, and of its child processes, to the emulator while the block runs.

    On a machine without credentials Beam looks for them for some 20 s, once per process. Here Beam is told that it has
    found none, which makes its client anonymous; a child process does look.
    """
    from apache_beam.internal.gcp.auth import _Credentials

    patch = pytest.MonkeyPatch()
    patch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    patch.setattr(_Credentials, "_credentials_init", True)
    patch.setattr(_Credentials, "_credentials", None)
    try:
        yield
    finally:
        patch.undo()


# The most messages that one request to Pub/Sub may publish or pull.
_MAX_MESSAGES = 1000


@dataclass(frozen=True)
class Pubsub:
    """An emulator of Google Cloud Pub/Sub, with what tests do to it.

    Every topic and subscription made here has a unique name, so that tests do not disturb each other.

    Attributes:
      host: 127.0.0.1:PORT, the value of PUBSUB_EMULATOR_HOST.
    """

    host: str
    project: str = "sluice-test"

    def topic(self, name: str) -> str:
        """Returns the path of a topic."""
        return f"projects/{self.project}/topics/{name}"

    def subscription(self, name: str) -> str:
        """Returns the path of a subscription."""
        return f"projects/{self.project}/subscriptions/{name}"

    @functools.cached_property
    def publisher(self) -> PublisherClient:
        """Google's generated client: one unary request per call."""
        return PublisherClient(transport=_transport(PublisherClient, self.host))

    @functools.cached_property
    def subscriber(self) -> SubscriberClient:
        """Google's generated client: one unary request per call."""
        return SubscriberClient(transport=_transport(SubscriberClient, self.host))

    def make_topic(self) -> str:
        """Makes a topic; returns its path."""
        path = self.topic(f"topic-{uuid.uuid4().hex}")
        self.publisher.create_topic(name=path)
        return path

    def make_subscription(self, topic: str, **options: Any) -> str:
        """Makes a subscription to a topic; returns its path.

        Args:
          topic: its path.
          options: fields of Pub/Sub's Subscription, e.g. ack_deadline_seconds=10, enable_message_ordering=True.
        """
        path = self.subscription(f"subscription-{uuid.uuid4().hex}")
        self.subscriber.create_subscription(request={"name": path, "topic": topic, **options})
        return path

    def publish(
        self,
        topic: str,
        payloads: Sequence[bytes],
        attributes: Mapping[str, str] | Sequence[Mapping[str, str]] = (),
        ordering_key: str = "",
    ) -> list[str]:
        """Publishes messages, in requests of up to 1000; returns their ids, in order.

        Args:
          attributes: one mapping for all messages, or one mapping each.
        """
        each = itertools.repeat(attributes) if isinstance(attributes, Mapping) else attributes or itertools.repeat({})
        messages = [
            {"data": payload, "attributes": of_message, "ordering_key": ordering_key}
            for payload, of_message in zip(payloads, each, strict=False)
        ]
        ids: list[str] = []
        for start in range(0, len(messages), _MAX_MESSAGES):
            request = {"topic": topic, "messages": messages[start : start + _MAX_MESSAGES]}
            ids += self.publisher.publish(request=request, timeout=PATIENCE_SECS).message_ids
        return ids

    def pull_all(
        self, subscription: str, count: int, secs: float = PATIENCE_SECS, ack: bool = True
    ) -> list[ReceivedMessage]:
        """Pulls until `count` messages have come, or the time is over; returns them in their order.

        Args:
          secs: cuts off an empty pull, which the emulator would let wait for some 29 s.
          ack: whether messages are acknowledged; otherwise they come again after the acknowledgement deadline.
        """
        received: list[ReceivedMessage] = []
        end = time.monotonic() + secs
        while len(received) < count and (left := end - time.monotonic()) > 0:
            request = {"subscription": subscription, "max_messages": min(count - len(received), _MAX_MESSAGES)}
            try:
                pulled = self.subscriber.pull(request=request, timeout=left, retry=None).received_messages
            except (DeadlineExceeded, Cancelled):  # the emulator's answer to a call that is cut off can be a reset
                break
            if pulled and ack:
                self.subscriber.acknowledge(subscription=subscription, ack_ids=[each.ack_id for each in pulled])
            received += pulled
        return received


def _transport(client: Any, host: str) -> Any:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]  # not gRPC's 4 MB
    return client.get_transport_class("grpc")(channel=grpc.insecure_channel(host, options=options))


@contextlib.contextmanager
def pubsub_emulator() -> Iterator[Pubsub]:
    """Runs Google's Pub/Sub emulator, empty."""
    command = require(emulator.find_emulator(), emulator.MISSING)
    port = free_port()
    pubsub = Pubsub(f"127.0.0.1:{port}")
    with running(
        [*command, "--host=127.0.0.1", f"--port={port}"],
        lambda: answers(f"http://{pubsub.host}/"),
    ):
        yield pubsub


@contextlib.contextmanager
def pubsub_clients_use(pubsub: Pubsub) -> Iterator[None]:
    """Sends the Pub/Sub clients of this process and its children to the emulator while the block runs."""
    with _variable("PUBSUB_EMULATOR_HOST", pubsub.host):
        yield


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv(name, value)
    try:
        yield
    finally:
        patch.undo()


# `make test` installs it, with the Python 3.13 that the emulator needs.
_BIGQUERY_VENV = ROOT / ".venv-bigquery"


@dataclass(frozen=True)
class BigQuery:
    """An emulator of BigQuery, with what tests do to it.

    Attributes:
      url: http://127.0.0.1:PORT of the REST API, the value of BIGQUERY_EMULATOR_HOST.
      grpc: 127.0.0.1:PORT of the Storage API, for an insecure channel.
      datasets: made by `make_dataset`.
    """

    url: str
    grpc: str
    project: str = "proj1"
    datasets: list[str] = field(default_factory=list, repr=False)

    @functools.cached_property
    def client(self) -> bigquery.Client:
        """Google's client of the REST API."""
        return bigquery.Client(
            self.project, credentials=AnonymousCredentials(), client_options={"api_endpoint": self.url}
        )

    def make_dataset(self) -> str:
        """Makes a dataset with a unique name; returns its id, PROJECT.DATASET."""
        dataset = f"{self.project}.dataset_{uuid.uuid4().hex}"
        self.client.create_dataset(dataset)
        self.datasets.append(dataset)
        return dataset

    def drop_datasets(self, kept: Sequence[str]) -> None:
        """Deletes all datasets made here except these: every table that exists makes each call slower."""
        for dataset in set(self.datasets) - set(kept):
            self.client.delete_dataset(dataset, delete_contents=True, not_found_ok=True)
            self.datasets.remove(dataset)

    def make_table(self, schema: Sequence[Mapping[str, Any]]) -> str:
        """Makes an empty table in a dataset of its own; returns its id, PROJECT.DATASET.TABLE.

        Args:
          schema: BigQuery's fields, as in its JSON schema files.
        """
        table = f"{self.make_dataset()}.table"
        self.client.create_table(bigquery.Table(table, [bigquery.SchemaField.from_api_repr(each) for each in schema]))
        return table

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Returns all rows of a table, PROJECT.DATASET.TABLE, in no order."""
        return [dict(row) for row in self.client.list_rows(self.client.get_table(table))]


def _memory() -> str | None:
    """Returns a directory in memory: the emulator waits for the disk at every statement. None: there is not enough."""
    there = os.path.isdir("/dev/shm") and shutil.disk_usage("/dev/shm").free > 1 << 30
    return "/dev/shm" if there else None


@contextlib.contextmanager
def bigquery_emulator(gcs: Gcs | None = None) -> Iterator[BigQuery]:
    """Runs local-bigquery, empty, with its data in a temporary directory.

    Args:
      gcs: where load jobs find gs:// files.
    """
    program = _BIGQUERY_VENV / "bin" / "local-bigquery"
    require(
        (_BIGQUERY_VENV / ".installed").exists(),
        "the BigQuery emulator is not installed: `make test` does it where it finds Python 3.13",
    )
    rest, storage = free_port(), free_port()
    server = BigQuery(f"http://127.0.0.1:{rest}", f"127.0.0.1:{storage}")
    arguments = ["--host=127.0.0.1", f"--port={rest}", f"--grpc-port={storage}", f"--project={server.project}"]
    variables = [f"HOME={_BIGQUERY_VENV}", *([f"STORAGE_EMULATOR_HOST={gcs.url}"] if gcs else [])]
    with (
        tempfile.TemporaryDirectory(dir=_memory()) as directory,
        running(
            ["env", *variables, str(program), *arguments, f"--data-dir={directory}"],
            lambda: answers(f"{server.url}/bigquery/v2/projects/{server.project}/datasets"),
        ),
    ):
        yield server


@contextlib.contextmanager
def bigquery_clients_use(server: BigQuery) -> Iterator[None]:
    """Sends the BigQuery clients of this process and its children to the emulator while the block runs."""
    with (
        _variable("BIGQUERY_EMULATOR_HOST", server.url),
        _variable("BIGQUERY_STORAGE_EMULATOR_HOST", server.grpc),
    ):
        yield
