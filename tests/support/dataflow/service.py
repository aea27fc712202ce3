"""A fake Dataflow service on localhost that accepts and records jobs. It runs none itself: hermetic.py does.

It answers the requests of Beam's DataflowRunner (`--dataflow_endpoint=URL --no_auth`) and gcloud
(`CLOUDSDK_API_ENDPOINT_OVERRIDES_DATAFLOW=URL/`) ask, as in
https://cloud.google.com/dataflow/docs/reference/rest/v1b3/projects.locations.jobs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from tests.support.serving.local_server import Handler, LocalServer

_NAME = re.compile(r"/v1b3/projects/(?P<project>[^/]+)(/locations/(?P<region>[^/]+))?/(?P<rest>[^?]*)")
_BATCH, _STREAMING = (1, "JOB_TYPE_BATCH"), (2, "JOB_TYPE_STREAMING")
# By requested state, the state that a job then has.
_NEXT_STATES = {"JOB_STATE_CANCELLED": "JOB_STATE_CANCELLED", "JOB_STATE_DRAINED": "JOB_STATE_DRAINING"}
_SHOWN = ("name", "type", "labels", "clientRequestId", "replaceJobId")
_STATES_BY_NUMBER = {5: "JOB_STATE_CANCELLED", 7: "JOB_STATE_DRAINED"}  # the numbers that Beam's client sends


@dataclasses.dataclass
class Job:
    """A job that was submitted.

    Attributes:
      request: the Job message, as JSON.
      state: as a request for the job reports it.
      updates: the bodies of the requests that changed the job.
    """

    id: str
    project: str
    region: str
    request: dict[str, Any]
    state: str
    updates: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.request["name"])

    @property
    def is_active(self) -> bool:
        return self.state in ("JOB_STATE_RUNNING", "JOB_STATE_DRAINING")

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.request.get("labels", {}))

    @property
    def streaming(self) -> bool:
        return self.request.get("type") in _STREAMING

    @property
    def environment(self) -> dict[str, Any]:
        """The job's environment: experiments, serviceOptions, workerPools and others."""
        return dict(self.request["environment"])

    @property
    def worker_pool(self) -> dict[str, Any]:
        (pool,) = self.environment["workerPools"]
        return dict(pool)

    @property
    def options(self) -> dict[str, Any]:
        """The pipeline options that workers get."""
        return dict(self.environment["sdkPipelineOptions"]["options"])

    @property
    def display_data(self) -> list[dict[str, Any]]:
        """The pipeline options that the console shows."""
        return list(self.environment["sdkPipelineOptions"]["display_data"])

    @property
    def pipeline_url(self) -> str:
        """The gs:// path of the graph."""
        return str(self.options["pipelineUrl"])

    @property
    def packages(self) -> dict[str, str]:
        """The gs:// paths of the files staged for workers, by name."""
        return {
            each["name"]: each["location"].replace("storage.googleapis.com/", "gs://", 1)
            for each in self.worker_pool.get("packages", [])
        }

    def to_json(self) -> dict[str, Any]:
        """Returns the job as the service shows it: a summary of the request."""
        return {key: self.request[key] for key in _SHOWN if key in self.request} | {
            "id": self.id,
            "projectId": self.project,
            "location": self.region,
            "currentState": self.state,
            "currentStateTime": "2026-01-02T03:05:06.789Z",
            "createTime": "2026-01-02T03:04:05.678Z",
        }


class DataflowService(LocalServer):
    """Records what it is sent. A batch job is done at once; a streaming job runs until a request changes it.

    A second job of the name of one that runs is not made: the answer is the one that runs.

    Attributes:
      url: http://localhost:PORT. Beam accepts plain HTTP from a host of this name only.
      jobs: the jobs that were created, in order.
      launches: the bodies of the requests that launch a Flex Template, in order.
      counters: the counters of the namespace `sluice` that are reported for every job.
      refusal: an HTTP status and a message that refuse the next job or launch; then it is None again.
      on_create: is called with a new job before the answer, runs it, and returns whether it succeeded; None: all do.
    """

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.launches: list[dict[str, Any]] = []
        self.counters: dict[str, int] = {}
        self.refusal: tuple[int, str] | None = None
        self.on_create: Callable[[Job], bool] | None = None
        super().__init__(_handler(self))
        self.url = self.url.replace("127.0.0.1", "localhost")  # Beam accepts plain HTTP from this name only

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Returns the status and the JSON of an answer."""
        match = _NAME.match(path)
        if match is None:
            return _error(404, f"the fake service does not know {path}")
        project, region, rest = match["project"], match["region"] or "", match["rest"]
        if method == "POST" and rest in ("jobs", "flexTemplates:launch"):
            if self.refusal is not None:
                refusal, self.refusal = self.refusal, None
                return _error(*refusal)
            return 200, self._create(project, region, body) if rest == "jobs" else self._launch(project, region, body)
        if method == "GET" and rest in ("jobs", "jobs:aggregated"):
            return 200, {"jobs": [job.to_json() for job in self.jobs if job.project == project]}
        return self._answer_about(method, rest, body)

    def _create(self, project: str, region: str, request: dict[str, Any]) -> dict[str, Any]:
        if not request.get("replaceJobId"):
            there = [
                job for job in self.jobs if job.is_active and (job.project, job.name) == (project, request["name"])
            ]
            if there:
                return there[0].to_json()
        state = "JOB_STATE_RUNNING" if request.get("type") in _STREAMING else "JOB_STATE_DONE"
        for replaced in (job for job in self.jobs if job.id == request.get("replaceJobId")):
            replaced.state = "JOB_STATE_UPDATED"
        job = Job(f"2026-01-02_03_04_05-{len(self.jobs)}", project, region, request, state)
        self.jobs.append(job)
        if self.on_create is not None and not self.on_create(job):
            job.state = "JOB_STATE_FAILED"
        return job.to_json()

    def _launch(self, project: str, region: str, body: dict[str, Any]) -> dict[str, Any]:
        self.launches.append(body)
        name = body.get("launchParameter", {}).get("jobName", "")
        job = {"id": f"launched-{len(self.launches)}", "name": name, "projectId": project, "location": region}
        return {"job": job | {"createTime": "2026-01-02T03:04:05.678Z", "currentState": "JOB_STATE_QUEUED"}}

    def _answer_about(self, method: str, rest: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        kind, _, name = rest.partition("/")
        id_, _, part = name.partition("/")
        job = next((job for job in self.jobs if job.id == id_), None)
        if kind != "jobs" or job is None:
            return _error(404, f"the fake service has no {rest}")
        if method == "PUT":
            job.updates.append(body)
            asked = body.get("requestedState", "")
            asked = _STATES_BY_NUMBER.get(asked, asked)
            job.state = _NEXT_STATES.get(asked, job.state)
        if part == "metrics":
            return 200, {"metrics": [each for pair in self.counters.items() for each in _updates(*pair)]}
        if part == "messages":
            return 200, {"jobMessages": []}
        return 200, job.to_json()


def _updates(name: str, value: int) -> list[dict[str, Any]]:
    """Returns a counter as the service reports it: attempted, and committed."""
    context = {"namespace": "sluice", "step": "step"}
    contexts = [context | {"tentative": "true"}, context]
    return [{"name": {"origin": "user", "name": name, "context": each}, "scalar": value} for each in contexts]


def _error(status: int, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"code": status, "message": message, "status": "FAKE"}}


def _handler(service: DataflowService) -> type[Handler]:
    class Answers(Handler):
        def _handle(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = orjson.loads(self.rfile.read(length) or b"{}")
            status, answer = service.answer(self.command, self.path, body)
            self.send_json(status, orjson.dumps(answer))

        do_GET = do_POST = do_PUT = _handle

    return Answers


@contextlib.contextmanager
def dataflow_service() -> Iterator[DataflowService]:
    """Runs a DataflowService while the block runs."""
    service = DataflowService()
    try:
        yield service
    finally:
        service.close()
