"""What Vertex AI says of its endpoints and models: Endpoint.get and Model.get, over HTTP.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.endpoints. The generated client is not
used: it would cost each worker half a second and 131 MB.
"""

import collections
import dataclasses
import json
import logging
import re
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sluice.models.endpoints.certificates import ssl_context
from sluice.models.endpoints.credentials import Credentials
from sluice.models.endpoints.http_calls import Answer, HttpCalls
from sluice.models.endpoints.rest import cut_text
from sluice.models.endpoints.secrets import is_google
from sluice.models.endpoints.vertex_errors import status_of
from sluice.models.errors import CallError, ModelNotFound, SluiceError, UsageError
from sluice.models.interface import EndpointOptions
from sluice.models.uri import Deployed, Endpoint, deployed_number, parse_base_url, vertex_host

_LOG = logging.getLogger(__name__)

# Kinds of endpoints. https://cloud.google.com/vertex-ai/docs/predictions/choose-endpoint-type
SHARED, DEDICATED, PRIVATE, PEERING = "shared", "dedicated", "private", "peering"
# How long an endpoint lets a call take, unless it says otherwise.
_CALL_SECS = {SHARED: 60.0, DEDICATED: 600.0, PRIVATE: 600.0, PEERING: 60.0}

# A resource is read again if the service is busy: so often, with this pause, which doubles.
_TRIES, _PAUSE_SECS = 3, 1.0
_BUSY = (429, 502, 503)
_HOST = re.compile(r"[a-z0-9.-]+(:[0-9]{1,5})?")

Resource = Mapping[str, Any]


class Forbidden(ModelNotFound):
    """The caller may not read the resource."""


class NoSuchResource(ModelNotFound):
    """The service has no such endpoint or model."""


class DeployedModel(NamedTuple):
    """A model of an endpoint.

    Attributes:
      name: the model's resource, with its version.
      version: the model's; None: it has none.
      share: of the traffic, in percent.
    """

    id: str
    name: str
    version: int | None
    share: int


def base_of(name: str, options: EndpointOptions, endpoint: Endpoint | None) -> Endpoint:
    """Returns where a resource can be read.

    Args:
      name: projects/P/locations/L/...
      endpoint: of the model; one without TLS is a proxy, or a local service, which has its resources too.
    """
    if options.vertex_endpoint:
        return parse_base_url(options.vertex_endpoint, "--vertex_endpoint")
    if endpoint is not None and not endpoint.tls:
        return endpoint
    return Endpoint("vertex", vertex_host(name.split("/")[3]), 443, "", True)


def with_google_token(options: EndpointOptions, endpoint: Endpoint) -> EndpointOptions:
    """Returns the options with Google's token asked for, unless they have a token or the call is not encrypted."""
    given = options.token_file or options.google_audience or any(name.lower() == _AUTH for name, _ in options.headers)
    return options if given or not endpoint.tls else dataclasses.replace(options, google_auth=True)


_AUTH = "authorization"


def get_resource(
    name: str,
    options: EndpointOptions,
    timeout_secs: float,
    endpoint: Endpoint | None = None,
    sleep: Callable[[float], None] = time.sleep,
    tries: int = _TRIES,
) -> Resource:
    """Returns an endpoint or a model as the service describes it.

    Args:
      endpoint: see `base_of`.
      tries: how often it is asked for if the service is busy.

    Raises:
      Forbidden: the caller may not read it.
      NoSuchResource: there is none.
      ModelNotFound: the service does not answer, or does not tell.
    """
    base = base_of(name, options, endpoint)
    credentials = _credentials(options, base, endpoint)
    # The file of certificates is of the endpoint; Google's own API has a public one.
    trusted = options.ca_certificates if options.vertex_endpoint else ""
    calls = HttpCalls(base, ssl_context(trusted) if base.tls else None)
    path = f"/v1/{urllib.parse.quote(name, safe='/:')}"
    try:
        headers = [*credentials.headers(), ("accept-encoding", "gzip")]
        for number in range(tries):
            answer = calls.send("GET", path, headers, None, timeout_secs)
            if answer.status not in _BUSY or number == tries - 1:
                break
            sleep(_PAUSE_SECS * 2**number)
    except CallError as error:
        raise ModelNotFound(f"{error}; Vertex AI's API is expected there, or give --vertex_endpoint") from error
    finally:
        calls.close()
    return _resource(name, answer, base.address)


def _credentials(options: EndpointOptions, base: Endpoint, endpoint: Endpoint | None) -> Credentials:
    """Returns the credentials for reading a resource.

    Those that are given for a host of the user's own do not go to Google's API. It gets Google's own instead.

    Raises:
      Forbidden: there are none.
    """
    if endpoint is None or options.vertex_endpoint or base.host == endpoint.host or is_google(endpoint.host):
        headers = tuple(each for each in options.headers if each[0].lower() == _AUTH)
        return Credentials(with_google_token(dataclasses.replace(options, headers=headers), base), base)
    own = dataclasses.replace(options, headers=(), token_file="", google_audience="")
    try:
        return Credentials(with_google_token(own, base), base)
    except UsageError as error:
        told = f"{base.address} gets no credentials that are given for {endpoint.host}"
        raise Forbidden(f"{error}; {told}; or --signature_from tells what the model takes") from error


def _resource(name: str, answer: Answer, address: str) -> Resource:
    if answer.status == 200:
        try:
            found = json.loads(answer.data)
            if isinstance(found, dict):
                return found
        except ValueError:
            pass
        raise ModelNotFound(f"{address} answers, but is not Vertex AI: {cut_text(answer.data)}")
    code, said, _ = status_of(answer)
    kind = "endpoints" if "/endpoints/" in name else "models"
    if answer.status in (401, 403):
        raise Forbidden(
            f"{address} refuses to tell of {name}: {code}: {said}; the caller needs the permission "
            f"aiplatform.{kind}.get (role roles/aiplatform.user), or --signature_from tells what the model takes"
        )
    if answer.status == 404:
        raise NoSuchResource(f"{address} has no {name}: {said}")
    raise ModelNotFound(f"{address} does not tell of {name}: {code}: {said}")


def read_endpoint(resource: Resource) -> tuple[Deployed, list[DeployedModel]]:
    """Returns what an endpoint is, and its models that get traffic, the largest share first.

    Raises:
      ModelNotFound: it has no model that gets any, or a host of its own that is none.
    """
    models = _deployed_models(resource)
    if not models:
        raise ModelNotFound(f"endpoint {resource.get('name')} has no deployed model; deploy one")
    kind = _kind(resource)
    config = resource.get("clientConnectionConfig") or {}
    secs = _seconds(config.get("inferenceTimeout")) if kind in (DEDICATED, PRIVATE) else 0.0
    host = _host(str(resource.get("dedicatedEndpointDns") or "")) if kind == DEDICATED else ""
    deployed = Deployed(kind, host, secs or _CALL_SECS[kind], tuple(versions_of(models).items()))
    active = [each for each in models if each.share] or models
    return deployed, sorted(active, key=lambda each: -each.share)


def default_deployed(kind: str) -> Deployed:
    """Returns what is known of an endpoint that cannot be looked up."""
    return Deployed(kind, "", _CALL_SECS[kind])


def _deployed_models(resource: Resource) -> list[DeployedModel]:
    split = resource.get("trafficSplit") or {}
    found = []
    for each in resource.get("deployedModels") or []:
        version = str(each.get("modelVersionId") or "")
        name = str(each.get("model") or "").partition("@")[0]
        key = str(each.get("id") or "")
        share = int(split.get(key, 0))
        number = int(version) if version.isascii() and version.isdecimal() else None
        found.append(DeployedModel(key, f"{name}@{version}" if version else name, number, share))
    return found


def _kind(resource: Resource) -> str:
    private = resource.get("privateServiceConnectConfig") or {}
    if private.get("enablePrivateServiceConnect"):
        return PRIVATE
    if resource.get("network"):
        return PEERING
    return DEDICATED if resource.get("dedicatedEndpointEnabled") else SHARED


def _host(dns: str) -> str:
    """Returns a host. The proto says that it begins with https://, the documentation's example does not.

    Calls go there with their token, so it must be a host and nothing else.
    """
    host = dns.removeprefix("https://").strip("/").lower()
    if host and not _HOST.fullmatch(host):
        raise ModelNotFound(f"the endpoint's dedicatedEndpointDns is no host: {dns[:100]!r}")
    return host


def _seconds(duration: object) -> float:
    """Returns the seconds of a Duration, such as "600s"; 0 if it is none."""
    try:
        return float(str(duration or "").removesuffix("s") or 0)
    except ValueError:
        return 0.0


def versions_of(models: Sequence[DeployedModel], known: Mapping[str, int] | None = None) -> dict[str, int]:
    """Returns the version of the rows that each deployed model answers, by its id.

    It is the model's version number. Where two deployed models would have the same, because they are different models,
    it is the deployed model's own id, which is a number too.

    Args:
      known: versions that rows have already; they stay.
    """
    known = known or {}
    new = [each for each in models if each.id not in known]
    numbers = collections.Counter([*known.values(), *(each.version for each in new)])
    found = {}
    for each in new:
        version = deployed_number(each.id) if each.version is None or numbers[each.version] > 1 else each.version
        if version is not None:
            found[each.id] = version
    return {**found, **known}


def look_up_versions(
    name: str, options: EndpointOptions, timeout_secs: float, endpoint: Endpoint, known: Mapping[str, int]
) -> dict[str, int]:
    """Returns the versions of an endpoint's deployed models now; `known` if the service does not tell at once."""
    try:
        return versions_of(_deployed_models(get_resource(name, options, timeout_secs, endpoint, tries=1)), known)
    except SluiceError as error:
        _LOG.warning("The deployed models of %s are not known: %s", name, error)
        return dict(known)
