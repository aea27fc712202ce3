"""Batch jobs that run here and on Dataflow, so that their output can be compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from sluice.transforms.core.beam_files import open_binary
from tests.pipelines.test_batch_gcs import names
from tests.support.servers import BigQuery, Gcs
from tests.support.sizes import SOAK
from tests.support.vertex.service import VertexService

LOCALLY, REMOTELY = "locally", "remotely"


def read_file(path: str) -> bytes:
    with open_binary(path) as file:
        return file.read()


@dataclasses.dataclass(frozen=True)
class Places:
    """Where jobs read and write.

    Attributes:
      births: a table of rows for the model `natality`; some of them fail.
      dataset: for the tables that jobs make.
      vertex: a local Vertex AI with the model `criteo`.
    """

    gcs: Gcs
    bigquery: BigQuery
    births: str
    dataset: str
    vertex: VertexService


@dataclasses.dataclass(frozen=True)
class Case:
    """A batch job.

    Attributes:
      flags: returns the job's flags by where it writes: LOCALLY or REMOTELY.
      read: returns what the job has written there.
    """

    flags: Callable[[Places, str], list[str]]
    read: Callable[[Places, str], Any]


def files_case(format_: str, columns: str) -> Case:
    """From a file on GCS to files on GCS."""

    def flags(places: Places, where: str) -> list[str]:
        path = places.gcs.path
        flags = [f"--input={path(f'jobs/in/criteo.{format_}')}", f"--output={path(f'jobs/{format_}-{where}/pred.csv')}"]
        return [*flags, f"--columns={columns}", f"--model={path('jobs/criteo')}"]

    def read(places: Places, where: str) -> dict[str, bytes]:
        start = places.gcs.path(f"jobs/{format_}-{where}/")
        return {path.removeprefix(start): read_file(path) for path in names(f"{start}*")}

    return Case(flags, read)


def table_case() -> Case:
    """From BigQuery to BigQuery."""

    def flags(places: Places, where: str) -> list[str]:
        tables = [f"--output_table={places.dataset}.{where}", f"--failures_table={places.dataset}.{where}_failed"]
        model = f"--model={places.gcs.path('jobs/natality')}"
        return [f"--input_table={places.births}", *tables, model, "--max_failure_rate=0.5"]

    def read(places: Places, where: str) -> tuple[list[Any], list[Any]]:
        rows = [row | {"_predicted_at": None} for row in places.bigquery.rows(f"{places.dataset}.{where}")]
        failures = [row["payloadString"] for row in places.bigquery.rows(f"{places.dataset}.{where}_failed")]
        assert rows
        assert failures
        return sorted(rows, key=lambda row: row["id"]), sorted(failures)

    return Case(flags, read)


def endpoint_case() -> Case:
    """From a file on GCS to files on GCS, through an endpoint of Vertex AI.

    0.0.0.0 is this machine too, which the check that workers can reach a server does not know.
    """

    def flags(places: Places, where: str) -> list[str]:
        path = places.gcs.path
        flags = [f"--input={path('jobs/in/criteo.csv')}", f"--output={path(f'jobs/vertex-{where}/pred.csv')}"]
        model = f"--model={places.vertex.endpoint_uri('criteo')}"
        return [*flags, "--columns=id", model, f"--vertex_endpoint=http://0.0.0.0:{places.vertex.server.port}"]

    def read(places: Places, where: str) -> dict[str, bytes]:
        start = places.gcs.path(f"jobs/vertex-{where}/")
        return {path.removeprefix(start): read_file(path) for path in names(f"{start}*")}

    return Case(flags, read)


# Each case is submitted, run by the worker, run here, and compared. tf.Examples are what needs tfx-bsl.
CASES = {
    "csv": files_case("csv", columns="id"),
    "tfrecord": files_case("tfrecord", columns=""),
    "table": table_case(),
    **({"vertex": endpoint_case()} if SOAK else {}),
}
