"""Calls of Vertex AI's services for models and jobs, through the generated clients over REST.

The generated client repeats nothing and waits for ever, unless it is told. Here each call has a time-out, and is
repeated as the error table says. google.cloud.aiplatform_v1 is imported within functions: it takes 0.6 s and 131 MB,
and only commands that submit need it.
"""

import functools
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import Credentials
from google.auth.exceptions import GoogleAuthError
from google.protobuf import json_format

from sluice.models.errors import ServerFault, Unavailable
from sluice.pipelines.managed.credentials import find_credentials, is_plain, service_url
from sluice.pipelines.managed.errors import CANCEL, CREATE, GET, GET_MODEL, LIST, Call, error_of, kind_of
from sluice.pipelines.managed.job import Job, JobRequest, RegisteredModel
from sluice.pipelines.managed.wire import JOB_LABEL, job_of, job_proto, model_of

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1 import JobServiceClient, ModelServiceClient

_Answer = TypeVar("_Answer")
_Client = TypeVar("_Client", "JobServiceClient", "ModelServiceClient")

# One request. The service has no deadline of its own for these methods; they take a second or two.
_CALL_SECS = 60.0
# Pauses between tries, doubled each time. The quota of submissions is by the minute.
_FIRST_PAUSE_SECS, _LAST_PAUSE_SECS = 1.0, 30.0
# How often a call is repeated that fails in the server (500): the same call may fail for ever.
_MAX_FAULTS = 3
# What the generated client raises: errors of the service, of credentials, of the network (`requests` derives its own
# from OSError), and of an answer that is not as the proto says.
_ERRORS = (GoogleAPICallError, GoogleAuthError, OSError, json_format.ParseError)


class JobClient:
    """Models and batch prediction jobs of one project and location. Not thread-safe.

    Every method raises UsageError if repeating the call is of no use (a right is missing, there is no such resource,
    the request is wrong), and another SluiceError if the service could not be reached for `retry_secs`.

    Args:
      endpoint_url: --vertex_endpoint; "": Google's, for the location.
      credentials: None: those that google.auth finds.
      retry_secs: how long a call is repeated while the service is unavailable.
      page_size: how many jobs a call of `list` returns; further calls return the others.
      sleep: waits so many seconds.
      clock: seconds, monotonic.
    """

    def __init__(
        self,
        project: str,
        location: str,
        endpoint_url: str = "",
        credentials: Credentials | None = None,
        *,
        retry_secs: float = 300.0,
        page_size: int = 100,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.parent = f"projects/{project}/locations/{location}"
        self.url = service_url(location, endpoint_url)
        self._credentials = credentials or find_credentials(self.url)
        self._retry_secs, self._page_size = retry_secs, page_size
        self._sleep, self._clock = sleep, clock

    def model(self, name: str) -> RegisteredModel:
        """Returns a model of the registry: projects/P/locations/L/models/M, perhaps with @VERSION or @ALIAS."""
        return model_of(self._call(GET_MODEL, name, lambda: self._models.get_model(name=name, **_ONCE)))

    def find(self, label: str) -> list[Job]:
        """Returns the jobs that have this label, the oldest first: running ones and ended ones."""
        request = {"parent": self.parent, "filter": f"labels.{JOB_LABEL}={label}", "page_size": self._page_size}
        # The pager asks for further pages while it is gone through.
        found = self._call(LIST, self.parent, lambda: list(self._jobs.list_batch_prediction_jobs(request, **_ONCE)))
        jobs = [job_of(message) for message in found]
        return sorted((job for job in jobs if job.label == label), key=lambda job: job.age_order)

    def get(self, name: str) -> Job:
        """Returns a job as it is now."""
        return job_of(self._call(GET, name, lambda: self._jobs.get_batch_prediction_job(name=name, **_ONCE)))

    def cancel(self, name: str) -> None:
        """Asks the service to cancel a job. It may still succeed."""
        self._call(CANCEL, name, lambda: self._jobs.cancel_batch_prediction_job(name=name, **_ONCE))

    def create(self, request: JobRequest) -> Job:
        """Creates a job, and no second one if the answer is lost: before a call is repeated, the job is looked for."""
        token = uuid.uuid4().hex
        message = job_proto(request, token)
        tries = 0

        def create() -> Job:
            nonlocal tries
            tries += 1
            made = self._made(request.label, token) if tries > 1 else None
            return made or job_of(
                self._jobs.create_batch_prediction_job(parent=self.parent, batch_prediction_job=message, **_ONCE)
            )

        return self._call(CREATE, self.parent, create)

    def _made(self, label: str, token: str) -> Job | None:
        return next((job for job in self.find(label) if job.token == token), None)

    def _call(self, call: Call, resource: str, method: Callable[[], _Answer]) -> _Answer:
        """Returns what a method answers; repeats it while its errors may pass."""
        start, faults = self._clock(), 0
        for pause in _pauses():
            try:
                return method()
            except _ERRORS as error:
                faults += kind_of(error) is ServerFault
                wait = max(pause, _retry_after(error))
                late = self._clock() + wait - start > self._retry_secs
                if late or faults > _MAX_FAULTS or not issubclass(kind_of(error), Unavailable | ServerFault):
                    raise error_of(call, resource, error) from error
                self._sleep(wait)
        raise AssertionError("pauses never end")

    @functools.cached_property
    def _jobs(self) -> "JobServiceClient":
        from google.cloud.aiplatform_v1 import JobServiceClient

        return self._open(JobServiceClient)

    @functools.cached_property
    def _models(self) -> "ModelServiceClient":
        from google.cloud.aiplatform_v1 import ModelServiceClient

        return self._open(ModelServiceClient)

    def _open(self, kind: type[_Client]) -> _Client:
        """Returns a generated client. Over gRPC it could not reach a plain http:// server."""
        host = self.url if is_plain(self.url) else self.url.removeprefix("https://")
        return kind(credentials=self._credentials, transport="rest", client_options={"api_endpoint": host})


# The generated client repeats nothing itself.
_ONCE = {"retry": None, "timeout": _CALL_SECS}


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE_SECS
    while True:
        yield pause
        pause = min(2 * pause, _LAST_PAUSE_SECS)


def _retry_after(error: Exception) -> float:
    """Returns how long the server asks to wait; 0: it does not say. A date is not heeded."""
    headers = getattr(error.response, "headers", {}) if isinstance(error, GoogleAPICallError) else {}
    text = headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdecimal() else 0.0
