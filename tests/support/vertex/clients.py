"""Google's generated clients of Vertex AI, for the local service, and jobs for them."""

from __future__ import annotations

import json
from ast import literal_eval
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from google.auth.credentials import AnonymousCredentials
from google.cloud.aiplatform_v1 import JobServiceClient, types

from tests.support.vertex.service import VertexService

Client = TypeVar("Client")


def rest_client(kind: type[Client], service: VertexService) -> Client:
    """Returns a generated client, such as EndpointServiceClient, over REST."""
    options = {"api_endpoint": service.url}
    return kind(transport="rest", credentials=AnonymousCredentials(), client_options=options)  # type: ignore[call-arg]


def write_lines(path: Path, values: Iterable[Any]) -> str:
    """Writes JSON lines; returns the path."""
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))
    return str(path)


def job_of(service: VertexService, name: str, inputs: Sequence[str], output: str, **fields: Any) -> dict[str, Any]:
    """Returns a job for `create_batch_prediction_job`: JSON lines without a key, unless fields say otherwise."""
    job = {
        "display_name": "a job",
        "model": service.resources.model_name(name),
        "input_config": {"instances_format": "jsonl", "gcs_source": {"uris": list(inputs)}},
        "output_config": {"predictions_format": "jsonl", "gcs_destination": {"output_uri_prefix": output}},
        "dedicated_resources": {"machine_spec": {"machine_type": "n1-standard-4"}, "starting_replica_count": 1},
    }
    return {**job, **fields}


def ended(client: JobServiceClient, name: str, polls: int = 50) -> types.BatchPredictionJob:
    """Asks for a job until it has ended; returns it."""
    for _ in range(polls):
        job = client.get_batch_prediction_job(name=name)
        if job.end_time:
            return job
    raise AssertionError(f"{name} is {job.state.name} after {polls} calls")


def results(job: types.BatchPredictionJob) -> list[dict[str, Any]]:
    """Returns all lines of a job's results in a local directory."""
    paths = sorted(Path(job.output_info.gcs_output_directory).glob("prediction.results-*"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def reasons(job: types.BatchPredictionJob) -> list[tuple[str, int]]:
    """Returns what a job's error files in a local directory say: text and count."""
    paths = sorted(Path(job.output_info.gcs_output_directory).glob("prediction.errors_stats-*"))
    return [literal_eval(line) for path in paths for line in path.read_text().splitlines()]
