"""The URLs of the service, and what answers each."""

import dataclasses
import re
from collections.abc import Callable

from sluice.models.server.status import StatusError
from sluice.models.server.vertex.jobs import Jobs
from sluice.models.server.vertex.online import Online
from sluice.models.server.vertex.resources import Resources
from sluice.models.server.vertex.wire import Reply, Request, check_query, parse_empty, render

_LOCATION = r"/v1/projects/(?P<project>[^/:]+)/locations/(?P<location>[^/:]+)"
_ENDPOINT = rf"{_LOCATION}/endpoints/(?P<id>[^/:]+)"
_JOBS = rf"{_LOCATION}/batchPredictionJobs"
_LIST_FIELDS = frozenset(("filter", "pageSize", "pageToken", "readMask"))
# Methods of online calls that the service has, and this server has not.
_UNKNOWN = "explain|directPredict|directRawPredict|streamRawPredict|serverStreamingPredict"


@dataclasses.dataclass(frozen=True)
class Route:
    """One method of the API.

    Attributes:
      name: as tests call it.
      verb: HTTP's.
      url: matches the whole decoded path.
      fields: what a query may have.
      answer: from the request, and the group `id` of the URL.
    """

    name: str
    verb: str
    url: str
    answer: Callable[[Request, str], Reply]
    fields: frozenset[str] = frozenset()


def routes(resources: Resources, online: Online, jobs: Jobs) -> list[Route]:
    """Returns all methods."""

    def get_endpoint(request: Request, endpoint: str) -> Reply:
        return render(resources.endpoint_message(endpoint), request)

    def get_model(request: Request, model: str) -> Reply:
        return render(resources.model_message(resources.find_model(model)), request)

    def cancel_job(request: Request, job: str) -> Reply:
        parse_empty(request.body)
        jobs.cancel(job)
        return Reply(200, b"{}")

    def unknown(request: Request, endpoint: str) -> Reply:
        raise StatusError("UNIMPLEMENTED", f"the local service of Sluice has no {request.path.rpartition(':')[2]}")

    return [
        Route("predict", "POST", rf"{_ENDPOINT}:predict", online.predict),
        Route("rawPredict", "POST", rf"{_ENDPOINT}:rawPredict", online.raw_predict),
        Route("unknown", "POST", rf"{_ENDPOINT}:(?:{_UNKNOWN})", unknown),
        Route("peering", "POST", r"/v1/models/(?P<id>[^/:]+):predict", online.peering),
        Route("getEndpoint", "GET", _ENDPOINT, get_endpoint),
        Route("getModel", "GET", rf"{_LOCATION}/models/(?P<id>[^/:]+)", get_model),
        Route("createJob", "POST", rf"{_JOBS}(?P<id>)", lambda request, _: jobs.create(request)),
        Route("listJobs", "GET", rf"{_JOBS}(?P<id>)", lambda request, _: jobs.list_jobs(request), _LIST_FIELDS),
        Route("getJob", "GET", rf"{_JOBS}/(?P<id>[^/:]+)", jobs.get),
        Route("cancelJob", "POST", rf"{_JOBS}/(?P<id>[^/:]+):cancel", cancel_job),
    ]


def find_route(known: list[Route], request: Request) -> tuple[Route, re.Match[str]]:
    """Returns the method that a request is for, and its URL matched.

    Raises:
      StatusError: there is none.
    """
    for route in known:
        if route.verb == request.method and (match := re.fullmatch(route.url, request.path)):
            return route, match
    raise StatusError("NOT_FOUND", f"The requested URL {request.method} {request.path} was not found on this server.")


def answer_route(route: Route, match: re.Match[str], request: Request, resources: Resources) -> Reply:
    """Answers a request by its method.

    Raises:
      StatusError: the call fails.
    """
    check_query(request.query, route.fields)
    found = match.groupdict()
    if "project" in found:
        resources.check_location(found["project"], found["location"])
    return route.answer(request, found["id"])
